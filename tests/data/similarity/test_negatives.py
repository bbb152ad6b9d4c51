"""Which images are held back, which are read, and batches of the others."""

import dataclasses
import itertools

import numpy as np
import pytest

from cxrfast.data import Record, SubsetBatches, draw_records, read_chestxray14, read_some, resize, without_finding
from cxrfast.data.images import read_image


def test_the_order_depends_on_seed_and_names_only(phantoms):
    records = read_chestxray14(phantoms).records
    order = draw_records(records, 0)
    assert sorted(order) == list(range(len(records)))
    assert order != draw_records(records, 1)
    backwards = list(reversed(records))
    assert [records[i].image for i in order] == [backwards[i].image for i in draw_records(backwards, 0)]


def test_without_finding(tmp_path):
    def record(labels, boxes):
        return Record("a.png", tmp_path / "a.png", "p", frozenset(labels), boxes)

    box = {"Mass": ((0.0, 0.0, 1.0, 1.0),)}
    records = [record((), {}), record(("Mass",), {}), record((), box), record((), {"Mass": ()}), record(("Tube",), {})]
    assert without_finding(records) == [0, 3]


def test_an_image_with_an_unknown_label_is_not_known_to_have_no_finding(tmp_path):
    some, both = frozenset({"Mass"}), frozenset({"Mass", "Edema"})
    records = [
        Record(str(n), tmp_path, str(n), labels, known=known)
        for n, (labels, known) in enumerate(
            [(frozenset(), both), (frozenset(), some), (some, both), (frozenset(), None)]
        )
    ]
    assert without_finding(records) == [0, 3]


def test_reads_in_order_and_goes_past_what_cannot_be_read(phantoms, tmp_path):
    records = list(read_chestxray14(phantoms).records)
    records[7] = dataclasses.replace(records[7], path=tmp_path / "gone.png")
    places, images, notes = read_some(records, [3, 7, 5, 9], 3, 32, title="this test", progress=False)
    assert places == [3, 5, 9]
    assert images.dtype == np.float32
    assert np.array_equal(images[1], resize(read_image(records[5].path), 32))
    assert len(notes) == 1
    assert notes[0].startswith(f"{records[7].image} is left out of this test: no image file")
    places, images, _ = read_some(records, [7], 3, 32, title="this test", progress=False)
    assert places == []
    assert images.shape == (0, 32, 32)


def test_batches_hold_every_image_of_the_subset_once_an_epoch():
    batches = SubsetBatches([2, 3, 5, 7, 11, 13, 17], 3, seed=4)
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
        # the seventh would be alone
        assert [len(batch) for batch in epochs[-1]] == [3, 3]
        assert len(batches) == 2
        places = list(itertools.chain.from_iterable(epochs[-1]))
        assert len(set(places)) == 6
        assert set(places) < {2, 3, 5, 7, 11, 13, 17}
    assert epochs[0] != epochs[1]
    again = SubsetBatches([2, 3, 5, 7, 11, 13, 17], 3, seed=4)
    again.set_epoch(1)
    assert list(again) == epochs[1]
    assert list(SubsetBatches([2, 3, 5, 7, 11, 13, 17], 3, seed=5)) != epochs[0]


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(8, 3, [3, 3, 2]), (1, 3, [1]), (4, 1, [1] * 4), (6, 3, [3, 3]), (5, 8, [5]), (9, 8, [8])],
)
def test_a_last_batch_of_one_is_left_out(count, size, lengths):
    batches = SubsetBatches(range(count), size)
    assert [len(batch) for batch in batches] == lengths
    assert len(batches) == len(lengths)


def test_processes_share_an_epoch():
    shares = [SubsetBatches(range(7), 2, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    found = [list(itertools.chain.from_iterable(share)) for share in shares]
    assert len(found[0]) == len(found[1]) == 4
    assert set(found[0]) | set(found[1]) == set(range(7))
