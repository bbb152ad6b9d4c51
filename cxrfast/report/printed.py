"""The papers' printed numbers beside a run's: which rows belong to a table, and whether they can be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BOXES = {
    "Atelectasis": 180,
    "Effusion": 153,
    "Cardiomegaly": 146,
    "Infiltration": 123,
    "Pneumonia": 120,
    "Pneumothorax": 98,
    "Mass": 85,
    "Nodule": 79,
}
"""Annotated boxes of ChestX-ray14, per class: what the papers' localisation tables count."""


@dataclass(frozen=True)
class PrintedRow:
    """One line of a published table."""

    label: str  # method and source, as "Li et al. 2018, Table 2"
    values: Mapping[str, float] = field(default_factory=dict)  # class -> accuracy
    mean: float | None = None
    remark: str = ""  # what keeps it from being comparable, or how it came about


def printed_rows(protocol: str, measure: str, threshold: float) -> Sequence[PrintedRow]:
    """What papers print for a protocol, a measure ("iou", "ior", "afp", "auroc") and a T."""
    return ()


def why_not_comparable(numbers: Mapping[str, Any]) -> str:
    """Why printed numbers are not of the same images as these, "" if they are."""
    annotated = {name: row["n_annotated"] for name, row in numbers["classes"].items() if row["n_annotated"]}
    if annotated == BOXES:
        return ""
    total, all_boxes = sum(annotated.values()), sum(BOXES.values())
    strangers = sorted(set(annotated) - set(BOXES))
    if strangers or any(count > BOXES[name] for name, count in annotated.items()) or total == 0:
        return f"these are other images than the papers' ({total} annotations; the papers score {all_boxes} boxes)"
    return f"{total} annotations are scored here, the papers score all {all_boxes} boxes of ChestX-ray14"
