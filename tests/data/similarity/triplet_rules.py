"""Random images for triplets, and the rules that every triplet obeys, by comparing all pairs."""

import numpy as np


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
