"""Counts against plain loops."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrfast.data.records import Record
from cxrfast.data.summary.counts import count_ages, count_classes, count_findings, count_sizes, count_views

NAMES = ("A", "B", "C")
sets = st.frozensets(st.sampled_from(NAMES))
records = st.lists(st.tuples(sets, st.none() | sets, st.frozensets(st.sampled_from(NAMES))), max_size=12)


@given(records)
def test_classes_and_findings(content):
    box = (0.0, 0.0, 0.5, 0.5)
    made = [
        Record(str(n), Path(str(n)), "1", labels, dict.fromkeys(boxed, (box, box)), known=known)
        for n, (labels, known, boxed) in enumerate(content)
    ]
    for entry in count_classes(made, NAMES):
        values = [record.label(entry.name) for record in made]
        assert entry.positive == values.count(1)
        assert entry.negative == values.count(0)
        assert entry.unknown == sum(map(math.isnan, values))
        assert entry.images_with_boxes == sum(entry.name in record.boxes for record in made)
        assert entry.boxes == 2 * entry.images_with_boxes
        labelled = entry.positive + entry.negative
        assert entry.positive_share == (entry.positive / labelled if labelled else None)
    rows = [[record.label(name) for name in NAMES] for record in made]
    without, unknown = count_findings(made, NAMES)
    assert without == rows.count([0, 0, 0])
    assert unknown == sum(any(map(math.isnan, row)) for row in rows)


@pytest.mark.parametrize(
    ("view", "group"),
    [
        *[(view, "frontal") for view in ("PA", "AP", "frontal", "AP_horizontal", "ap supine")],
        ("lateral", "lateral"),
        ("oblique", "other"),
        ("PAX", "other"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_views(view, group):
    found = count_views([Record("a", Path("a"), "1", frozenset(), view=view)])
    assert {name: getattr(found, name) for name in ("frontal", "lateral", "other", "unknown")} == {
        **dict.fromkeys(("frontal", "lateral", "other", "unknown"), 0),
        group: 1,
    }
    assert found.by_name == ({view: 1} if view else {})


def test_ages_and_sizes():
    ages = count_ages([Record("a", Path("a"), "1", frozenset(), age=age) for age in (3, None, 10, 7, 80)])
    assert (ages.known, ages.unknown, ages.minimum, ages.median, ages.maximum) == (4, 1, 3, 8.5, 80)
    sizes = count_sizes([(10, 20)] * 2 + [(n, 1) for n in range(1, 9)] + [(5, 30)])
    assert sizes.distinct == 10
    assert (sizes.most_frequent[0].width, sizes.most_frequent[0].images, len(sizes.most_frequent)) == (10, 2, 5)
    assert (sizes.smallest.width, sizes.largest.width, sizes.largest.height) == (1, 10, 20)
    assert count_sizes([]).smallest is None
