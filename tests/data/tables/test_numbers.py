"""Numbers in tables: decimal commas and marks between thousands."""

import pytest

from cxrfast.data.tables.csv_table import CsvTable
from cxrfast.data.tables.values import parse_size
from cxrfast.errors import CxrfastError


def numbers(tmp_path, text):
    """All numbers of the columns a and b."""
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    table = CsvTable(path, ["a", "b"])
    parse = table.numbers([0, 1])
    return [parse(cell) for _, row in table.rows() for cell in row[:2]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a,b\n"1,024",2.048\n', [1024, 2.048]),  # separated by commas: no decimal commas
        ("a;b\n1,024;512\n", [1024, 512]),
        ("a;b\n1.024;0,5\n", [1024, 0.5]),
        ("a;b\n1.024,5;1.024\n", [1024.5, 1024]),
        ("a;b\n1,024;0.5\n", [1024, 0.5]),
        ("a\tb\n1,024.5;\t1,024\n".replace(";", ""), [1024.5, 1024]),
        ("a;b\n1.024;0.5\n", [1.024, 0.5]),
        ("a;b\n1,024;0,5\n", [1.024, 0.5]),
        ("a;b\n1.024;12.500\n", [1.024, 12.5]),  # all numbers with three decimals
        ("a;b\n58.0;58,5\n", [58, 58.5]),
        ("a;b\n;nan\n", [None, None]),
    ],
)
def test_marks_in_numbers(tmp_path, text, expected):
    assert numbers(tmp_path, text) == expected


@pytest.mark.parametrize("row", ["1,024;2,048", "1.024;512", "1,024;2.048"])
def test_numbers_of_unclear_meaning_are_refused(tmp_path, row):
    with pytest.raises(CxrfastError, match=r"line 2: '1.024' may be a thousand or a fraction"):
        numbers(tmp_path, f"a;b\n{row}\n")
    with pytest.raises(CxrfastError, match=r"line 3: '1.024' may be a thousand or a fraction"):
        numbers(tmp_path, f"a;b\n0.5;0,5\n{row}\n")


@pytest.mark.parametrize("cell", ["2048", "2,048", "2.048", "2048.0", "2048,0"])
def test_a_size_is_a_whole_number(cell):
    assert parse_size(cell) == 2048


@pytest.mark.parametrize("cell", ["0.5", "35.56", "-3", "wide"])
def test_a_size_that_is_none(cell):
    with pytest.raises(ValueError, match="size is|could not convert"):
        parse_size(cell)


def test_quotes_after_spaces(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('"a" , "b, c"\n1, "2, 3"\n', encoding="utf-8")
    table = CsvTable(path, ["a"])
    assert table.header == ["a", "b, c"]
    assert list(table.rows()) == [(2, ["1", "2, 3"])]
