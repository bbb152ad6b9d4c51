"""How Zhang's method chooses triplets by default, where no option says it: a check for each statement."""

import numpy as np

from cxrfast.data import TripletBatchSampler, TripletMiner


def miner(labels: list[int], **options: object) -> TripletMiner:
    hashes = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, len(labels))
    return TripletMiner(hashes, np.array(labels), **options)  # type: ignore[arg-type]


def uniform_sampling() -> None:
    of = miner([0, 0, 1, 1, 2, 2, 3])
    sampler, orders = TripletBatchSampler(of, 3), set()
    for epoch in range(5):
        sampler.set_epoch(epoch)
        anchors = [place for batch in sampler for place in batch[: len(batch) // 3]]
        assert sorted(anchors) == list(range(7))
        orders.add(tuple(anchors))
    assert len(orders) > 1


def negatives() -> None:
    labels = np.random.default_rng(1).integers(0, 8, 60)
    triplets = miner(labels.tolist()).mine(np.flatnonzero(labels), seed=0, epoch=3)
    assert not (labels[triplets.anchors] & labels[triplets.negatives]).any()


def without_finding() -> None:
    of = miner([0, 0, 0, 1, 1, 3])
    for epoch in range(10):
        triplets = of.mine([0, 1, 2], seed=0, epoch=epoch)
        assert set(triplets.positives.tolist()) <= {0, 1, 2}
        assert set(triplets.negatives.tolist()) <= {3, 4, 5}
    assert set(np.concatenate([of.mine([3], seed=0, epoch=e).negatives for e in range(20)]).tolist()) == {0, 1, 2}


def no_exact_match() -> None:
    of = miner([0b011, 0b001, 0b001, 0b100])
    assert 0 in of.anchors
    assert of.mine([0], seed=0, epoch=0).positives[0] in (1, 2)


def eq_3() -> None:
    triplets = miner([0, 0, 1, 1]).mine([2], seed=0, epoch=0)
    assert [column.tolist() for column in triplets][:2] == [[2], [3]]
    assert triplets.negatives[0] in (0, 1)


def triplets_of_an_anchor() -> None:
    of = miner([1] * 30 + [2] * 30)
    drawn = {tuple(column.item() for column in of.mine([0], seed=0, epoch=epoch)) for epoch in range(5)}
    assert len(drawn) == 5


def which_hash() -> None:
    from imagehash import phash
    from PIL import Image

    from cxrfast.data.similarity.hashes import perceptual_hash

    pixels = np.random.default_rng(0).random((256, 256)).astype(np.float32)
    expected = phash(Image.fromarray(np.round(pixels * 255).astype(np.uint8))).hash.ravel()
    value = int(np.int64(perceptual_hash(pixels))) & (2**64 - 1)
    assert [value >> (63 - bit) & 1 for bit in range(64)] == expected.astype(int).tolist()


def semi_hard() -> None:
    hashes = np.array([0, 0b1, 0b11, 0b111, 0b1111, 0b11111])  # distances 1 to 5 from the first
    of = TripletMiner(hashes, np.array([1, 1, 1, 2, 2, 2]), partial=0.0)
    triplets = of.mine([0], seed=0, epoch=10)
    assert (triplets.positives.item(), triplets.negatives.item()) == (2, 3)


def candidates_redrawn() -> None:
    of = miner([1] * 200 + [2] * 200, negatives=5)
    assert len({of.mine([0], seed=0, epoch=epoch).negatives.item() for epoch in range(20, 30)}) > 3


def bias_formula() -> None:
    u = np.array([0.0, 0.25, 0.999])
    n = np.full(3, 100)
    of = miner([0, 0, 1, 1])
    assert of._rank(n, 0, u).tolist() == [0, 50, 99]
    assert of._rank(n, 5, u).tolist() == [0, int(50 * 0.25 ** (1 / 1.5)), 49]
    assert of._rank(n, 10, u).tolist() == [0, 0, 0]


def unreadable() -> None:
    hashes, labels = np.zeros(5, dtype=np.int64), np.array([1, 1, 1, 2, 2])
    of = TripletMiner(hashes, labels, known=np.array([True, True, False, True, True]))
    used = {place for batch in TripletBatchSampler(of, 2) for place in batch}
    assert used == {0, 1, 3, 4}
    assert of.notes == ("1 images have no hash and are in no triplet",)


PROBES = {
    "uniform-sampling": uniform_sampling,
    "negatives": negatives,
    "without-finding": without_finding,
    "no-exact-match": no_exact_match,
    "eq-3": eq_3,
    "triplets-of-an-anchor": triplets_of_an_anchor,
    "which-hash": which_hash,
    "semi-hard": semi_hard,
    "candidates-redrawn": candidates_redrawn,
    "bias-formula": bias_formula,
    "unreadable": unreadable,
}
