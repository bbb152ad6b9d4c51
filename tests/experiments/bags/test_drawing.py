"""Bags are what their settings say, and the same for the same seed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.errors import UsageError
from cxrfast.experiments.bags import Bags, draw_bags, parse_positives


def pool(n_positive: int, n_negative: int) -> torch.Tensor:
    """Which images are positive, in an order that says nothing."""
    images = torch.cat([torch.ones(n_positive, dtype=torch.bool), torch.zeros(n_negative, dtype=torch.bool)])
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(5))]


@given(
    n_positive=st.integers(1, 20),
    n_negative=st.integers(1, 50),
    n_bags=st.integers(1, 30),
    size=st.integers(1, 40),
    size_std=st.sampled_from([0.0, 0.5, 2.0, 10.0]),
    positives=st.one_of(st.none(), st.integers(1, 50), st.floats(0.01, 1.0)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_properties(n_positive, n_negative, n_bags, size, size_std, positives, seed):
    images = pool(n_positive, n_negative)
    bags = draw_bags(images, n_bags, size, size_std=size_std, positives=positives, seed=seed)
    assert bags.offsets[0] == 0
    assert bags.offsets[-1] == len(bags.instances) == len(bags.positive)
    assert len(bags.sizes) == len(bags.labels) == n_bags
    assert (bags.sizes >= 1).all()
    if size_std == 0:
        assert (bags.sizes == size).all()
    assert torch.equal(images[bags.instances], bags.positive)
    assert torch.equal(bags.labels, torch.arange(n_bags) % 2 == 0)
    for bag, (begin, end) in enumerate(zip(bags.offsets[:-1].tolist(), bags.offsets[1:].tolist(), strict=True)):
        count, n = int(bags.positive[begin:end].sum()), end - begin
        assert (count > 0) == bool(bags.labels[bag])
        if count and isinstance(positives, int):
            assert count == min(positives, n)
        if count and isinstance(positives, float):
            assert count == max(round(positives * n), 1)
    again = draw_bags(images, n_bags, size, size_std=size_std, positives=positives, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(bags, again, strict=True))


def test_seeds_differ():
    first, second = (draw_bags(pool(10, 90), 20, 10, size_std=2, seed=seed) for seed in (0, 1))
    assert not (len(first.instances) == len(second.instances) and torch.equal(first.instances, second.instances))


@pytest.mark.parametrize(("size", "share"), [(10, 0.1), (3, 0.02), (50, 0.1)])
def test_natural_bags_are_binomial_on_condition_of_one(size, share):
    """Against the definition: draw bags at random and throw away those without a positive instance."""
    images = pool(round(1000 * share), 1000 - round(1000 * share))
    bags = draw_bags(images, 40000, size, seed=3)
    counts = np.diff(np.concatenate([[0], bags.positive.cumsum(0).numpy()])[bags.offsets.numpy()])[::2]
    expected = np.array([math.comb(size, k) * share**k * (1 - share) ** (size - k) for k in range(size + 1)])
    expected[0] = 0
    expected /= expected.sum()
    observed = np.bincount(counts, minlength=size + 1) / len(counts)
    # 20000 bags: a share's standard error is below 0.0036
    np.testing.assert_allclose(observed, expected, atol=0.016)


def test_places_and_images_are_uniform():
    images = pool(5, 45)
    bags = draw_bags(images, 8000, 10, positives=1, seed=1)
    of_positive_bags = bags.positive.view(-1, 10)[::2].double().mean(0)
    torch.testing.assert_close(of_positive_bags, torch.full((10,), 0.1, dtype=torch.float64), rtol=0, atol=0.025)
    counts = bags.instances[~bags.positive].bincount(minlength=50)[~images].double()
    torch.testing.assert_close(counts / counts.sum(), torch.full((45,), 1 / 45, dtype=torch.float64), rtol=0.1, atol=0)


def test_sizes_are_gaussian():
    sizes = draw_bags(pool(10, 90), 5000, 50, size_std=7, seed=0).sizes.double()
    assert sizes.mean().item() == pytest.approx(50, abs=0.5)
    assert sizes.std().item() == pytest.approx(7, abs=0.4)


@given(st.lists(st.integers(0, 8), max_size=12))
@settings(deadline=None)
def test_select(chosen):
    bags = draw_bags(pool(10, 30), 9, 4, size_std=2, seed=2)
    some = bags.select(torch.tensor(chosen, dtype=torch.int64))
    assert isinstance(some, Bags)
    assert len(some.labels) == len(chosen)
    for place, bag in enumerate(chosen):
        here, there = slice(*some.offsets[place : place + 2]), slice(*bags.offsets[bag : bag + 2])
        assert torch.equal(some.instances[here], bags.instances[there])
        assert torch.equal(some.positive[here], bags.positive[there])
        assert some.labels[place] == bags.labels[bag]


def test_impossible_bags():
    with pytest.raises(ValueError, match="positive and negative images, got one kind"):
        draw_bags(torch.ones(5, dtype=torch.bool), 2, 3)
    with pytest.raises(ValueError, match="got 0, 3 and 0"):
        draw_bags(pool(2, 2), 0, 3)


@pytest.mark.parametrize(("text", "value"), [("natural", None), ("3", 3), ("0.1", 0.1), ("10%", 0.1), ("1.0", 1.0)])
def test_parse_positives(text, value):
    assert parse_positives(text) == value
    assert type(parse_positives(text)) is type(value)


@pytest.mark.parametrize("text", ["", "some", "0", "-1", "1.5", "200%", "nan%", "0.0"])
def test_positives_that_are_none(text):
    with pytest.raises(UsageError, match="positives: expected 'natural'"):
        parse_positives(text)
