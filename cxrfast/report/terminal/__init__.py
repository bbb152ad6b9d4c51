"""Evaluations and data sets as text for a terminal."""

from cxrfast.report.terminal.cross_validation import cross_validation_to_text
from cxrfast.report.terminal.data import data_to_text
from cxrfast.report.terminal.evaluation import evaluation_to_text

__all__ = ["cross_validation_to_text", "data_to_text", "evaluation_to_text"]
