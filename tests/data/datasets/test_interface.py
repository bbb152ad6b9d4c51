"""Class names of a data set: renamed, merged, matched with those of a model."""

import math
from pathlib import Path

import pytest

from cxrfast.data.datasets.interface import DataSource
from cxrfast.data.records import Record
from cxrfast.errors import CxrfastError

CLASSES = ("Pleural Effusion", "Lung Opacity", "Consolidation")


def record(present: set[str], known: set[str] | None, **boxes) -> Record:
    return Record("a.png", Path("a.png"), "1", frozenset(present), boxes, known=known and frozenset(known))


def source(*records: Record, classes=CLASSES) -> DataSource:
    return DataSource(Path("data"), "manifest", records, classes, "as they are")


def labels(of: DataSource, *names: str) -> list[list[float]]:
    return [[of_image.label(name) for name in names] for of_image in of.records]


def test_a_label_is_present_absent_or_unknown():
    found = record({"Mass"}, {"Mass", "Nodule"})
    assert (found.label("Mass"), found.label("Nodule")) == (1.0, 0.0)
    assert math.isnan(found.label("Edema"))
    assert record({"Mass"}, None).label("Edema") == 0.0


@pytest.mark.parametrize(
    ("present", "known", "merged"),
    [
        ({"Lung Opacity"}, {"Lung Opacity"}, 1.0),  # one present, the other unknown
        ({"Lung Opacity"}, {"Lung Opacity", "Consolidation"}, 1.0),
        (set(), {"Lung Opacity", "Consolidation"}, 0.0),
        (set(), {"Lung Opacity"}, None),  # one absent, the other unknown
        (set(), None, 0.0),
    ],
)
def test_merged_classes(present, known, merged):
    of = source(record(present, known)).renamed({"Lung Opacity": "Opacity", "Consolidation": "Opacity"})
    assert of.class_names == ("Pleural Effusion", "Opacity")
    label = of.records[0].label("Opacity")
    assert math.isnan(label) if merged is None else label == merged


def test_boxes_of_merged_classes_are_joined():
    one, two = (0.0, 0.0, 0.5, 0.5), (0.1, 0.1, 0.2, 0.2)
    of = source(record({"Lung Opacity"}, None, **{"Lung Opacity": (one,), "Consolidation": (one, two)}))
    assert of.renamed({"Lung Opacity": "Consolidation"}).records[0].boxes == {"Consolidation": (one, two)}


def test_classes_of_a_model():
    of = source(record({"Pleural Effusion"}, None, **{"Pleural Effusion": ((0.0, 0.0, 1.0, 1.0),)}))
    found = of.for_classes(["Effusion", "Nodule"])
    assert labels(found, "Effusion", "Lung Opacity") == [[1.0, 0.0]]
    assert math.isnan(found.records[0].label("Nodule"))
    assert list(found.records[0].boxes) == ["Effusion"]
    assert found.class_notes == [
        "class names matched: Pleural Effusion = Effusion",
        "not labelled in data, so unknown: Nodule",
    ]


def test_classes_that_are_all_there_change_nothing():
    of = source(record({"Lung Opacity"}, None))
    assert of.for_classes(["Lung Opacity"]) == of


def test_two_classes_of_one_name_are_refused():
    of = source(record(set(), None), classes=("Effusion", "Pleural Effusion"))
    with pytest.raises(CxrfastError, match="--map 'Pleural Effusion=pleural effusion'"):
        of.for_classes(["pleural effusion"])
