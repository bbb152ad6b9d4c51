"""Losses for bags of instances with one label a bag: the bag loss alone, and the rivals of the self-guiding loss."""

import torch

from cxrfast.losses._bags import BagLossBase, ModePool, mean_bce, present_bags
from cxrfast.losses._inputs import check_weight
from cxrfast.ops._mask import mask_rows


class BagLoss(BagLossBase):
    """The binary cross-entropy of the pooled prediction, averaged over bags and classes (Seibold et al. 2020, Eq. 4).

    Args:
        pool: a mode of :func:`cxrfast.ops.mil_pool`, or a module from logits `[B, K, *]` to bag logits `[B, K]`; a
            module is called with `mask=` or `offsets=` where the loss is (:class:`cxrfast.nn.MILPool` takes both).
        sharpness: of the mode; None is its default.

    Shape: logits `[B, K, *]`, labels `[B, K]` (0 or 1, any dtype) and optionally `mask=`, boolean, true where an
    instance counts; or logits `[N, K]` of all bags and `offsets=[B + 1]` as :func:`cxrfast.ops.mil_pool_ragged` takes
    them. The result is a number in float32 (float64 for float64 logits). A bag without instances does not count.

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not fit.
    """

    def __init__(self, pool: str | torch.nn.Module, *, sharpness: float | None = None) -> None:
        super().__init__(pool, sharpness)

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] 0 or 1
        *,
        mask: torch.Tensor | None = None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> torch.Tensor:  # []
        return self.terms(logits, labels, mask=mask, offsets=offsets)["bag"]

    def terms(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The loss's only part: "bag"."""
        x, y = self.checked(logits, labels, mask, offsets)
        return {"bag": mean_bce(self.pooled(x, mask, offsets), y, present_bags(x, mask, offsets))}


class BILLoss(BagLossBase):
    """Binary instance labels (Zhou et al. 2017): the bag loss, and every instance against its own rounded prediction.

    With `p = σ(logit)`, an instance's label is 1 where its bag is positive and p > 0.5, else 0; no gradient goes
    through it::

        L = BCE(pooled, y) + λ · mean BCE(p, [p > 0.5] · y)

    The first mean is over bags and classes, the second over all instances and classes of the batch.

    Args:
        pool, sharpness: as in :class:`BagLoss`.
        lam: λ.

    Shape, Raises: as :class:`BagLoss`.
    """

    def __init__(
        self, pool: str | torch.nn.Module = "max", lam: float = 1.0, *, sharpness: float | None = None
    ) -> None:
        super().__init__(pool, sharpness)
        check_weight("lam", lam)
        self.lam = lam

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] 0 or 1
        *,
        mask: torch.Tensor | None = None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> torch.Tensor:  # []
        terms = self.terms(logits, labels, mask=mask, offsets=offsets)
        return terms["bag"] + self.lam * terms["instance"]

    def terms(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The two means, without λ: "bag" and "instance"."""
        x, y = self.checked(logits, labels, mask, offsets)
        bag = mean_bce(self.pooled(x, mask, offsets), y, present_bags(x, mask, offsets))
        if offsets is not None:
            of_bag = y.repeat_interleave(offsets.diff(), 0, output_size=x.shape[0])
            return {"bag": bag, "instance": mean_bce(x, of_bag * (x > 0), None)}
        rows = x.flatten(2)
        inside = None if mask is None else mask_rows(mask, x)
        return {"bag": bag, "instance": mean_bce(rows, y[..., None] * (rows > 0), inside)}

    def extra_repr(self) -> str:
        return f"lam={self.lam}"


class MMMLoss(BagLossBase):
    """Max, mean and min (Morfi & Stowell 2018): the greatest prediction of a bag is its label, the least is 0, and the
    mean is half the label.

    With `p = σ(logit)` and means over bags and classes::

        L = 1/3 · [BCE(pooled p, y) + BCE(mean p, y / 2) + BCE(min p, 0)]

    Args:
        pool, sharpness: as in :class:`BagLoss`; "max" is Morfi's.

    Shape, Raises: as :class:`BagLoss`.
    """

    def __init__(self, pool: str | torch.nn.Module = "max", *, sharpness: float | None = None) -> None:
        super().__init__(pool, sharpness)
        self._mean, self._max = ModePool("mean"), ModePool("max")

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] 0 or 1
        *,
        mask: torch.Tensor | None = None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> torch.Tensor:  # []
        terms = self.terms(logits, labels, mask=mask, offsets=offsets)
        return (terms["bag"] + terms["mean"] + terms["min"]) / 3

    def terms(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The three cross-entropies, without the third: "bag", "mean", "min"."""
        x, y = self.checked(logits, labels, mask, offsets)
        present = present_bags(x, mask, offsets)
        mean, negated_min = self._mean(x, mask, offsets), self._max(-x, mask, offsets)
        return {
            "bag": mean_bce(self.pooled(x, mask, offsets), y, present),
            "mean": mean_bce(mean, y / 2, present),
            "min": mean_bce(-negated_min, torch.zeros_like(y), present),
        }
