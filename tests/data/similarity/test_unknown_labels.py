"""Triplets of images with unknown labels: compared through the classes that are known in both images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cxrfast.data import Record, TripletMiner, known_label_bits, label_bits
from cxrfast.errors import UsageError
from cxrfast.losses import certain_triplets

CLASSES = ("Edema", "Mass", "Nodule")


def images(seed: int, unknown: float, count: int = 60) -> list[Record]:
    random = np.random.default_rng(seed)
    made = []
    for n in range(count):
        present = frozenset(name for name in CLASSES if random.random() < 0.3)
        known = frozenset(name for name in CLASSES if name in present or random.random() >= unknown)
        made.append(Record(f"{n}.png", Path(f"{n}.png"), str(n), present, known=known))
    return made


def miner(records: list[Record], **options) -> TripletMiner:
    hashes = np.random.default_rng(1).integers(-(2**62), 2**62, len(records))
    labels = label_bits([record.labels for record in records], CLASSES)
    return TripletMiner(hashes, labels, known_labels=known_label_bits(records, CLASSES), **options)


def floats(records: list[Record], places: np.ndarray) -> torch.Tensor:
    return torch.tensor([[records[n].label(name) for name in CLASSES] for n in places])


@pytest.mark.parametrize("sampling", ["paper", "random"])
@pytest.mark.parametrize("partial_of", ["picks", "list"])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_accepts_every_triplet(sampling, partial_of, seed):
    records = images(seed, unknown=0.4)
    found = miner(records, sampling=sampling, partial_of=partial_of, partial=0.5)
    triplets = found.mine(found.anchors, seed=seed, epoch=2)
    assert certain_triplets(*(floats(records, places) for places in triplets)).all()
    assert (triplets.anchors != triplets.positives).all()


def similar(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a == 1) & (b == 1)).any() or (not ((a == 1) | (b == 1)).any() and ((a == 0) & (b == 0)).any()))


def dissimilar(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(not ((a == 1) & (b == 1)).any() and ((a == 1) & (b == 0) | (a == 0) & (b == 1)).any())


@pytest.mark.parametrize("seed", range(5))
def test_anchors_are_the_images_with_a_similar_and_a_dissimilar_one(seed):
    records = images(seed, unknown=0.7, count=25)
    rows = list(floats(records, np.arange(25)))
    expected = [
        n
        for n, row in enumerate(rows)
        if any(similar(row, other) for m, other in enumerate(rows) if m != n)
        and any(dissimilar(row, other) for m, other in enumerate(rows) if m != n)
    ]
    assert miner(records, partial=0.5).anchors.tolist() == expected


def test_masks_of_known_labels():
    records = [
        Record("a", Path("a"), "1", frozenset({"Mass"}), known=frozenset({"Mass"})),
        Record("b", Path("b"), "2", frozenset({"Edema"}), known=frozenset()),  # a present class is known
        Record("c", Path("c"), "3", frozenset()),
    ]
    assert known_label_bits(records, CLASSES).tolist() == [0b010, 0b001, 0b111]
    assert known_label_bits(records[2:], CLASSES) is None


def test_complete_labels_change_nothing():
    records = images(0, unknown=0.0)
    labels, hashes = label_bits([record.labels for record in records], CLASSES), np.arange(60) * 7919
    full = np.full(60, 0b111)
    with_masks = TripletMiner(hashes, labels, known_labels=full, sampling="paper")
    without = TripletMiner(hashes, labels, sampling="paper")
    for first, second in zip(
        with_masks.mine(with_masks.anchors, seed=3, epoch=1),
        without.mine(without.anchors, seed=3, epoch=1),
        strict=True,
    ):
        np.testing.assert_array_equal(first, second)


def test_the_hardest_of_all_images_needs_complete_labels():
    with pytest.raises(UsageError, match="sampling: expected paper or random, because some labels are unknown"):
        miner(images(0, unknown=0.5), sampling="all")
