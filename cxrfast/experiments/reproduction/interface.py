"""What `cxrfast reproduce` can run: tables of networks trained on X-rays, and whatever else has a name and a `run`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cxrfast.experiments.reproduction.settings import Overrides


class Outcome(Protocol):
    """What running a plan gives."""

    @property
    def text(self) -> str:
        """Our numbers beside the published ones, for a terminal of 100 columns."""

    @property
    def written(self) -> tuple[Path, ...]:
        """The files with the numbers."""

    @property
    def failed(self) -> bool:
        """Whether a part of it could not be run."""


class Plan(Protocol):
    """A table or a figure of a paper."""

    @property
    def name(self) -> str:
        """What the command line takes, such as "seibold2"."""

    @property
    def title(self) -> str:
        """Paper, number, and what is shown."""

    @property
    def data(self) -> str:
        """What --data is to be, such as "the folder of ChestX-ray14"."""

    def listing(self) -> Sequence[str]:
        """The lines below its title in the list of all plans: rows, and what they cost."""

    def run(self, data: Path, out: Path, *, rows: Sequence[str] | None, overrides: Overrides) -> Outcome:
        """Do what is not finished, into `out`, and compare with what is published.

        Raises UsageError for rows and overrides that it does not have, before anything runs.
        """
