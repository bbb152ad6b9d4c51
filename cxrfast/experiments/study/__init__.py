"""A comparison of the methods, and of the contributions of the paper, on phantoms with few annotated images."""

from cxrfast.experiments.study.plan import (
    CONTRIBUTIONS,
    IMAGES,
    ROWS,
    SEEDS,
    SHARES,
    Study,
    StudyRow,
    StudyRun,
    choose_rows,
)
from cxrfast.experiments.study.results import MEASURES, Difference, StudyLine, StudyResult
from cxrfast.experiments.study.runner import StudyFiles, run_study
from cxrfast.experiments.study.text import to_markdown

__all__ = [
    "CONTRIBUTIONS",
    "IMAGES",
    "MEASURES",
    "ROWS",
    "SEEDS",
    "SHARES",
    "Difference",
    "Study",
    "StudyFiles",
    "StudyLine",
    "StudyResult",
    "StudyRow",
    "StudyRun",
    "choose_rows",
    "run_study",
    "to_markdown",
]
