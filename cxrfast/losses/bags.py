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
    `terms` gives the parts by name: "bag".

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not fit.
    """

    def __init__(self, pool: str | torch.nn.Module, *, sharpness: float | None = None) -> None:
        super().__init__(pool, sharpness)

    def parts(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] of logits' dtype
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        return {"bag": self.bag_loss(logits, labels, mask, offsets)}

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:  # []
        return terms["bag"]


class BILLoss(BagLossBase):
    """Binary instance labels (Zhou et al. 2017): the bag loss, and every instance against its own rounded prediction.

    With `p = σ(logit)`, an instance's label is 1 where its bag is positive and p > 0.5, else 0; no gradient goes
    through it::

        L = BCE(pooled, y) + λ · mean BCE(p, [p > 0.5] · y)

    The first mean is over bags and classes, the second over all instances and classes of the batch; `terms` gives them
    as "bag" and "instance".

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

    def parts(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] of logits' dtype
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        bag = self.bag_loss(logits, labels, mask, offsets)
        if offsets is not None:
            of_bag = labels.repeat_interleave(offsets.diff(), 0, output_size=logits.shape[0])
            return {"bag": bag, "instance": mean_bce(logits, of_bag * (logits > 0), None)}
        rows = logits.flatten(2)
        inside = None if mask is None else mask_rows(mask, logits)
        return {"bag": bag, "instance": mean_bce(rows, labels[..., None] * (rows > 0), inside)}

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:  # []
        return terms["bag"] + self.lam * terms["instance"]

    def extra_repr(self) -> str:
        return f"lam={self.lam}"


class MMMLoss(BagLossBase):
    """Max, mean and min (Morfi & Stowell 2018): the greatest prediction of a bag is its label, the least is 0, and the
    mean is half the label.

    With `p = σ(logit)` and means over bags and classes::

        L = 1/3 · [BCE(pooled p, y) + BCE(mean p, y / 2) + BCE(min p, 0)]

    `terms` gives the three as "bag", "mean" and "min".

    Args:
        pool, sharpness: as in :class:`BagLoss`; "max" is Morfi's.

    Shape, Raises: as :class:`BagLoss`.
    """

    def __init__(self, pool: str | torch.nn.Module = "max", *, sharpness: float | None = None) -> None:
        super().__init__(pool, sharpness)
        self._mean, self._max = ModePool("mean"), ModePool("max")

    def parts(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] of logits' dtype
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        present = present_bags(logits, mask, offsets)
        mean, negated_min = self._mean(logits, mask, offsets), self._max(-logits, mask, offsets)
        return {
            "bag": self.bag_loss(logits, labels, mask, offsets),
            "mean": mean_bce(mean, labels / 2, present),
            "min": mean_bce(-negated_min, torch.zeros_like(labels), present),
        }

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:  # []
        return (terms["bag"] + terms["mean"] + terms["min"]) / 3
