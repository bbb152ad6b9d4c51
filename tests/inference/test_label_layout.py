"""Labels stay inside the picture and off each other."""

from hypothesis import given
from hypothesis import strategies as st

from cxrfast.inference._label_layout import place_labels

FRAME = (100.0, 50.0, 1000.0, 950.0)


def overlap(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 1e-6 and min(a[3], b[3]) - max(a[1], b[1]) > 1e-6


@st.composite
def boxes_and_sizes(draw):
    boxes, sizes = [], []
    for _ in range(draw(st.integers(0, 14))):
        left, bottom = draw(st.floats(100, 950)), draw(st.floats(50, 900))
        right, top = draw(st.floats(left + 1, 1000)), draw(st.floats(bottom + 1, 950))
        boxes.append((left, bottom, right, top))
        sizes.append((draw(st.floats(60, 220)), draw(st.floats(20, 30))))
    return boxes, sizes


@given(boxes_and_sizes())
def test_labels_are_inside_and_apart(scene):
    boxes, sizes = scene
    places = place_labels(boxes, sizes, FRAME)
    for place, (width, height) in zip(places, sizes, strict=True):
        assert place[2] - place[0] == width or abs(place[2] - place[0] - width) < 1e-9
        assert abs(place[3] - place[1] - height) < 1e-9
        assert place[0] >= FRAME[0] - 1e-9
        assert place[1] >= FRAME[1] - 1e-9
        assert place[2] <= FRAME[2] + 1e-9
        assert place[3] <= FRAME[3] + 1e-9
    for n, place in enumerate(places):
        assert not any(overlap(place, other) for other in places[:n])


def test_the_first_label_stands_on_its_box_and_one_at_the_top_inside_it():
    assert place_labels([(200, 200, 400, 400)], [(80, 20)], FRAME) == [(200, 400, 280, 420)]
    assert place_labels([(200, 800, 400, 950)], [(80, 20)], FRAME) == [(200, 930, 280, 950)]


def test_a_label_wider_than_the_picture_starts_at_its_left_side():
    assert place_labels([(200, 200, 400, 400)], [(2000, 20)], FRAME)[0][0] == 100
