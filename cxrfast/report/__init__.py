"""Reports of one evaluation, of two, or of a cross-validation: HTML pages and terminal text."""

from cxrfast.report.comparison import RunComparison, compare
from cxrfast.report.facts import Evaluated, from_folder, from_predictions, from_result
from cxrfast.report.html.folds import is_folds, render_folds, write_folds
from cxrfast.report.html.page import render_comparison, render_report, write_comparison, write_report

__all__ = [
    "Evaluated",
    "RunComparison",
    "compare",
    "from_folder",
    "from_predictions",
    "from_result",
    "is_folds",
    "render_comparison",
    "render_folds",
    "render_report",
    "write_comparison",
    "write_folds",
    "write_report",
]
