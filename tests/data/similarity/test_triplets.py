"""Triplets obey their rules, hard ones look wrong, and they get harder from epoch to epoch."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.data import TripletMiner, label_bits
from cxrfast.errors import CxrfastError, UsageError
from tests.data.similarity.triplet_rules import check_rules, distance, matches, random_images


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


def test_label_bits():
    sets = [frozenset(), {"b"}, {"a", "c"}, {"b"}]
    assert label_bits(sets, "abc").tolist() == [0, 2, 5, 2]
    assert label_bits([{"x62"}], [f"x{i}" for i in range(63)]).tolist() == [2**62]
    assert label_bits([], "abc").dtype == np.int64
    with pytest.raises(UsageError, match="label 'd' is not among the classes a, b, c"):
        label_bits([{"a", "d"}], "abc")
    with pytest.raises(UsageError, match="classes: expected at most 63 for triplets, got 64"):
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


def test_no_triplets():
    with pytest.raises(CxrfastError, match="none of 3 images has both a positive"):
        TripletMiner(random_images(3)[0], np.array([1, 2, 4]))
