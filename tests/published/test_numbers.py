"""The papers' published numbers: every file is whole and consistent, and what can be checked by arithmetic is right."""

import pytest
from pydantic import ValidationError

from cxrfast.data import CLASSES
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.evaluation import PROTOCOLS
from cxrfast.methods import METHODS
from cxrfast.published.numbers import PublishedRow, published_rows, read_tables, rows

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
        assert (line.values is None and line.mean is None) == bool(line.unavailable)
        if line.protocol is not None and line.T is not None:
            of_measure = [c for c in PROTOCOLS[line.protocol].criteria if c.measure == line.measure]
            assert any(line.T in criterion.thresholds for criterion in of_measure), line.name
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
    assert rows(paper="li2018", available=True) == ()
    assert [line.row for line in rows(paper="seibold2020", table="2", available=True)[:2]] == ["SGL", "SGL"]
    assert rows(metric="auroc", method="chexnet")[0].row == "CheXNet"
    with pytest.raises(UsageError, match="paper: expected one of chexnet2017, li2018, .*, got 'wang'"):
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
    "mean_digits": 2,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"values": None}, "either values or a mean, or the reason"),
        ({"unavailable": "lost"}, "either values or a mean, or the reason"),
        ({"values": None, "mean": 0.7, "unavailable": "lost"}, "either values or a mean, or the reason"),
        ({"why": "other images"}, "comparable, but a reason why not"),
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


FILE = """
paper: p
citation: P 2020
url: u
source: u
orders: {two: [Mass, Nodule]}
tables:
  - table: "1"
    title: t
    metric: auroc
    classes: two
    labels: ChestX-ray14
    split: s
    comparable: true
    rows:
      - {row: r, LINE}
"""


@pytest.mark.parametrize("line", ["mean: 0.60, values: [0.60, 0.54]", "mean: 0.60, values: [0.64, 0.58]"])
def test_a_mean_is_checked_to_the_digits_that_are_published(line):
    """As numbers 0.60 and 0.6 are one, but 0.57 is rounded to 0.6 and not to 0.60."""
    with pytest.raises(CxrfastError, match=r"p.yaml, Table 1, .*: .* mean 0.60 is not that of the classes"):
        list(read_tables(FILE.replace("LINE", line), "p.yaml"))
    (found,) = read_tables(FILE.replace("LINE", line.replace("0.60,", "0.6,", 1)), "p.yaml")
    assert (found.mean, found.mean_digits, found.digits) == (0.6, 1, 2)


def test_a_row_of_a_mean_alone_has_the_classes_that_it_is_over():
    (found,) = read_tables(FILE.replace("LINE", "mean: 0.840"), "p.yaml")
    assert (found.values, found.mean, found.mean_digits) == (None, 0.84, 3)
    assert found.classes == ("Mass", "Nodule")
    lone = rows(paper="zhang2020", table="3", available=True)
    assert [(line.row, line.T, line.mean) for line in lone[4:8]] == [
        ("region verification", t, mean) for t, mean in ((0.1, 0.62), (0.3, 0.49), (0.5, 0.27), (0.7, 0.06))
    ]
    means = {line.row: line.mean for line in rows(paper="zhang2020", table="of section 4.2")}
    assert sorted(means.values()) == [0.840, 0.853, 0.855]
    with pytest.raises(CxrfastError, match=r"p.yaml, Table 1: 3 values of \['Mass', 'Nodule'\]"):
        list(read_tables(FILE.replace("LINE", "values: [0.1, 0.2, 0.3]"), "p.yaml"))


@pytest.mark.parametrize(("paper", "mine"), [("seibold2020", "SGL"), ("zhang2020", "both")])
def test_accuracies_fall_with_t(paper, mine):
    lines = {(line.row, line.T): line for line in rows(paper=paper, table="2")}
    names = list(dict.fromkeys(row for row, _ in lines))
    assert len(names) == 4
    assert mine in names
    for row in names:
        for name in BOXES:
            column = [lines[row, t].values[name] for t in (0.1, 0.3, 0.5, 0.7)]
            if (row, name) == ("SGL", "Effusion"):
                assert "cannot be" in lines[row, 0.7].remark  # published as 0.1, more than at 0.5
                column[3] = 0.01
            assert column == sorted(column, reverse=True), (row, name)


def test_two_papers_copied_the_same_numbers():
    """Seibold and Zhang et al. have the lines of Wang, Li and Liu et al., which agree in all numbers but one."""
    differ = []
    for seibold, zhang in (("Wang et al.", "Wang et al."), ("Li et al.", "Li et al."), ("Liu et al.", "CIA-Net")):
        for t in (0.1, 0.3, 0.5, 0.7):
            (one,) = (line for line in rows(paper="seibold2020", table="2", row=seibold) if t == line.T)
            (two,) = (line for line in rows(paper="zhang2020", table="2", row=zhang) if t == line.T)
            assert one.mean == two.mean
            differ += [(seibold, t, name) for name in BOXES if one.values[name] != two.values[name]]
    assert differ == [("Wang et al.", 0.5, "Pneumonia")]
    for line in rows(paper="wang2017", table="7", metric="accuracy"):
        copies = [copy for copy in rows(paper="zhang2020", table="2", row="Wang et al.") if copy.T == line.T]
        for name in BOXES if copies else ():
            assert abs(copies[0].values[name] - line.values[name]) <= 0.0101, (line.T, name)


def test_rozenbergs_lines_are_over_four_settings_and_no_region_beats_its_overlap():
    lines = {(line.row, line.measure): line for line in rows(paper="rozenberg2019")}
    assert len(lines) == 8
    for row in {row for row, _ in lines}:
        iou, ior = lines[row, "iou"], lines[row, "ior"]
        assert all(iou.values[name] <= ior.values[name] for name in BOXES)
    for share in ("0 %", "20 %"):
        ours, theirs = (lines[f"{who}, {share} unannotated", "iou"] for who in ("ours", "Li et al."))
        assert all(ours.values[name] > theirs.values[name] for name in BOXES)
