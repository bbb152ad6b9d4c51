"""Several readers of one image: votes and boxes by hand, and what holds for any readings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.data.datasets.shared.readers import FUSION_IOU, MAJORITY_IOU, Reading, fuse, merge_readings

CLASSES = ("Mass", "Nodule", "Hernia")
ASKED = frozenset(CLASSES)
HEART = (0.25, 0.25, 0.75, 0.75)
NEAR = (0.25, 0.25, 0.75, 0.8125)  # IoU with HEART 8/9
FAR = (0.0, 0.0, 0.125, 0.125)
RULES = ("majority", "union", "fusion")


def reading(known=ASKED, /, **boxes):
    return Reading(frozenset(boxes), known, {name: tuple(of) for name, of in boxes.items() if of})


def test_majority_of_three():
    merged = merge_readings([reading(Mass=[HEART], Nodule=[FAR]), reading(Mass=[NEAR]), reading()])
    assert merged.present == {"Mass"}
    assert merged.known == ASKED
    assert merged.boxes == {"Mass": ((0.25, 0.25, 0.75, 0.78125),)}
    assert merged.disputed == frozenset()


def test_half_of_the_readers_is_not_a_majority():
    assert merge_readings([reading(Mass=[HEART]), reading()]).present == frozenset()
    assert merge_readings([reading(Mass=[HEART]), reading()], "union").present == {"Mass"}


def test_a_lesion_of_one_reader_is_left_out_where_another_lesion_has_the_majority():
    merged = merge_readings([reading(Mass=[HEART, FAR]), reading(Mass=[HEART]), reading(Mass=[NEAR])])
    assert len(merged.boxes["Mass"]) == 1
    assert FAR not in merged.boxes["Mass"]


def test_readers_who_agree_on_the_class_but_on_no_place():
    merged = merge_readings([reading(Mass=[HEART]), reading(Mass=[FAR]), reading()])
    assert merged.boxes == {"Mass": (FAR, HEART)}
    assert merged.disputed == {"Mass"}


def test_union_keeps_all_boxes_once():
    merged = merge_readings([reading(Mass=[HEART]), reading(Mass=[NEAR, HEART]), reading(Nodule=[FAR])], "union")
    assert merged.present == {"Mass", "Nodule"}
    assert merged.boxes == {"Mass": (HEART, NEAR), "Nodule": (FAR,)}


def test_fusion_merges_boxes_and_leaves_nothing_out():
    merged = merge_readings([reading(Mass=[HEART, FAR]), reading(Mass=[NEAR]), reading()], "fusion")
    assert merged.boxes == {"Mass": (FAR, (0.25, 0.25, 0.75, 0.78125))}


@pytest.mark.parametrize(
    ("height", "joined"), [(0.5, {"majority"}), (0.54, {"majority"}), (0.56, {"majority", "fusion"})]
)
def test_thresholds(height, joined):
    """The IoU of the two boxes is the height."""
    readings = [reading(Mass=[(0.0, 0.0, 1.0, 1.0)]), reading(Mass=[(0.0, 0.0, 1.0, height)])]
    for rule in ("majority", "fusion"):
        assert (len(merge_readings(readings, rule).boxes["Mass"]) == 1) is (rule in joined), rule


def test_a_class_that_a_reader_was_not_asked_for_has_fewer_voters():
    two = frozenset({"Mass", "Nodule"})
    readings = [reading(two, Mass=[HEART]), reading(two), reading(ASKED, Hernia=[])]
    merged = merge_readings(readings)
    assert merged.present == {"Hernia"}
    assert merged.known == ASKED
    assert merge_readings([reading(two)]).known == two


def test_no_readings_and_a_wrong_rule():
    assert merge_readings([]).known == frozenset()
    with pytest.raises(ValueError, match="rule: expected"):
        merge_readings([], "vote")


EDGES = st.integers(0, 15).flatmap(
    lambda low: st.tuples(st.just(low / 16), st.integers(low + 1, 16).map(lambda x: x / 16))
)
BOXES = st.tuples(EDGES, EDGES).map(lambda e: (e[0][0], e[1][0], e[0][1], e[1][1]))
READINGS = st.lists(
    st.builds(
        lambda boxes, more: Reading(
            frozenset(boxes) | frozenset(more), ASKED, {name: tuple(of) for name, of in boxes.items()}
        ),
        st.dictionaries(st.sampled_from(CLASSES), st.lists(BOXES, min_size=1, max_size=3, unique=True), max_size=3),
        st.sets(st.sampled_from(CLASSES)),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(readings=READINGS, rule=st.sampled_from(RULES))
def test_properties(readings, rule):
    merged = merge_readings(readings, rule)
    votes = {name: sum(name in one.present for one in readings) for name in CLASSES}
    need = len(readings) / 2 if rule == "majority" else 0
    assert merged.present == {name for name, count in votes.items() if count > need}
    assert merged.boxes.keys() <= merged.present
    for name in merged.present:
        drawn = [box for one in readings for box in one.boxes.get(name, ())]
        assert bool(drawn) == (name in merged.boxes)
        kept = merged.boxes.get(name, ())
        assert len(kept) <= len(drawn)
        for edge in range(4):  # a mean lies among what was drawn
            assert all(min(b[edge] for b in drawn) <= k[edge] <= max(b[edge] for b in drawn) for k in kept)
        if rule == "union":
            assert set(kept) == set(drawn)


@settings(max_examples=100, deadline=None)
@given(reading=READINGS.map(lambda readings: readings[0]), count=st.integers(1, 5))
def test_readers_who_say_the_same_count_as_one(reading, count):
    for rule in ("majority", "union"):
        merged = merge_readings([reading] * count, rule)
        assert merged.present == reading.present
        assert merged.boxes == {name: tuple(sorted(of)) for name, of in reading.boxes.items()}
        assert not merged.disputed


@settings(max_examples=150, deadline=None)
@given(readings=READINGS, rule=st.sampled_from(RULES), seed=st.randoms(use_true_random=False))
def test_the_order_of_the_readers_does_not_matter(readings, rule, seed):
    assert merge_readings(seed.sample(readings, len(readings)), rule) == merge_readings(readings, rule)


@settings(max_examples=100, deadline=None)
@given(boxes=st.lists(BOXES, min_size=1, max_size=8), seed=st.randoms(use_true_random=False))
def test_clusters_hold_every_box_once_and_do_not_depend_on_the_order(boxes, seed):
    drawn = [(number, box) for number, box in enumerate(boxes)]
    shuffled = seed.sample(drawn, len(drawn))
    for threshold in (MAJORITY_IOU, FUSION_IOU):
        clusters = fuse(drawn, threshold)
        assert sorted(one for cluster in clusters for one in cluster) == sorted(drawn)
        assert sorted(map(sorted, clusters)) == sorted(map(sorted, fuse(shuffled, threshold)))
    once = fuse([(number % 2, box) for number, box in drawn], 0.5, inclusive=True, once_per_reader=True)
    assert all(len({reader for reader, _ in cluster}) == len(cluster) for cluster in once)
