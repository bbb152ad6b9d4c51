"""Random bags of images, as index tensors."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cxrfast.errors import UsageError


class Bags(NamedTuple):
    """B bags. Bag b consists of the images `instances[offsets[b]:offsets[b + 1]]`; it is positive if any of them is."""

    instances: Tensor  # [N] int64: index of each instance's image
    positive: Tensor  # [N] bool: whether the instance is of the positive class
    offsets: Tensor  # [B + 1] int64
    labels: Tensor  # [B] bool

    @property
    def sizes(self) -> Tensor:  # [B]
        return self.offsets.diff()

    def select(self, bags: Tensor) -> "Bags":  # [b] int64
        """The bags with these indices, in this order."""
        sizes = self.sizes[bags]
        offsets = offsets_of(sizes)
        # Old index of an instance = its new index − new offset of its bag + old offset of its bag
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
    positive: Tensor,  # [M] bool: whether the image is of the positive class
    n_bags: int,
    size: int,
    *,
    size_std: float = 0.0,
    positives: int | float | None = None,
    seed: int | tuple[int, ...] = 0,
) -> Bags:
    """Draw bags with replacement. Positive and negative bags alternate, beginning with a positive one.

    Bag sizes follow a normal distribution, rounded to integers of at least 1. Negative bags are drawn from the negative
    images.

    Args:
        positive: must contain positive and negative images.
        n_bags: B.
        size: mean of the sizes; `size_std`: their standard deviation, 0 for bags of equal size.
        positives: number of positive instances in a positive bag. None ("natural", as in Ilse et al. 2018 and the
            paper): the bag is drawn at random from all images, conditional on at least one positive. If a share s of
            the images is positive, a bag of n then has s·n/(1 − (1 − s)ⁿ) positives on average. An integer: that many,
            or the whole bag if it is smaller. A float: that share of the bag, rounded, at least one.
        seed: the same seed gives the same bags.

    Raises:
        ValueError: no positive or no negative image, or a number that is too small.
    """
    if positive.all() or not positive.any():
        raise ValueError("positive: expected positive and negative images, got one kind")
    if n_bags < 1 or size < 1 or not size_std >= 0:
        raise ValueError(f"n_bags, size, size_std: expected at least 1, 1 and 0, got {n_bags}, {size} and {size_std}")
    rng = np.random.default_rng(seed)
    sizes = np.maximum(np.rint(rng.normal(size, size_std, n_bags)), 1).astype(np.int64)
    labels = np.arange(n_bags) % 2 == 0
    share = positive.double().mean().item()
    counts = np.where(labels, _positive_counts(sizes, positives, share, rng), 0)
    # The instances with the smallest random keys of a bag are positive; cells beyond its size have infinite keys
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
    # Binomial, conditional on at least one positive, without rejection sampling: the position of the first positive
    # instance has a geometric distribution truncated to the bag; the instances after it are unconditional.
    miss = 1 - share
    uniform = rng.random(len(sizes))
    first = np.floor(np.log1p(-uniform * (1 - miss**sizes)) / np.log(miss)).astype(np.int64).clip(0, sizes - 1)
    return 1 + rng.binomial(sizes - 1 - first, share)


def offsets_of(sizes: Tensor) -> Tensor:  # [B] -> [B + 1] int64
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
