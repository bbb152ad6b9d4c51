"""The papers as data: their published numbers, and the statements that specify their methods."""

from cxrfast.published.numbers import PublishedRow, published_rows, rows
from cxrfast.published.statements import Alternative, Paper, Statement, find_paper, find_statements, papers

__all__ = [
    "Alternative",
    "Paper",
    "PublishedRow",
    "Statement",
    "find_paper",
    "find_statements",
    "papers",
    "published_rows",
    "rows",
]
