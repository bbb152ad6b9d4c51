"""The labels of a manifest: from rows that were read to records."""

from collections.abc import Sequence
from pathlib import Path

from cxrfast.data.class_names import class_key
from cxrfast.data.datasets.formats._manifest_boxes import Draft
from cxrfast.data.datasets.formats._manifest_columns import LongLabels, WideColumns, label_value
from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.shared.gathering import IMPLIED, KnownSets, counted, odd_ages, with_boxes
from cxrfast.data.records import Record
from cxrfast.data.tables.values import MAX_AGE
from cxrfast.errors import CxrfastError

Labels = tuple[frozenset[str], frozenset[str]]  # present, known

_DEVICES = class_key("Support Devices")  # may be present in an image without a finding


class ManifestLabels:
    """Turns drafts into records, and counts what was decided on their labels.

    Args:
        long: the lists of findings, if the manifest has them.
        listed_classes: classes that only lists name.
    """

    def __init__(
        self,
        path: Path,
        options: DataOptions,
        wide: WideColumns,
        long: LongLabels | None,
        listed_classes: Sequence[str],
    ):
        self.path = path
        self.options = options
        self.wide = wide
        self.in_lists = frozenset(long.names.values()) if long else frozenset()
        self.listed_classes = frozenset(listed_classes)
        self.shared = KnownSets()
        self.parsed: dict[tuple[str, ...], tuple[Labels, int]] = {}
        self.uncertain = self.implied = self.odd_ages = self.unlabelled = 0

    def record(self, draft: Draft) -> Record:
        (present, known), uncertain = self._of_columns(draft)
        self.uncertain += uncertain
        if draft.listed:
            self._check_lists(draft, present, known)
            present, known = present | draft.present, known | self.listed_classes
        elif draft.no_finding:  # a row of the table of boxes, beside columns of classes
            known = known | self.wide.classes.keys()
        present, known, implied = with_boxes(
            self.shared.share(present),
            self.shared.share(known),
            draft.boxes,
            self.shared,
            imply_labels=self.options.boxes_imply_labels,
        )
        self.implied += implied
        self.unlabelled += not known
        details = {key: value for key, value in draft.details.items() if key != "file"}
        if (details["age"] or 0) > MAX_AGE:
            self.odd_ages += 1
            details["age"] = None
        boxes = {name: of for name, of in draft.boxes.items() if of}
        return Record(draft.image, draft.path, labels=present, boxes=boxes, known=known, **details)

    def _of_columns(self, draft: Draft) -> tuple[Labels, int]:
        """Labels from the columns of classes, and the number of uncertain ones."""
        if draft.wide in self.parsed:
            return self.parsed[draft.wide]
        values = {name: label_value(cell) for name, cell in zip(self.wide.classes, draft.wide, strict=False)}
        none = self.wide.no_finding is not None and label_value(draft.wide[-1]) == 1
        present = {name for name, value in values.items() if value == 1}
        findings = [name for name in present if class_key(name) != _DEVICES]
        if none and findings:
            raise self._error(draft, f"'No Finding' is 1 beside {min(findings)}")
        known = {name for name, value in values.items() if value in (0, 1) or (none and value is None)}
        uncertain = {name for name, value in values.items() if value == -1}
        if self.options.uncertain in ("zero", "one"):
            known |= uncertain
            present |= uncertain if self.options.uncertain == "one" else set()
        result = (self.shared.share(present), self.shared.share(known)), len(uncertain)
        return self.parsed.setdefault(draft.wide, result)

    def _check_lists(self, draft: Draft, present: frozenset[str], known: frozenset[str]) -> None:
        """A class may have a column and be in lists too; both must say the same."""
        absent = (draft.present & known) - present
        unlisted = (present & self.in_lists) - draft.present
        for name in sorted(absent | unlisted):
            raise self._error(draft, f"the list of findings and the column '{name}' contradict each other")

    def _error(self, draft: Draft, problem: str) -> CxrfastError:
        return CxrfastError(f"{self.path}, line {draft.line}: {problem}; correct the line")

    def notes(self) -> list[str]:
        taken = {"zero": "absent", "one": "present"}.get(self.options.uncertain or "", "unknown")
        labelled = bool(self.wide.classes or self.in_lists)
        return counted(
            (self.uncertain, f"{self.path.name}: uncertain labels (-1), taken as {taken} (--uncertain)"),
            (self.implied, IMPLIED),
            odd_ages(self.odd_ages),
            (self.unlabelled if labelled else 0, "images without a label, whose classes are unknown"),
        )
