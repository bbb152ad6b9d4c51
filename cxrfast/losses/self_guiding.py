"""The loss of Seibold et al. 2020, "Self-Guided Multiple Instance Learning for Weakly Supervised Disease Classification
and Localization in Chest Radiographs"."""

from typing import Literal, get_args

import torch

from cxrfast.losses._bags import BagLossBase, ModePool, mean_bce, present_bags
from cxrfast.losses._inputs import check_weight
from cxrfast.losses._target_norm import mean_target_norm
from cxrfast.ops._validation import choose
from cxrfast.ops.mil_pool import MILPoolMode
from cxrfast.ops.self_guiding import MEDIANS, Median, check_delta, pooled_and_stacked_sums, stacked_sums

KINDS = ("negative", "soft", "positive")  # of supervision: M = 0, θ and 1
Normalization = Literal["batch", "bag"]
NORMALIZATIONS: dict[Normalization, bool] = {"batch": True, "bag": False}
L2Form = Literal["squares", "norm"]


class SelfGuidingLoss(BagLossBase):
    """Eq. 9: the bag loss plus an instance loss, whose targets are derived from the predictions in the same bag.

    With `p = σ(logit)`, over the instances j of bag i for class c::

        Eq. 4   L_bag = mean over i, c of BCE(pooled p, y)
        Eq. 5   θ_j   = (p_j − min p) / (max p − min p)
        Eq. 6   M_j   = 0 where θ_j < δ_l or y = 0,   θ_j where δ_l ≤ θ_j ≤ δ_h,   1 where θ_j > δ_h
        Eq. 7   L_in  = Σ_i Σ_c Σ_j 2^(α−1) · BCE(p_j, M_j), for each kind of supervision (M = 0, θ, 1) divided by its
                        number of instances
        Eq. 8   α     = max(max p − median p, 1 − y)
        Eq. 9   L     = L_bag + λ · L_in + l2 · penalty

    The penalty is described as an L2 norm on the non-zero elements of M (§3.3, chest X-rays only). There are two
    interpretations::

        l2_form="squares"   mean of p² over the instances with M ≠ 0
        l2_form="norm"      mean over bags and classes of ‖M‖₂ = √(Σ_j M_j²), where M = θ has a gradient, including that
                            through min p and max p, and M = 1 has none

    In all other terms θ, M and α are constants without a gradient. For a positive bag whose predictions are all equal,
    such as a bag of one instance, Eq. 5 is 0/0; such a bag has no instance loss, only its bag loss. A kind of
    supervision that does not occur in the batch contributes 0. Bags without instances are excluded.

    NaN marks an unknown label; its bag contributes to no term of its class and is not counted by any mean.

    `terms` returns the terms without λ and without the weight of the penalty: "bag" (Eq. 4), "negative", "soft" and
    "positive" (the kinds of Eq. 7: M = 0, θ and 1) and, unless its weight is 0, "l2".

    `docs/papers.md` lists what else the paper leaves open, and what its published script does.

    Args:
        pool: a mode of :func:`cxrfast.ops.mil_pool`, or a module that maps logits `[B, K, *]` to bag logits `[B, K]`. A
            `mask=` or `offsets=` passed to the loss is passed on to the module (:class:`cxrfast.nn.MILPool` accepts
            both).
        delta: δ_l in [0, 0.5]; δ_h = 1 − δ_l.
        lam: λ. The paper uses 1 for bags of images and 20 for chest X-rays.
        sharpness: of the pooling mode. None is the mode's default.
        rescale: False is the ablation without Eq. 5: θ = p.
        weighted: False is the ablation without Eq. 8: every weight is 1.
        normalize: "batch" divides the sum over a kind by its number of instances in the batch, as in the published
            script. "bag" divides by the number in each bag and class, and averages over bags and classes.
        average_weight: multiply the mean BCE of a kind by the mean weight of its instances, as in the published script,
            instead of averaging the products. Requires normalize="batch".
        median: of an even number of predictions: "lower", the lower of the two middle values, or "mean", their mean.
        l2: weight of the penalty.
        l2_form: the interpretation of the penalty. The gradient of "norm" is proportional to 1 / (max p − min p), so it
            is large when all predictions of a bag are similar.

    Shape: logits `[B, K, *]`, labels `[B, K]` (0 or 1, any dtype; NaN where unknown) and optionally a boolean `mask=`,
    true for instances that belong to the bag. Or logits `[N, K]` of all bags and `offsets=[B + 1]`, as in
    :func:`cxrfast.ops.mil_pool_ragged`. The result is a scalar in float32 (float64 for float64 logits).

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not match.

    Example:
        >>> criterion = SelfGuidingLoss(pool="softmax", delta=0.3, lam=20.0)
        >>> logits = torch.randn(8, 14, 20, 20, requires_grad=True)
        >>> criterion(logits, torch.randint(0, 2, (8, 14))).backward()
    """

    def __init__(
        self,
        pool: MILPoolMode | torch.nn.Module = "softmax",
        delta: float = 0.3,
        lam: float = 1.0,
        *,
        sharpness: float | None = None,
        rescale: bool = True,
        weighted: bool = True,
        normalize: Normalization = "batch",
        average_weight: bool = False,
        median: Median = "lower",
        l2: float = 0.0,
        l2_form: L2Form = "squares",
    ) -> None:
        super().__init__(pool, sharpness)
        check_delta(delta)
        check_weight("lam", lam)
        check_weight("l2", l2)
        choose("median", median, MEDIANS)
        if average_weight and not choose("normalize", normalize, NORMALIZATIONS):
            raise ValueError("average_weight: expected False with normalize='bag', where a bag has a single weight")
        choose("normalize", normalize, NORMALIZATIONS)
        if l2_form not in get_args(L2Form):
            raise ValueError(f"l2_form: expected one of {', '.join(get_args(L2Form))}, got {l2_form!r}")
        self.delta, self.lam, self.l2, self.l2_form = delta, lam, l2, l2_form
        self.rescale, self.weighted = rescale, weighted
        self.normalize, self.average_weight, self.median = normalize, average_weight, median

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
        *,
        mask: torch.Tensor | None = None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> torch.Tensor:  # []
        x, y, known = self.checked(logits, labels, mask, offsets)
        pooled, sums, statistics = self._pooled_and_sums(x, y, mask, offsets)
        # The sum of `terms` in fewer operations, because their overhead dominates on small maps.
        factors = self._factors(statistics, known) * statistics.new_tensor([[[self.lam]]] * 3 + [[[self.l2]]])
        loss = mean_bce(pooled, y, present_bags(x, mask, offsets), known) + (factors * sums).sum()  # Eq. 9
        return loss + self.l2 * self._norm(x, y, known, mask, offsets) if self._by_norm else loss

    def parts(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] of logits' dtype, 0 where unknown
        known: torch.Tensor | None,  # [B, K] bool; None: all
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        pooled, sums, statistics = self._pooled_and_sums(logits, labels, mask, offsets)
        means = (self._factors(statistics, known) * sums).sum((1, 2))
        terms = {"bag": mean_bce(pooled, labels, present_bags(logits, mask, offsets), known)}
        terms |= zip((*KINDS, "l2"), means.unbind(), strict=True)
        if self._by_norm:
            terms["l2"] = self._norm(logits, labels, known, mask, offsets)
        return terms if self.l2 else {name: term for name, term in terms.items() if name != "l2"}

    @property
    def _by_norm(self) -> bool:
        return self.l2 > 0 and self.l2_form == "norm"

    def _norm(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K], 0 where unknown
        known: torch.Tensor | None,  # [B, K] bool; None: all
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> torch.Tensor:  # []
        return mean_target_norm(logits, labels > 0.5, known, mask, offsets, self.delta, self.rescale)

    def _pooled_and_sums(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K]
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # [B, K], [4, B, K], [6, B, K]
        positive, options = labels > 0.5, (self.delta, self.rescale, self.median)
        if isinstance(self.pool, ModePool) and offsets is None:
            mode, sharpness = self.pool.mode, self.pool.sharpness
            return pooled_and_stacked_sums(logits, positive, mask, mode, sharpness, *options)
        return self.pooled(logits, mask, offsets), *stacked_sums(logits, positive, offsets, mask, *options)

    def _factors(
        self,
        statistics: torch.Tensor,  # [6, B, K]
        known: torch.Tensor | None,  # [B, K] bool; None: all
    ) -> torch.Tensor:  # [4, B, K]
        """The factors of the sums: the weights of Eq. 8 divided by the numbers of instances of Eq. 7, and for the
        penalty 1 divided by the number of instances with M ≠ 0. 0 where the label is unknown."""
        counts, certainty = statistics[:3], statistics[5]
        bags: int | torch.Tensor = max(certainty.numel(), 1)
        if known is not None:
            counts, bags = counts * known, known.sum().clamp(min=1)
        per_batch = NORMALIZATIONS[self.normalize]
        numbers = counts.sum((1, 2), keepdim=True).clamp_(min=1) if per_batch else counts.clamp(min=1) * bags
        factors = torch.zeros_like(statistics[:4])
        kinds = factors[:3]
        kinds.copy_((torch.exp2(certainty - 1) if self.weighted else 1) / numbers)
        if self.average_weight:
            kinds.copy_((kinds * counts).sum((1, 2), keepdim=True) / numbers)
        if self.l2 and not self._by_norm:
            found = counts[1] + counts[2]
            factors[3] = 1 / (found.sum().clamp(min=1) if per_batch else found.clamp(min=1) * bags)
        return factors if known is None else factors * known

    def extra_repr(self) -> str:
        return (
            f"delta={self.delta}, lam={self.lam}, rescale={self.rescale}, weighted={self.weighted}, "
            f"normalize={self.normalize!r}, average_weight={self.average_weight}, median={self.median!r}, "
            f"l2={self.l2}, l2_form={self.l2_form!r}"
        )
