"""Triplets of the real labels and images."""

import itertools

import numpy as np
import pytest
from torch.utils.data import DataLoader

from cxrfast.data import (
    CLASSES,
    TripletBatchSampler,
    TripletMiner,
    Triplets,
    hash_records,
    label_bits,
    read_chestxray14,
)
from cxrfast.data.labels import NO_FINDING
from tests.data.similarity.triplet_rules import check_rules, matches, random_images


def brute_force(hashes, labels, anchor):
    """(distances, exact, partial, disjoint) of all images to one."""
    differing = (hashes ^ hashes[anchor]).view(np.uint8).reshape(-1, 8)
    distances = np.unpackbits(differing, axis=1).sum(1)
    same, meet = labels == labels[anchor], (labels & labels[anchor]) != 0
    others = np.arange(len(labels)) != anchor
    return distances, same & others, meet & ~same, ~meet & ~same


def check_hardest(miner, hashes, labels, anchors):
    """At the end of the schedule, the distances are those that a search over all images finds."""
    triplets = miner.mine(anchors, seed=0, epoch=miner.epochs)
    for anchor, positive, negative in zip(*triplets, strict=True):
        distances, exact, partial, disjoint = brute_force(hashes, labels, anchor)
        kind = exact if labels[positive] == labels[anchor] else partial
        assert kind[positive]
        assert disjoint[negative]
        assert distances[positive] == distances[kind].max()
        assert distances[negative] == distances[disjoint].min()


@pytest.fixture(scope="module")
def real_labels(real_data):
    """The labels of all 112,120 images."""
    lines = (real_data / "nih" / "Data_Entry_2017.csv").read_text().splitlines()[1:]
    sets = [frozenset(line.split(",")[1].split("|")) - {NO_FINDING} for line in lines]
    return label_bits(sets, CLASSES)


def test_exact_matches_only_of_the_real_labels(real_labels):
    miner = TripletMiner(None, real_labels, sampling="random", partial=0)
    sets, sizes = np.unique(real_labels, return_counts=True)
    assert len(sets) - (sizes > 1).sum() == 289
    assert len(miner.anchors) == 112_120 - 289
    assert miner.notes[0].startswith("289 images share their set of labels with no other image")


@pytest.mark.parametrize("sampling", ["all", "paper"])
def test_real_labels(real_labels, sampling):
    count = len(real_labels)
    assert count == 112_120
    hashes, _ = random_images(count, seed=7)
    miner = TripletMiner(hashes, real_labels, sampling=sampling, hardest=1)
    assert len(miner.anchors) == count  # every real label set has a partner
    sets, sizes = np.unique(real_labels, return_counts=True)
    exact = np.isin(real_labels, sets[sizes > 1])
    partly = real_labels != 0
    rare = np.flatnonzero(~exact)
    anchors = np.concatenate([rare[:50], np.random.default_rng(0).choice(count, 350, replace=False)])
    shares = []
    for epoch in (0, 5, 10):
        triplets = miner.mine(anchors, seed=3, epoch=epoch)
        is_partial = check_rules(triplets, real_labels, exact, partly)
        both = exact[anchors] & partly[anchors]
        shares.append(is_partial[both].mean())
    assert np.mean(shares) == pytest.approx(0.25, abs=0.08)
    if sampling == "all":
        check_hardest(miner, hashes, real_labels, anchors[:80])


@pytest.mark.slow
def test_every_real_label_row(real_labels):
    """All 112,120 as anchors, in one epoch of batches."""
    hashes, _ = random_images(len(real_labels), seed=7)
    miner = TripletMiner(hashes, real_labels, sampling="all", positives=50, negatives=50)
    sets, sizes = np.unique(real_labels, return_counts=True)
    exact, partly = np.isin(real_labels, sets[sizes > 1]), real_labels != 0
    seen = 0
    for batch in TripletBatchSampler(miner, 1024):
        triplets = Triplets(*np.array(batch).reshape(3, -1))
        check_rules(triplets, real_labels, exact, partly)
        seen += len(triplets.anchors)
    assert seen == len(real_labels)


@pytest.fixture(scope="module")
def real_images(real_data, tmp_path_factory):
    """The 515 images: (records, hashes)."""
    records = read_chestxray14(real_data / "nih").records
    cache = tmp_path_factory.mktemp("hashes") / "hashes.npz"
    return records, hash_records(records, real_data / "nih", cache=cache, progress=False)


def test_real_images(real_images):
    records, found = real_images
    assert (len(records), found.computed, found.failed) == (515, 515, {})
    assert len(set(found.hashes.tolist())) > 500
    labels = label_bits([record.labels for record in records], CLASSES)
    exact, partly, _ = matches(labels)
    for sampling in ("all", "paper"):
        miner = TripletMiner(found.hashes, labels, known=found.known, sampling=sampling, hardest=1)
        for epoch in (0, 5, 10):
            check_rules(miner.mine(miner.anchors, seed=0, epoch=epoch), labels, exact, partly)
    check_hardest(TripletMiner(found.hashes, labels, sampling="all", hardest=1), found.hashes, labels, miner.anchors)


def test_real_images_with_0_and_2_workers(real_images):
    records, found = real_images
    labels = label_bits([record.labels for record in records], CLASSES)
    loaded = []
    for workers in (0, 2):
        sampler = TripletBatchSampler(TripletMiner(found.hashes, labels), 16, seed=1)
        sampler.set_epoch(3)
        loader = DataLoader(range(len(records)), batch_sampler=sampler, num_workers=workers)
        loaded.append([batch.tolist() for batch in loader])
    assert loaded[0] == loaded[1]
    places = list(itertools.chain.from_iterable(batch[: len(batch) // 3] for batch in loaded[0]))
    assert len(places) == len(set(places)) > 400
