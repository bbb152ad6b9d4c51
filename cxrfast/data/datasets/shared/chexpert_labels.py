"""Labels as the CheXpert labeller writes them (Irvin et al. 2019): 1 present, 0 absent, −1 uncertain, or blank.

A blank means that the report does not mention the finding. The authors count it as negative (their Table 1), and so
does :class:`LabelColumns`. Uncertain labels are unknown, absent or present by ``DataOptions.uncertain``. "No Finding"
is not a class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cxrfast.data.class_names import ClassMatcher, class_key, is_no_finding
from cxrfast.data.datasets.interface import Uncertain
from cxrfast.data.datasets.shared.gathering import KnownSets, counted
from cxrfast.data.tables.csv_table import CsvTable, is_empty

# In CheXpert's order. MIMIC-CXR has the same classes in alphabetical order.
CHEXPERT_CLASSES = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
_DEVICES = class_key("Support Devices")  # not a finding: may be present beside "No Finding"


class RowLabels(NamedTuple):
    """The labels of a row, and numbers for the notes."""

    present: frozenset[str]
    known: frozenset[str]
    blank: int
    uncertain: int
    contradicted: bool  # "No Finding" beside a finding
    empty: bool  # all cells are blank


@dataclass
class LabelCounts:
    """Sums over the images that are read."""

    blank: int = 0
    uncertain: int = 0
    contradicted: int = 0

    def add(self, labels: RowLabels) -> None:
        self.blank += labels.blank
        self.uncertain += labels.uncertain
        self.contradicted += labels.contradicted

    def notes(self, uncertain: Uncertain) -> list[str]:
        effect = {"ignore": "unknown", "zero": "absent", "one": "present"}[uncertain]
        return counted(
            (self.blank, "blank labels (not mentioned in the report), absent as the authors count them"),
            (self.uncertain, f"uncertain labels (-1), taken as {effect} (--uncertain ignore, zero or one)"),
            (self.contradicted, "images with 'No Finding' beside a finding, of which the finding is taken"),
        )


class LabelColumns:
    """Reads the label columns of a table.

    Args:
        table: the table.
        uncertain: what −1 becomes.
        class_names: names to use for the classes; default: those of the table, in its order.
    """

    def __init__(self, table: CsvTable, uncertain: Uncertain, class_names: Sequence[str] = ()):
        self.table = table
        self.uncertain = uncertain
        known = ClassMatcher(CHEXPERT_CLASSES)
        there = [(name, place) for place, name in enumerate(table.header) if known.match(name) is not None]
        self.class_names = tuple(class_names) or tuple(name for name, _ in there)
        matcher = ClassMatcher(self.class_names)
        self.spellings: dict[str, str] = {}
        self._columns: list[tuple[str, int]] = []
        for name, place in there:
            of = matcher.match(name)
            if of is None:
                continue
            self._columns.append((of, place))
            if of != name:
                self.spellings[name] = of
        nothing = [place for place, name in enumerate(table.header) if is_no_finding(name)]
        self._no_finding = nothing[0] if nothing else None
        self._places = [place for _, place in self._columns] + nothing[:1]
        self._number = table.numbers(self._places)
        self._cache: dict[tuple[str, ...], RowLabels] = {}
        self._sets = KnownSets()

    @property
    def last(self) -> int:
        """The last column that holds labels."""
        return max(self._places, default=0)

    def labels(self, row: Sequence[str], line: int) -> RowLabels:
        """The labels of one row. Raises CxrfastError for a value that is not 1, 0, −1 or blank."""
        if len(row) <= self.last:
            raise self.table.error(line, f"{len(row)} fields, expected {self.last + 1}")
        cells = tuple(row[place] for place in self._places)
        if cells not in self._cache:
            self._cache[cells] = self._parse(cells, line)
        return self._cache[cells]

    def _parse(self, cells: tuple[str, ...], line: int) -> RowLabels:
        present, known, blank, uncertain = set(), set(), 0, 0
        for (name, _), cell in zip(self._columns, cells, strict=False):
            value = self._value(name, cell, line)
            blank += value is None
            uncertain += value == -1
            if value == 1 or (value == -1 and self.uncertain == "one"):
                present.add(name)
            if value != -1 or self.uncertain != "ignore":
                known.add(name)
        nothing = None if self._no_finding is None else self._value("No Finding", cells[-1], line)
        contradicted = nothing == 1 and any(class_key(name) != _DEVICES for name in present)
        empty = blank == len(self._columns) and nothing is None
        return RowLabels(self._sets.share(present), self._sets.share(known), blank, uncertain, contradicted, empty)

    def _value(self, name: str, cell: str, line: int) -> int | None:
        if is_empty(cell):
            return None
        try:
            value = self._number(cell)
        except ValueError:
            value = None
        if value not in (0.0, 1.0, -1.0):
            raise self.table.error(line, f"'{name}' is {cell.strip()!r}, expected 1, 0, -1 or blank")
        return int(value)
