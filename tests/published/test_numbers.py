"""The papers' published numbers: every file is whole and consistent, and what can be checked by arithmetic is right."""

import pytest
from pydantic import ValidationError

from cxrfast.data import CLASSES
from cxrfast.errors import UsageError
from cxrfast.evaluation import PROTOCOLS
from cxrfast.methods import METHODS
from cxrfast.published.numbers import PublishedRow, published_rows, rows

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


def counts(line):
    """The integers behind published shares, of which some are rounded and some cut off after the last digit."""
    found = {}
    for name, value in line.values.items():
        n = BOXES[name] if line.metric == "accuracy" else sum(BOXES.values())
        found[name] = round(value * n)
        cut = 1e-3 if value == 1.009 else 1e-4  # one value has three digits
        assert abs(found[name] / n - value) < cut, (line.name, line.T, name)
    return found


def test_wangs_shares_are_whole_numbers_of_boxes_that_fall_with_t():
    for table, measure, ts in (
        ("4", "ior", [0.1, 0.25, 0.5, 0.75, 0.9]),
        ("7", "iou", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ("19", "ior", [0.1, 0.25, 0.5, 0.75, 0.9]),
    ):
        for metric in ("accuracy", "afp"):
            lines = rows(paper="wang2017", table=table, metric=metric, measure=measure)
            assert [line.T for line in lines] == ts
            number = [counts(line) for line in lines]
            for name in BOXES:
                column = [of[name] for of in number]
                # A larger T makes fewer hits, and what hits no more is a false positive.
                assert column == sorted(column, reverse=metric == "accuracy"), (table, metric, name)


def test_names_are_known_and_rows_without_numbers_say_why():
    for line in published_rows():
        assert line.protocol is None or line.protocol in PROTOCOLS
        assert line.method is None or line.method in METHODS
        assert set(line.classes) <= set(CLASSES)
        assert line.values is None or tuple(line.values) == line.classes
        assert (line.values is None) == bool(line.unavailable)
        if line.protocol is not None and line.T is not None:
            of_measure = [c for c in PROTOCOLS[line.protocol].comparisons if c.measure == line.measure]
            assert any(line.T in comparison.thresholds for comparison in of_measure), line.name
    keys = [(r.paper, r.table, r.row, r.metric, r.measure, r.T) for r in published_rows()]
    assert len(keys) == len(set(keys))


def test_published_and_copied_means():
    (chexnet,) = rows(paper="chexnet2017", row="CheXNet")
    assert chexnet.mean == 0.841
    assert abs(sum(chexnet.values.values()) / 14 - 0.841) < 5e-4
    (own,) = rows(paper="wang2017", table="17")
    (copied,) = rows(paper="chexnet2017", row="Wang et al.")
    assert copied.copied_from == "wang2017"
    assert own.values["Atelectasis"] == 0.7003
    assert copied.values["Atelectasis"] == 0.716
    assert "Table 17" in copied.remark


def test_rows_are_found_by_what_they_are_of():
    found = rows(protocol="wang2017", method="wang", metric="accuracy", measure="ior", available=True)
    assert {line.table for line in found} == {"4", "19"}
    assert rows(paper="zhang2020", available=True) == ()
    assert rows(metric="auroc", method="chexnet")[0].row == "CheXNet"
    with pytest.raises(UsageError, match="paper is 'wang'; expected one of chexnet2017, li2018"):
        rows(paper="wang")


LINE = {
    "paper": "p",
    "citation": "P 2020",
    "url": "u",
    "table": "1",
    "title": "t",
    "row": "r",
    "metric": "auroc",
    "labels": "ChestX-ray14",
    "split": "s",
    "classes": ("Mass", "Nodule"),
    "values": {"Mass": 0.7, "Nodule": 0.8},
    "source": "u",
    "comparable": True,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"values": None}, "either values or the reason"),
        ({"unavailable": "lost"}, "either values or the reason"),
        ({"source": None}, "without a source"),
        ({"comparable": False}, "no reason why"),
        ({"T": 0.1}, "measure and a T"),
        ({"metric": "accuracy"}, "measure and a T"),
        ({"metric": "accuracy", "measure": "iou", "T": 0.1}, "of a protocol"),
        ({"values": {"Mass": 7.0, "Nodule": 0.8}}, "Mass is not in"),
        ({"mean": 0.76}, "published mean 0.76 is not that of the classes, 0.75000"),
        ({"men": 0.75}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(change, reason):
    with pytest.raises(ValidationError, match=reason):
        PublishedRow(**{**LINE, **change})


def test_a_mean_that_does_not_agree_needs_a_remark():
    line = PublishedRow(**{**LINE, "mean": 0.76, "remark": "the mean of the classes is 0.750"})
    assert line.mean == 0.76
