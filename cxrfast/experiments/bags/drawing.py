"""Bags of images drawn by seed: index tensors, never one Python object per image."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cxrfast.errors import UsageError


class Bags(NamedTuple):
    """Bag b holds the images `instances[offsets[b]:offsets[b + 1]]`; it is positive if one of them is."""

    instances: Tensor  # [N] int64: which image each is
    positive: Tensor  # [N] bool: which instances are of the positive class
    offsets: Tensor  # [B + 1] int64
    labels: Tensor  # [B] bool

    @property
    def sizes(self) -> Tensor:  # [B]
        return self.offsets.diff()

    def select(self, bags: Tensor) -> "Bags":  # [b] int64
        """Some bags, in this order."""
        sizes = self.sizes[bags]
        offsets = offsets_of(sizes)
        # Of every instance: its place in the new order, less where its bag begins there, plus where it began before
        rows = torch.arange(int(offsets[-1])) + (self.offsets[bags] - offsets[:-1]).repeat_interleave(sizes)
        return Bags(self.instances[rows], self.positive[rows], offsets, self.labels[bags])


def parse_positives(text: str) -> int | float | None:
    """ "natural" → None; "3" → 3 instances; "0.1" or "10%" → that share of the bag."""
    try:
        if text == "natural":
            return None
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text) if "." in text else int(text)
    except ValueError:
        value = -1
    if value <= 0 or (isinstance(value, float) and not value <= 1):
        raise UsageError(f"positives: expected 'natural', a number of instances or a share (0.1 or 10%), got {text!r}")
    return value


def draw_bags(
    positive: Tensor,  # [M] bool: which images are of the positive class
    n_bags: int,
    size: int,
    *,
    size_std: float = 0.0,
    positives: int | float | None = None,
    seed: int | tuple[int, ...] = 0,
) -> Bags:
    """Draw bags with replacement, every second one positive (the first one too): balanced up to one bag.

    Sizes are Gaussian, rounded to the nearest integer of at least 1. A negative bag is drawn from the negative images.

    Args:
        positive: there must be both kinds.
        n_bags: B.
        size: mean of the sizes; `size_std`: their standard deviation, 0 for bags of one size.
        positives: how many instances of a positive bag are positive. None ("natural", as in Ilse et al. 2018 and the
            paper): the bag is drawn at random from all images, on condition that one is positive; with share s of
            positive images that makes s·n/(1 − (1 − s)ⁿ) of n on average. An integer: as many (the whole bag where it
            is smaller). A share: as many as that, rounded, at least one.
        seed: the same seed gives the same bags.

    Raises:
        ValueError: no positive or no negative image, or a number that is too small.
    """
    if positive.all() or not positive.any():
        raise ValueError("positive: expected positive and negative images, got one kind")
    if n_bags < 1 or size < 1 or not size_std >= 0:
        raise ValueError(f"expected n_bags, size ≥ 1 and size_std ≥ 0, got {n_bags}, {size} and {size_std}")
    rng = np.random.default_rng(seed)
    sizes = np.maximum(np.rint(rng.normal(size, size_std, n_bags)), 1).astype(np.int64)
    labels = np.arange(n_bags) % 2 == 0
    share = positive.double().mean().item()
    counts = np.where(labels, _positive_counts(sizes, positives, share, rng), 0)
    # The positive instances of a bag are those with its smallest keys; cells beyond its size have infinite ones
    keys = rng.random((n_bags, sizes.max()))
    inside = np.arange(sizes.max()) < sizes[:, None]
    keys[~inside] = np.inf
    is_positive = (keys.argsort(1).argsort(1) < counts[:, None])[inside]
    chosen = np.empty(len(is_positive), np.int64)
    for kind, images in ((True, positive), (False, ~positive)):
        candidates = images.nonzero().flatten().numpy()
        chosen[is_positive == kind] = rng.choice(candidates, int((is_positive == kind).sum()))
    offsets = offsets_of(torch.from_numpy(sizes))
    return Bags(torch.from_numpy(chosen), torch.from_numpy(is_positive), offsets, torch.from_numpy(labels))


def _positive_counts(
    sizes: np.ndarray,  # [B]
    positives: int | float | None,
    share: float,
    rng: np.random.Generator,
) -> np.ndarray:  # [B]
    if isinstance(positives, float):
        return np.maximum(np.rint(positives * sizes), 1).astype(np.int64)
    if positives is not None:
        return np.minimum(positives, sizes)
    # Binomial on condition of at least one, without drawing again and again: where the first positive instance stands
    # is geometric, cut off at the bag's size; the instances behind it are free.
    miss = 1 - share
    uniform = rng.random(len(sizes))
    first = np.floor(np.log1p(-uniform * (1 - miss**sizes)) / np.log(miss)).astype(np.int64).clip(0, sizes - 1)
    return 1 + rng.binomial(sizes - 1 - first, share)


def offsets_of(sizes: Tensor) -> Tensor:  # [B] -> [B + 1] int64
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
