"""`cxrfast reproduce`: the papers' tables, run and set beside what is published."""

from cxrfast.reproduction.comparison import Cell, ComparedRow, ComparedTable, Comparison, compare_row
from cxrfast.reproduction.cost import Cost, run_cost, table_cost
from cxrfast.reproduction.plans import TABLES, PlannedRun, TablePlan, TableRow, find_table
from cxrfast.reproduction.runner import Reproduction, reproduce
from cxrfast.reproduction.settings import Overrides
from cxrfast.reproduction.text import listing, to_markdown, to_text

__all__ = [
    "TABLES",
    "Cell",
    "ComparedRow",
    "ComparedTable",
    "Comparison",
    "Cost",
    "Overrides",
    "PlannedRun",
    "Reproduction",
    "TablePlan",
    "TableRow",
    "compare_row",
    "find_table",
    "listing",
    "reproduce",
    "run_cost",
    "table_cost",
    "to_markdown",
    "to_text",
]
