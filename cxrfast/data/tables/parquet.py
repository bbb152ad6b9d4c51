"""Parquet tables as text, so that the readers of CSV tables read them too.

Needs pyarrow, or pandas with another Parquet engine.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrfast.errors import CxrfastError


def parquet_text(path: Path, *, head: bool = False) -> str:
    """The table as CSV text: the header in line 1, row n in line n + 1. Lists become ``A|B``, missing values blanks.

    With ``head`` the text is the header alone.
    """
    columns = _read(path, head)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    if not head:
        writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    return text.getvalue()


def _read(path: Path, head: bool) -> Mapping[str, Sequence[Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        return _read_with_pandas(path)
    try:
        if head:
            return dict.fromkeys(parquet.read_schema(path).names, ())
        return parquet.read_table(path).to_pydict()
    except Exception as error:  # pyarrow's errors have no common base besides OSError and ValueError
        raise CxrfastError(f"{path} cannot be read as a Parquet table ({error}); restore the original file") from error


def _read_with_pandas(path: Path) -> Mapping[str, Sequence[Any]]:
    try:
        import pandas
    except ImportError:
        raise CxrfastError(
            f"{path}: a Parquet table needs the package pyarrow (or pandas with fastparquet), which is not installed; "
            "pip install pyarrow, or save the table as CSV"
        ) from None
    try:
        table = pandas.read_parquet(path)
    except Exception as error:
        raise CxrfastError(f"{path} cannot be read as a Parquet table ({error}); restore the original file") from error
    return {str(name): table[name].tolist() for name in table.columns}


def _cell(value: Any) -> str:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (list, tuple)):
        return "|".join(_cell(one) for one in value)
    if value is None or value != value or str(value) in ("NaT", "<NA>"):
        return ""
    return " ".join(str(value).splitlines())
