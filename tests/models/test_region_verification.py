"""Eq. 7 and 8 against NumPy, image by image."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrfast.models import attended_region, enclosing_rectangle, region_logits
from tests.tolerances import assert_close


def rectangle(mask):  # [h, w] -> [h, w]
    result = np.zeros_like(mask)
    if mask.any():
        rows, columns = np.nonzero(mask)
        result[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return result


masks = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1))


@given(masks, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_enclosing_rectangle(shape, share):
    n, h, w, seed = shape
    mask = np.random.default_rng(seed).random((n, h, w)) < share
    expected = np.stack([rectangle(one) for one in mask])
    assert np.array_equal(enclosing_rectangle(torch.from_numpy(mask)).numpy(), expected)


@given(masks, st.sampled_from([0.0, 0.5, 0.8]))
def test_attended_region(shape, level):
    n, h, w, seed = shape
    maps = np.random.default_rng(seed).normal(size=(n, 2, h, w)).round(1)
    found = attended_region(torch.from_numpy(maps), level).numpy()
    for one, region in zip(maps.reshape(-1, h, w), found.reshape(-1, h, w), strict=True):
        if one.max() == one.min():
            assert region.all()
        else:
            assert np.array_equal(region, rectangle((one - one.min()) / (one.max() - one.min()) > level))


def test_components_over_the_level_share_one_rectangle():
    maps = torch.zeros(1, 1, 5, 6)
    maps[0, 0, 0, 1] = 1.0
    maps[0, 0, 3, 4] = 0.81
    maps[0, 0, 4, 5] = 0.8  # not over it
    expected = torch.zeros(1, 1, 5, 6, dtype=torch.bool)
    expected[0, 0, :4, 1:5] = True
    assert torch.equal(attended_region(maps, 0.8), expected)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_region_logits_are_those_of_pooled_masked_features(seed, own_regions):
    rng = np.random.default_rng(seed)
    g, v, b = rng.normal(size=(3, 5, 4, 6)), rng.normal(size=(2, 5)), rng.normal(size=2)
    region = rng.random((3, 2 if own_regions else 1, 4, 6)) < 0.4
    expected = np.empty((3, 2))
    for n in range(3):
        for k in range(2):
            masked = np.where(region[n, k if own_regions else 0], g[n], 0.0)
            expected[n, k] = v[k] @ masked.mean(axis=(1, 2)) + b[k]
    maps = torch.einsum("bdhw,kd->bkhw", torch.from_numpy(g), torch.from_numpy(v))
    assert_close(region_logits(maps, torch.from_numpy(region), torch.from_numpy(b)), torch.from_numpy(expected))
