"""`cxrfast reproduce`: runs the papers' tables and figures, and compares the results with the published ones."""

from cxrfast.experiments.reproduction.comparison import (
    ComparedNumber,
    ComparedRow,
    ComparedTable,
    MetricComparison,
    compare_row,
)
from cxrfast.experiments.reproduction.cost import Cost, run_cost, table_cost
from cxrfast.experiments.reproduction.deviations import Deviations, deviations_of
from cxrfast.experiments.reproduction.interface import Outcome, Plan
from cxrfast.experiments.reproduction.plans import PlannedRow, PlannedRun, PublishedLine, TablePlan
from cxrfast.experiments.reproduction.registry import PLANS, find_plan, listing, reproduce
from cxrfast.experiments.reproduction.runner import Reproduction, run_table
from cxrfast.experiments.reproduction.settings import Overrides, run_config
from cxrfast.experiments.reproduction.tables import TABLES
from cxrfast.experiments.reproduction.text import to_markdown, to_text

__all__ = [
    "PLANS",
    "TABLES",
    "ComparedNumber",
    "ComparedRow",
    "ComparedTable",
    "Cost",
    "Deviations",
    "MetricComparison",
    "Outcome",
    "Overrides",
    "Plan",
    "PlannedRow",
    "PlannedRun",
    "PublishedLine",
    "Reproduction",
    "TablePlan",
    "compare_row",
    "deviations_of",
    "find_plan",
    "listing",
    "reproduce",
    "run_config",
    "run_cost",
    "run_table",
    "table_cost",
    "to_markdown",
    "to_text",
]
