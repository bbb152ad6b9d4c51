"""Triplets obey their rules, hard ones look wrong, the schedule moves, and the sampler can be resumed anywhere."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Dataset

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
from cxrfast.errors import CxrfastError, UsageError


def random_images(count, classes=4, seed=0):
    """(hashes, labels)"""
    generator = np.random.default_rng(seed)
    return generator.integers(-(2**63), 2**63 - 1, count), generator.integers(0, 2**classes, count)


def distance(a, b):
    return (int(a) ^ int(b)).bit_count() if (int(a) ^ int(b)) >= 0 else 64 - (~(int(a) ^ int(b))).bit_count()


def check_rules(triplets, labels, has_exact, has_partial):
    """Every triplet obeys the rules; returns which positives are partial matches."""
    anchor, positive, negative = (labels[x] for x in triplets)
    assert (triplets.anchors != triplets.positives).all()
    exact, shared = anchor == positive, (anchor & positive) != 0
    assert (exact | shared).all()
    assert ((anchor & negative) == 0).all()
    assert (anchor != negative).all()
    assert (exact | has_partial[triplets.anchors]).all()
    assert (~exact | has_exact[triplets.anchors]).all()
    return ~exact


def matches(labels):
    """Whether each image has an exact, a partial and a disjoint match, by comparing all pairs."""
    same = labels[:, None] == labels
    meet = (labels[:, None] & labels) != 0
    return same.sum(1) > 1, (meet & ~same).any(1), (~meet & ~same).any(1)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(2, 60),
    classes=st.sampled_from((1, 3, 63)),
    sampling=st.sampled_from(("all", "paper", "random")),
    epoch=st.sampled_from((0, 4, 10, 30)),
    partial=st.sampled_from((0.0, 0.25, 1.0)),
    partial_of=st.sampled_from(("picks", "list")),
    seed=st.integers(0, 1000),
)
def test_every_triplet_obeys_its_rules(count, classes, sampling, epoch, partial, partial_of, seed):
    hashes, labels = random_images(count, classes, seed)
    exact, partly, disjoint = matches(labels)
    usable = (exact | partly if partial else exact) & disjoint
    options = {"sampling": sampling, "partial": partial, "partial_of": partial_of, "positives": 7, "negatives": 9}
    if not usable.any():
        with pytest.raises(CxrfastError, match="no triplets"):
            TripletMiner(hashes, labels, **options)
        return
    miner = TripletMiner(hashes, labels, **options)
    assert miner.anchors.tolist() == np.flatnonzero(usable).tolist()
    triplets = miner.mine(miner.anchors, seed=seed, epoch=epoch)
    assert triplets.anchors.tolist() == miner.anchors.tolist()
    is_partial = check_rules(triplets, labels, exact, partly)
    wanted = {0.0: np.zeros_like(partly), 1.0: partly}.get(partial)
    if wanted is not None:
        assert is_partial.tolist() == wanted[miner.anchors].tolist()
    assert [len(x) for x in miner.mine([], seed=seed, epoch=epoch)] == [0, 0, 0]


def test_the_hardest_are_the_farthest_positive_and_the_nearest_negative():
    hashes, labels = random_images(300)
    exact, partly, _ = matches(labels)
    miner = TripletMiner(hashes, labels, sampling="all", hardest=1)
    triplets = miner.mine(miner.anchors, seed=0, epoch=10)
    is_partial = check_rules(triplets, labels, exact, partly)
    for (anchor, positive, negative), by_part in zip(zip(*triplets, strict=True), is_partial, strict=True):
        own = labels[anchor]
        others = [i for i in range(300) if i != anchor]
        rivals = [i for i in others if (labels[i] != own and labels[i] & own if by_part else labels[i] == own)]
        assert positive == min(rivals, key=lambda i: (-distance(hashes[anchor], hashes[i]), i))
        foes = [i for i in others if labels[i] != own and not labels[i] & own]
        assert negative == min(foes, key=lambda i: (distance(hashes[anchor], hashes[i]), i))


@pytest.mark.parametrize("sampling", ["all", "paper"])
def test_triplets_get_harder_from_epoch_to_epoch(sampling):
    hashes, labels = random_images(3000, classes=2)
    miner = TripletMiner(hashes, labels, sampling=sampling, partial=0.0)
    positive, negative = [], []
    for epoch in (0, 5, 10):
        triplets = miner.mine(miner.anchors[:400], seed=1, epoch=epoch)
        anchor = hashes[triplets.anchors]
        for found, other in ((positive, triplets.positives), (negative, triplets.negatives)):
            found.append(np.mean([distance(a, b) for a, b in zip(anchor, hashes[other], strict=True)]))
    assert positive[0] + 1 < positive[1] < positive[2] - 1
    assert negative[0] - 1 > negative[1] > negative[2] + 1


def test_ranks_follow_the_formula():
    hashes, labels = random_images(40)
    miner = TripletMiner(hashes, labels, epochs=10, hardest=5)
    n = np.full(100_000, 1000)
    u = np.random.default_rng(0).random(len(n))
    first = miner._rank(n, 0, u)
    assert np.histogram(first, 10, (0, 1000))[0] / len(n) == pytest.approx(np.arange(1, 20, 2) / 100, abs=0.005)
    half = miner._rank(n, 5, u)
    assert half.max() == 499
    assert half.mean() == pytest.approx(500 * 1.5 / 2.5, rel=0.01)
    for epoch in (10, 11, 30):
        assert np.bincount(miner._rank(n, epoch, u)) / len(n) == pytest.approx([0.2] * 5, abs=0.01)
    assert miner._rank(np.array([1, 2, 3]), 0, np.array([0.999999] * 3)).tolist() == [0, 1, 2]
    assert miner._rank(np.array([1, 2]), 10, np.array([0.999999] * 2)).tolist() == [0, 1]
    at_once = TripletMiner(hashes, labels, epochs=0, hardest=1)
    assert at_once._rank(n, 0, u).max() == 0


def test_a_quarter_of_the_positives_is_partial():
    hashes, labels = random_images(4000, classes=3)
    # Not the list of the hardest of all images: there are more partial matches, so their hardest are harder.
    for sampling, of in set(itertools.product(("all", "paper", "random"), ("picks", "list"))) - {("all", "list")}:
        miner = TripletMiner(hashes, labels, sampling=sampling, partial_of=of, positives=50, negatives=50)
        both = miner.anchors[(labels[miner.anchors] != 0)]
        for epoch in (0, 20):
            triplets = miner.mine(both[:1500], seed=0, epoch=epoch)
            share = np.mean(labels[triplets.anchors] != labels[triplets.positives])
            assert share == pytest.approx(0.25, abs=0.04)


def test_the_paper_s_lists_are_random_and_as_long_as_asked_for():
    hashes, labels = random_images(2000, classes=2)
    miner = TripletMiner(hashes, labels, sampling="paper", positives=30, negatives=40)
    generator = np.random.default_rng(0)
    for rule, limit in (("exact", 30), ("disjoint", 40)):
        drawn = [miner._sets.draw(3, rule, limit, generator) for _ in range(50)]
        assert all(len(set(x.tolist())) == limit and 3 not in x for x in drawn)
        assert len(set(np.concatenate(drawn).tolist())) > 10 * limit
    # The hardest of another draw is another image.
    first, second = (miner.mine(miner.anchors[:200], seed=0, epoch=epoch) for epoch in (20, 21))
    assert np.mean(first.negatives != second.negatives) > 0.5


def test_the_two_readings_of_a_quarter_differ_in_what_is_sorted_together():
    """Where partial matches look more different than exact ones, the hardest of one list are all partial."""
    labels = np.array([0b01] * 40 + [0b11] * 40 + [0b100] * 5)
    hashes = np.where(labels == 0b11, -1, np.arange(len(labels)))  # of the anchors: near each other, and far from these
    shares = {}
    for of in ("picks", "list"):
        for sampling in ("paper", "all"):
            miner = TripletMiner(hashes, labels, sampling=sampling, partial_of=of, positives=20, hardest=1)
            triplets = miner.mine(np.arange(40), seed=0, epoch=10)
            shares[of, sampling] = np.mean(labels[triplets.positives] == 0b11)
    assert shares["list", "paper"] == shares["list", "all"] == 1
    assert min(shares["picks", "paper"], shares["picks", "all"]) > 0.1
    assert max(shares["picks", "paper"], shares["picks", "all"]) < 0.45


@pytest.mark.parametrize("sampling", ["paper", "all", "random"])
def test_a_list_holds_a_quarter_of_partial_matches(sampling):
    hashes, labels = random_images(900, classes=3)
    miner = TripletMiner(hashes, labels, sampling=sampling, partial_of="list", positives=20)
    for anchor in miner.anchors[labels[miner.anchors] == 0b011][:20]:
        generator = np.random.default_rng(0)
        listed = [
            miner._candidates(int(anchor), rule, limit, generator) for rule, limit in (("exact", 15), ("partial", 5))
        ]
        assert [len(set(x.tolist())) for x in listed] == [15, 5]
        assert (labels[listed[0]] == 0b011).all()
        assert (labels[listed[1]] != 0b011).all()
        assert (labels[listed[1]] & 0b011).all()
        assert anchor not in np.concatenate(listed)


def test_at_random_the_hash_says_nothing():
    """§4.2: hard and easy examples are as likely, from the first epoch to the last, and no hash is needed."""
    hashes, labels = random_images(3000, classes=2)
    miner = TripletMiner(hashes, labels, sampling="random", partial=0.0)
    anchors = miner.anchors[:600]
    for epoch in (0, 10, 25):
        triplets = miner.mine(anchors, seed=1, epoch=epoch)
        for others in (triplets.positives, triplets.negatives):
            found = [distance(a, b) for a, b in zip(hashes[anchors], hashes[others], strict=True)]
            assert np.mean(found) == pytest.approx(32, abs=0.7)  # of random 64 bits; the error of the mean is 0.16
    without = TripletMiner(None, labels, sampling="random", partial=0.0)
    for one, other in zip(without.mine(anchors, seed=1, epoch=25), triplets, strict=True):
        assert one.tolist() == other.tolist()
    first, second = (miner.mine([miner.anchors[0]], seed=0, epoch=epoch).negatives[0] for epoch in range(2))
    counts = np.bincount([miner.mine([0], seed=0, epoch=epoch).negatives[0] for epoch in range(400)])
    assert counts.max() < 8  # of about 2,000 images
    assert first != second


def test_images_without_a_finding_are_positives_of_each_other():
    hashes, _ = random_images(6)
    miner = TripletMiner(hashes, np.array([0, 0, 0, 1, 1, 2]))
    assert miner.anchors.tolist() == [0, 1, 2, 3, 4]  # 5 has no positive
    triplets = miner.mine([0, 1, 2], seed=0, epoch=0)
    assert set(triplets.positives.tolist()) <= {0, 1, 2}
    assert set(triplets.negatives.tolist()) <= {3, 4, 5}
    assert miner.notes == ("1 images have no positive or no negative and are not anchors of triplets",)


@pytest.mark.parametrize("of", ["picks", "list"])
def test_an_anchor_without_an_exact_match_gets_partial_ones(of):
    hashes, _ = random_images(4)
    miner = TripletMiner(hashes, np.array([0b011, 0b001, 0b001, 0b100]), partial=0.25, partial_of=of)
    triplets = miner.mine([0], seed=0, epoch=0)
    assert triplets.positives[0] in (1, 2)
    assert triplets.negatives.tolist() == [3]
    assert "1 anchors share their set of labels with no other image" in miner.notes[-1]


@pytest.mark.parametrize("sampling", ["paper", "all", "random"])
@pytest.mark.parametrize("of", ["picks", "list"])
def test_exact_matches_only(sampling, of):
    """§4.2, "identical matches only": who has none is no anchor, and still a negative."""
    hashes, _ = random_images(5)
    labels = np.array([0b011, 0b001, 0b001, 0b100, 0b100])
    miner = TripletMiner(hashes, labels, partial=0, sampling=sampling, partial_of=of)
    assert miner.anchors.tolist() == [1, 2, 3, 4]
    assert miner.notes == (
        "1 images share their set of labels with no other image and are not anchors of triplets, as partial matches "
        "are no positives",
    )
    negatives = set()
    for epoch in range(12):
        triplets = miner.mine(miner.anchors, seed=0, epoch=epoch)
        assert triplets.positives.tolist() == [2, 1, 4, 3]
        negatives |= set(triplets.negatives.tolist())
    assert 0 in negatives
    with pytest.raises(CxrfastError, match=r"both a positive \(the same labels, as partial is 0\) and a negative"):
        TripletMiner(hashes[:3], np.array([0b01, 0b11, 0b100]), partial=0)


def test_images_without_a_hash_are_in_no_triplet():
    hashes, labels = random_images(200)
    known = np.arange(200) % 3 != 0
    hashes[~known] = hashes[1]  # near everything, if it were looked at
    miner = TripletMiner(hashes, labels, known=known)
    used = np.concatenate(miner.mine(miner.anchors, seed=0, epoch=0))
    assert known[used].all()
    assert miner.notes[0] == "67 images have no hash and are in no triplet"
    dense = TripletMiner(hashes[known], labels[known])
    places = np.flatnonzero(known)
    assert miner.anchors.tolist() == places[dense.anchors].tolist()


def batches(sampler, epoch=0, start=0):
    sampler.set_epoch(epoch, start)
    return list(sampler)


@pytest.fixture(scope="module")
def miner():
    return TripletMiner(*random_images(101, seed=4), sampling="all")


def test_batches_are_anchors_then_positives_then_negatives(miner):
    sampler = TripletBatchSampler(miner, 8, seed=5)
    found = batches(sampler, 2)
    assert len(found) == len(sampler) == -(-len(miner.anchors) // 8)
    anchors = [place for batch in found for place in batch[: len(batch) // 3]]
    assert sorted(anchors) == miner.anchors.tolist()
    for batch in found:
        expected = miner.mine(batch[: len(batch) // 3], seed=5, epoch=2)
        assert batch == np.concatenate(expected).tolist()
    assert all(len(batch) == 24 for batch in batches(TripletBatchSampler(miner, 8, drop_last=True)))


def test_images_without_a_triplet_come_too():
    """Eq. 2 is over all training images: those without a positive are classified, once an epoch, like the others."""
    labels = np.array([0, 0, 0, 1, 1, 2, 6])
    miner = TripletMiner(random_images(7)[0], labels, partial=0)
    assert (miner.anchors.tolist(), miner.unmatched.tolist()) == ([0, 1, 2, 3, 4], [5, 6])
    for world_size in (1, 2):
        seen = []
        for rank in range(world_size):
            sampler = TripletBatchSampler(miner, 3, seed=5, rank=rank, world_size=world_size)
            for batch in batches(sampler):
                for anchor, positive, negative in np.array(batch).reshape(3, -1).T.tolist():
                    assert (positive == negative == anchor) == (anchor > 4)
                    seen.append(anchor)
        assert set(seen) == set(range(7))
        assert len(seen) == 7 if world_size == 1 else 8


def test_a_seed_and_an_epoch_give_the_same_batches(miner):
    first, second = (TripletBatchSampler(miner, 8, seed=5) for _ in range(2))
    assert batches(first, 3) == batches(second, 3) == batches(first, 3)
    assert batches(first, 3) != batches(first, 4)
    assert batches(first, 3) != batches(TripletBatchSampler(miner, 8, seed=6), 3)
    np.random.seed(0)  # noqa: NPY002  nobody else's random numbers count
    torch.manual_seed(0)
    assert batches(first, 3) == batches(second, 3)


def test_resumes_at_any_batch(miner):
    whole = batches(TripletBatchSampler(miner, 8, seed=5), 3)
    for start in range(len(whole) + 2):
        sampler = TripletBatchSampler(miner, 8, seed=5)
        assert batches(sampler, 3, start) == whole[start:]
        assert len(sampler) == len(whole[start:])


@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_the_anchors_out(miner, world_size, drop_last):
    alone = {}
    for batch in batches(TripletBatchSampler(miner, 8, seed=5), 1):
        alone |= {row[0]: row for row in zip(*np.array(batch).reshape(3, -1).tolist(), strict=True)}
    seen, lengths = [], set()
    for rank in range(world_size):
        sampler = TripletBatchSampler(miner, 8, seed=5, rank=rank, world_size=world_size, drop_last=drop_last)
        found = batches(sampler, 1)
        assert len(found) == len(sampler)
        lengths.add(tuple(len(batch) for batch in found))
        for batch in found:
            rows = list(zip(*np.array(batch).reshape(3, -1).tolist(), strict=True))
            assert all(alone[row[0]] == row for row in rows)  # the same triplets as one process mines
            seen += [row[0] for row in rows]
    assert len(lengths) == 1  # or the processes would wait for each other for ever
    if not drop_last:
        assert set(seen) == set(alone)
        assert len(seen) < len(alone) + world_size


class Places(Dataset):
    def __len__(self):
        return 101

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_s_workers_change_nothing(miner, workers):
    sampler = TripletBatchSampler(miner, 8, seed=5)
    loader = DataLoader(Places(), batch_sampler=sampler, num_workers=workers)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        loaded = [batch.tolist() for batch in loader]
        assert loaded == batches(TripletBatchSampler(miner, 8, seed=5), epoch)


def test_fabric_leaves_the_sampler_and_its_epoch_alone(miner):
    sampler = TripletBatchSampler(miner, 8, seed=5)
    loader = Fabric(accelerator="cpu", devices=1).setup_dataloaders(
        DataLoader(Places(), batch_sampler=sampler), use_distributed_sampler=False
    )
    for epoch in (4, 2):
        sampler.set_epoch(epoch)
        assert [batch.tolist() for batch in loader] == batches(TripletBatchSampler(miner, 8, seed=5), epoch)
        sampler.set_epoch(epoch)


def test_label_bits():
    sets = [frozenset(), {"b"}, {"a", "c"}, {"b"}]
    assert label_bits(sets, "abc").tolist() == [0, 2, 5, 2]
    assert label_bits([{"x62"}], [f"x{i}" for i in range(63)]).tolist() == [2**62]
    assert label_bits([], "abc").dtype == np.int64
    with pytest.raises(UsageError, match="label 'd' is not among the classes a, b, c"):
        label_bits([{"a", "d"}], "abc")
    with pytest.raises(UsageError, match="64 classes; expected at most 63"):
        label_bits([], [str(i) for i in range(64)])


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("sampling is 'some'; expected one of paper, all, random", {"sampling": "some"}),
        ("partial_of is 'some'; expected one of picks, list", {"partial_of": "some"}),
        ("negatives is 0; expected at least 1", {"negatives": 0}),
        ("hardest is 0; expected at least 1", {"hardest": 0}),
        ("partial is 1.5; expected a share", {"partial": 1.5}),
        ("epochs of the schedule is -1", {"epochs": -1}),
        ("20 hashes, 20 labels, 3 known", {"known": np.ones(3, dtype=bool)}),
    ],
)
def test_wrong_options(message, options):
    with pytest.raises(UsageError, match=message):
        TripletMiner(*random_images(20), **options)


def test_hashes_are_needed_where_hardness_counts():
    with pytest.raises(UsageError, match="hashes: expected one for each image, as sampling is 'paper', got None"):
        TripletMiner(None, np.array([0, 0, 1]))


def test_wrong_sampler_options(miner):
    for message, options in (
        ("batch size is 0", {"batch_size": 0}),
        ("rank is 2 of 2 processes; expected 0 to 1", {"batch_size": 1, "rank": 2, "world_size": 2}),
        ("seed is -1", {"batch_size": 1, "seed": -1}),
    ):
        with pytest.raises(UsageError, match=message):
            TripletBatchSampler(miner, **options)
    with pytest.raises(UsageError, match="^5 is no anchor"):
        TripletMiner(random_images(6)[0], np.array([0, 0, 0, 1, 1, 2])).mine([0, 5], seed=0, epoch=0)
    with pytest.raises(UsageError, match="start batch is -1"):
        TripletBatchSampler(miner, 1).set_epoch(0, -1)


def test_no_triplets():
    with pytest.raises(CxrfastError, match="none of 3 images has both a positive"):
        TripletMiner(random_images(3)[0], np.array([1, 2, 4]))


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
