"""The interface of plans that `cxrfast reproduce` can run, and of their outcomes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cxrfast.experiments.reproduction.settings import Overrides


class Outcome(Protocol):
    """The outcome of a plan."""

    @property
    def text(self) -> str:
        """Our numbers with the published ones, for a terminal of 100 columns."""

    @property
    def written(self) -> tuple[Path, ...]:
        """The files that were written."""

    @property
    def failed(self) -> bool:
        """Whether any part failed."""


class Plan(Protocol):
    """A table or a figure of a paper."""

    @property
    def name(self) -> str:
        """The name on the command line, such as "seibold2"."""

    @property
    def title(self) -> str:
        """Paper, number and content of the table or figure."""

    @property
    def data(self) -> str:
        """A description of what --data expects, such as "the folder of ChestX-ray14"."""

    def listing(self) -> Sequence[str]:
        """The lines below the title in the list of all plans: rows and their costs."""

    def run(self, data: Path, out: Path, *, rows: Sequence[str] | None, overrides: Overrides) -> Outcome:
        """Do the unfinished runs in `out`, and compare the results with the published ones.

        Raises UsageError for unknown rows and overrides, before anything runs.
        """
