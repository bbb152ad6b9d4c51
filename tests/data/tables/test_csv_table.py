"""Numbers of tables, whose commas may separate thousands or decimals."""

import pytest

from cxrfast.data.tables.csv_table import CsvTable, parse_number
from cxrfast.errors import CxrfastError


def read(tmp_path, text):
    """The numbers of columns a and b, row by row."""
    path = tmp_path / "table.csv"
    path.write_text(text)
    table = CsvTable(path, ["a", "b"])
    number = table.numbers(table.column.values())
    return [[number(cell) for cell in row[:2]] for _, row in table.rows()]


@pytest.mark.parametrize(
    ("rows", "numbers"),
    [
        ("a;b\n1,024;512\n", [[1024, 512]]),
        ("a\tb\n1,024\t512\n", [[1024, 512]]),
        ("a;b\n1,024;58,5\n", [[1.024, 58.5]]),
        ("a;b\n1,024;\n0,853;7\n", [[1.024, None], [0.853, 7]]),
        ("a;b\n1,024;1,024.5\n", [[1024, 1024.5]]),
        ("a;b\n1,024;1,024,000\n", [[1024, 1024000]]),
        ("a;b\n1.024,5;1,5e-3\n", [[1024.5, 0.0015]]),
        ('a,b\n"1,024",58.5\n', [[1024, 58.5]]),
        ("a;b;c\n1,024;512;0,5\n", [[1024, 512]]),  # each kind of number has its columns
    ],
)
def test_numbers(tmp_path, rows, numbers):
    assert read(tmp_path, rows) == numbers


def test_a_comma_that_may_be_either_is_refused(tmp_path):
    with pytest.raises(CxrfastError, match="table.csv, line 3: '1,024' may be a thousand or a fraction; write numbers"):
        read(tmp_path, "a;b;c\n;;7\n1,024;2,048;7\n")


@pytest.mark.parametrize("rows", ["a;b\n1,024.5;58,5\n", 'a,b\n"58,5",1\n', 'a,b\n"0,853",1\n', "a;b\n1,2,3;4\n"])
def test_what_is_no_number(tmp_path, rows):
    with pytest.raises(ValueError, match="could not convert|not a number"):
        read(tmp_path, rows)


def test_parse_number():
    assert [parse_number(cell) for cell in (" 1 ", "nan", "", "-1,024", "1e3")] == [1, None, None, -1024, 1000]
    with pytest.raises(ValueError, match="finite"):
        parse_number("inf")
