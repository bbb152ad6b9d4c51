"""Losses for bags of instances with one label per bag: the bag loss alone, and the losses that Seibold et al. 2020
compare the self-guiding loss with."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F

from cxrfast.losses._bags import BagLossBase, ModePool, counted, mean_bce, present_bags
from cxrfast.losses._inputs import check_weight
from cxrfast.ops._mask import mask_rows
from cxrfast.ops.mil_pool import MILPoolMode


class BagLoss(BagLossBase):
    """The binary cross-entropy of the pooled prediction, averaged over bags and classes (Seibold et al. 2020, Eq. 4).

    Args:
        pool: a mode of :func:`cxrfast.ops.mil_pool`, or a module that maps logits `[B, K, *]` to bag logits `[B, K]`. A
            `mask=` or `offsets=` passed to the loss is passed on to the module (:class:`cxrfast.nn.MILPool` accepts
            both).
        sharpness: of the pooling mode. None is the mode's default.

    Shape: logits `[B, K, *]`, labels `[B, K]` (0 or 1, any dtype) and optionally a boolean `mask=`, true for instances
    that belong to the bag. Or logits `[N, K]` of all bags and `offsets=[B + 1]`, as in
    :func:`cxrfast.ops.mil_pool_ragged`. The result is a scalar in float32 (float64 for float64 logits). NaN marks an
    unknown label; its pair of bag and class is excluded from means and has a gradient of 0. Bags without instances are
    excluded too. The method `terms` returns the unweighted terms by name, here only "bag".

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not match.

    Example:
        >>> criterion = BagLoss("lse", sharpness=5.0)
        >>> logits = torch.randn(8, 14, 20, 20, requires_grad=True)
        >>> criterion(logits, torch.zeros(8, 14)).backward()
    """

    def __init__(self, pool: MILPoolMode | torch.nn.Module, *, sharpness: float | None = None) -> None:
        super().__init__(pool, sharpness)

    def parts(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] of logits' dtype, 0 where unknown
        known: torch.Tensor | None,  # [B, K] bool; None: all
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        return {"bag": self.bag_loss(logits, labels, known, mask, offsets)}

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:  # []
        return terms["bag"]


BILForm = Literal["sum", "script"]


class BILLoss(BagLossBase):
    """Binary instance labels (Zhou et al. 2017): the bag loss plus an instance loss against the rounded predictions.

    With `p = σ(logit)`, the label of an instance is 1 if its bag is positive and p > 0.5, else 0. It has no gradient.
    Seibold et al. 2020 (§3.2, Figure 2) describe the sum of the bag loss and the instance loss::

        form="sum"      L = mean BCE(pooled, y) + λ · mean BCE(p, [p > 0.5] · y)

    The first mean is over bags and classes, the second over all instances and classes of the batch, both only over
    known labels. Their published script differs. With b = BCE(pooled, y) and r = mean BCE(p, [p > 0.5] · y) of one bag,
    it penalises the difference of r from b (without a gradient through b) for positive bags, and has no bag loss for
    negative bags::

        form="script"   L = mean over bags and classes of   y · [b + λ · (b − r)²] + (1 − y) · λ · r

    The script has λ = 1. (It multiplies `[p > 0.5]` by the labels of all bags of the batch, because of an unintended
    broadcast; the formula here is that for a batch of one bag.)

    `terms` returns "bag" and "instance"; the loss is bag + λ · instance.

    Args:
        pool, sharpness: as in :class:`BagLoss`. The paper uses "mean", because training failed with "max".
        lam: λ.
        form: "sum" or "script".

    Shape, Raises: as :class:`BagLoss`.

    Example:
        >>> BILLoss()(torch.zeros(2, 1, 10), torch.zeros(2, 1)).item()  # 2 log 2
        1.386294...
    """

    def __init__(
        self,
        pool: MILPoolMode | torch.nn.Module = "mean",
        lam: float = 1.0,
        *,
        sharpness: float | None = None,
        form: BILForm = "sum",
    ) -> None:
        super().__init__(pool, sharpness)
        check_weight("lam", lam)
        if form not in get_args(BILForm):
            raise ValueError(f"form: expected one of {', '.join(get_args(BILForm))}, got {form!r}")
        self.lam, self.form = lam, form

    def parts(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] of logits' dtype, 0 where unknown
        known: torch.Tensor | None,  # [B, K] bool; None: all
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        if self.form == "script":
            return self._parts_of_the_script(logits, labels, known, mask, offsets)
        bag = self.bag_loss(logits, labels, known, mask, offsets)
        if offsets is not None:
            sizes, total = offsets.diff(), logits.shape[0]
            of_bag = labels.repeat_interleave(sizes, 0, output_size=total)
            known_bag = None if known is None else known.repeat_interleave(sizes, 0, output_size=total)
            return {"bag": bag, "instance": mean_bce(logits, of_bag * (logits > 0), None, known_bag)}
        rows = logits.flatten(2)
        inside = None if mask is None else mask_rows(mask, logits)
        known_bag = None if known is None else known[..., None].expand_as(rows)
        return {"bag": bag, "instance": mean_bce(rows, labels[..., None] * (rows > 0), inside, known_bag)}

    def _parts_of_the_script(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K], 0 where unknown
        known: torch.Tensor | None,  # [B, K] bool; None: all
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        kept = counted(labels, present_bags(logits, mask, offsets), known)
        pooled = torch.where(kept, self.pooled(logits, mask, offsets), 0)
        bag = F.binary_cross_entropy_with_logits(pooled, labels, reduction="none")
        instance = _mean_bce_of_bags(logits, labels, mask, offsets)
        instance = labels * (bag.detach() - instance) ** 2 + (1 - labels) * instance
        terms = {"bag": labels * bag, "instance": instance}
        bags = kept.sum().clamp(min=1)
        return {name: torch.where(kept, each, 0).sum() / bags for name, each in terms.items()}

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:  # []
        return terms["bag"] + self.lam * terms["instance"]

    def extra_repr(self) -> str:
        return f"lam={self.lam}, form={self.form!r}"


def _mean_bce_of_bags(
    logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
    labels: torch.Tensor,  # [B, K]
    mask: torch.Tensor | None,
    offsets: torch.Tensor | None,
) -> torch.Tensor:  # [B, K], 0 for a bag without instances
    """BCE(p, [p > 0.5] · y), averaged over the instances of each bag."""
    if offsets is not None:
        sizes = offsets.diff()
        of_bag = labels.repeat_interleave(sizes, 0, output_size=logits.shape[0])
        loss = F.binary_cross_entropy_with_logits(logits, of_bag * (logits > 0), reduction="none")
        return torch.segment_reduce(loss, "sum", lengths=sizes) / sizes.clamp(min=1)[:, None]
    rows = logits.flatten(2)
    inside = torch.ones_like(rows, dtype=torch.bool) if mask is None else mask_rows(mask, logits).expand_as(rows)
    rows = torch.where(inside, rows, 0)
    loss = F.binary_cross_entropy_with_logits(rows, labels[..., None] * (rows > 0), reduction="none")
    return torch.where(inside, loss, 0).sum(2) / inside.sum(2).clamp(min=1)


class MMMLoss(BagLossBase):
    """Max, mean and min (Morfi & Stowell 2018): the targets of a bag's maximum, mean and minimum prediction are its
    label, half its label, and 0.

    With `p = σ(logit)` and means over bags and classes with a known label::

        L = 1/3 · [BCE(pooled p, y) + BCE(mean p, y / 2) + BCE(min p, 0)]

    `terms` returns the three terms as "bag", "mean" and "min".

    Args:
        pool, sharpness: as in :class:`BagLoss`. Morfi & Stowell use "max".

    Shape, Raises: as :class:`BagLoss`.

    Example:
        >>> MMMLoss()(torch.zeros(2, 1, 10), torch.zeros(2, 1)).item()  # log 2
        0.693147...
    """

    def __init__(self, pool: MILPoolMode | torch.nn.Module = "max", *, sharpness: float | None = None) -> None:
        super().__init__(pool, sharpness)
        self._mean, self._max = ModePool("mean"), ModePool("max")

    def parts(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] of logits' dtype, 0 where unknown
        known: torch.Tensor | None,  # [B, K] bool; None: all
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        present = present_bags(logits, mask, offsets)
        mean, negated_min = self._mean(logits, mask, offsets), self._max(-logits, mask, offsets)
        return {
            "bag": self.bag_loss(logits, labels, known, mask, offsets),
            "mean": mean_bce(mean, labels / 2, present, known),
            "min": mean_bce(-negated_min, torch.zeros_like(labels), present, known),
        }

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:  # []
        return (terms["bag"] + terms["mean"] + terms["min"]) / 3
