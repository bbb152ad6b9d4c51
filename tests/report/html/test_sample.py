"""Which images of a data set are shown, and where the names of their boxes stand."""

from itertools import combinations
from pathlib import Path

from cxrfast.data.records import Record
from cxrfast.report.html.sample import BOXED, IMAGES, TEXT, choose_sample, draw_sample
from tests.data.summary.made_up import record, write_image

BOX = ((0.1, 0.1, 0.2, 0.2),)


def records(count, name=None):
    boxes = {} if name is None else {name: BOX}
    return [Record(f"{name}{n}", Path(f"{n}"), str(n), frozenset(), boxes) for n in range(count)]


def boxed(sample):
    return [next(iter(record.boxes)) for record in sample if record.boxes]


def test_classes_with_boxes_take_turns():
    sample = choose_sample([*records(100), *records(500, "Mass"), *records(50, "Nodule"), *records(1, "Edema")])
    assert len(sample) == IMAGES
    assert len({record.image for record in sample}) == IMAGES
    assert boxed(sample) == ["Edema", *["Nodule", "Mass"] * 4]
    assert len(boxed(sample)) == BOXED


def test_what_there_is_is_shown():
    assert len(boxed(choose_sample([*records(1), *records(50, "Mass")]))) == IMAGES - 1
    assert len(choose_sample([*records(20), *records(2, "Mass")])) == IMAGES
    assert len(choose_sample(records(30))) == IMAGES
    assert len(choose_sample(records(3, "Mass"))) == 3
    assert choose_sample([]) == []


def test_a_sample_is_random_and_repeatable():
    everything = records(500)
    assert choose_sample(everything) == choose_sample(everything)
    assert choose_sample(everything) != choose_sample(everything, seed=1)
    assert choose_sample(everything) != everything[:IMAGES]


def test_names_of_boxes_do_not_overlap_and_stay_inside(tmp_path):
    write_image(tmp_path / "a.png", 1, 100, 100)
    boxes = {"Pleural_Thickening": ((0.1, 0.0, 0.3, 0.2), (0.11, 0.01, 0.3, 0.2)), "Mass": ((0.95, 0.5, 1.0, 0.6),) * 3}
    (shown,) = draw_sample([record(tmp_path, "a.png", boxes=boxes)], ["Mass"])
    assert len(shown.boxes) == 5
    for a, b in combinations(shown.boxes, 2):
        assert abs(a.text_y - b.text_y) >= TEXT or (a.name != b.name and abs(a.text_x - b.text_x) > 100)
    assert all(box.text_x >= 0 and TEXT <= box.text_y <= 1000 for box in shown.boxes)


def test_labels_in_words(tmp_path):
    write_image(tmp_path / "a.png", 1)
    names = ["Mass", "Nodule", "Edema", "Hernia", "Effusion", "Fibrosis"]
    none = frozenset()
    made = [
        record(tmp_path, "a.png", "Nodule Mass"),
        record(tmp_path, "a.png"),
        record(tmp_path, "a.png", known=none),
        record(tmp_path, "a.png", "Mass", known=frozenset(names[:5])),
    ]
    shown = draw_sample(made, names)
    assert {(image.present, image.unknown) for image in shown} == {
        ("Mass, Nodule", ""),
        ("no finding", ""),
        ("no class is known to be present", "6 of 6 classes"),
        ("Mass", "Fibrosis"),
    }
