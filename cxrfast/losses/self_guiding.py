"""The loss of Seibold et al. 2020, "Self-Guided Multiple Instance Learning for Weakly Supervised Disease Classification
and Localization in Chest Radiographs"."""

import torch

from cxrfast.losses._bags import BagLossBase, mean_bce, present_bags
from cxrfast.losses._inputs import check_weight
from cxrfast.ops._validation import choose
from cxrfast.ops.self_guiding import MEDIANS, SelfGuidedSums, check_delta
from cxrfast.reference.self_guiding import self_guided_sums, self_guided_sums_ragged

NORMALIZATIONS = {"batch": True, "bag": False}


class SelfGuidingLoss(BagLossBase):
    """Eq. 9: the bag loss, and every instance against a target that its own bag makes for it.

    With `p = σ(logit)`, over the instances j of bag i for class c::

        Eq. 4   L_bag = mean over i, c of BCE(pooled p, y)
        Eq. 5   θ_j   = (p_j − min p) / (max p − min p)
        Eq. 6   M_j   = 0 where θ_j < δ_l or y = 0,   θ_j where δ_l ≤ θ_j ≤ δ_h,   1 where θ_j > δ_h
        Eq. 7   L_in  = Σ_i Σ_c Σ_j 2^(α−1) · BCE(p_j, M_j), each kind of supervision (M = 0, θ, 1) divided by how many
                        instances have it
        Eq. 8   α     = max(max p − median p, 1 − y)
        Eq. 9   L     = L_bag + λ · L_in + l2 · mean of p² where M ≠ 0

    θ, M and α are targets and weights: no gradient goes through them. A positive bag whose predictions are all equal,
    as in a bag of one instance, leaves Eq. 5 at 0/0: it says nothing about its instances, and only its bag loss counts.
    Kinds of supervision that a batch does not have are 0, bags without instances do not count.
    `docs/papers.md` says what else the paper leaves open, and what its published script does.

    Args:
        pool: a mode of :func:`cxrfast.ops.mil_pool`, or a module from logits `[B, K, *]` to bag logits `[B, K]`; a
            module is called with `mask=` or `offsets=` where the loss is (:class:`cxrfast.nn.MILPool` takes both).
        delta: δ_l in [0, 0.5]; δ_h = 1 − δ_l.
        lam: λ; 1 in the paper's experiments with bags, 20 with chest X-rays.
        sharpness: of the pooling mode; None is its default.
        rescale: False is the ablation without Eq. 5, θ = p.
        weighted: False is the ablation without Eq. 8, every weight 1.
        normalize: "batch" divides a kind's sum by its instances in the whole batch, as the published script does; "bag"
            by those of each bag and class, and averages over bags and classes.
        average_weight: a kind's mean BCE times the mean weight of its instances, as in the published script, instead
            of the mean of their products. Needs normalize="batch".
        median: of an even number of predictions: "lower", the lower of the two in the middle, or "mean" of them.
        l2: weight of the penalty on the predictions with M ≠ 0, which the paper adds for chest X-rays.

    Shape: logits `[B, K, *]`, labels `[B, K]` (0 or 1, any dtype) and optionally `mask=`, boolean, true where an
    instance counts; or logits `[N, K]` of all bags and `offsets=[B + 1]` as :func:`cxrfast.ops.mil_pool_ragged` takes
    them. The result is a number in float32 (float64 for float64 logits).

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not fit.
    """

    def __init__(
        self,
        pool: str | torch.nn.Module = "softmax",
        delta: float = 0.3,
        lam: float = 1.0,
        *,
        sharpness: float | None = None,
        rescale: bool = True,
        weighted: bool = True,
        normalize: str = "batch",
        average_weight: bool = False,
        median: str = "lower",
        l2: float = 0.0,
    ) -> None:
        super().__init__(pool, sharpness)
        check_delta(delta)
        check_weight("lam", lam)
        check_weight("l2", l2)
        choose("median", median, MEDIANS)
        if average_weight and not choose("normalize", normalize, NORMALIZATIONS):
            raise ValueError("average_weight: expected False with normalize='bag', where a bag has one weight")
        choose("normalize", normalize, NORMALIZATIONS)
        self.delta, self.lam, self.l2 = delta, lam, l2
        self.rescale, self.weighted = rescale, weighted
        self.normalize, self.average_weight, self.median = normalize, average_weight, median

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] 0 or 1
        *,
        mask: torch.Tensor | None = None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> torch.Tensor:  # []
        terms = self.terms(logits, labels, mask=mask, offsets=offsets)
        instance = terms["negative"] + terms["soft"] + terms["positive"]
        loss = terms["bag"] + self.lam * instance  # Eq. 9
        return loss + self.l2 * terms["l2"] if self.l2 else loss

    def terms(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The loss's parts, without λ and the weight of the penalty: "bag" (Eq. 4), "negative", "soft" and "positive"
        (the kinds of Eq. 7: M = 0, θ and 1), and, unless its weight is 0, "l2"."""
        x, y = self.checked(logits, labels, mask, offsets)
        options = {"delta": self.delta, "rescale": self.rescale, "median": self.median}
        if offsets is None:
            sums = self_guided_sums(x, y > 0.5, mask=mask, **options)
        else:
            sums = self_guided_sums_ragged(x, offsets, y > 0.5, **options)
        present = present_bags(x, mask, offsets)
        terms = {"bag": mean_bce(self.pooled(x, mask, offsets), y, present), **self._kinds(sums)}
        if self.l2:
            terms["l2"] = self._mean(sums.squares, sums.soft_count + sums.positive_count)
        return terms

    def _kinds(self, sums: SelfGuidedSums) -> dict[str, torch.Tensor]:
        """Eq. 7, the three kinds of supervision apart."""
        weight = torch.exp2(sums.certainty - 1) if self.weighted else None
        kinds = {
            "negative": (sums.negative, sums.negative_count),
            "soft": (sums.soft, sums.soft_count),
            "positive": (sums.positive, sums.positive_count),
        }
        if weight is None:
            return {name: self._mean(total, count) for name, (total, count) in kinds.items()}
        if not self.average_weight:
            return {name: self._mean(weight * total, count) for name, (total, count) in kinds.items()}
        return {name: self._mean(*kind) * self._mean(weight * kind[1], kind[1]) for name, kind in kinds.items()}

    def _mean(
        self,
        total: torch.Tensor,  # [B, K]
        count: torch.Tensor,  # [B, K]
    ) -> torch.Tensor:  # []
        if NORMALIZATIONS[self.normalize]:
            return total.sum() / count.sum().clamp(min=1)
        return (total / count.clamp(min=1)).sum() / max(total.numel(), 1)

    def extra_repr(self) -> str:
        return (
            f"delta={self.delta}, lam={self.lam}, rescale={self.rescale}, weighted={self.weighted}, "
            f"normalize={self.normalize!r}, average_weight={self.average_weight}, median={self.median!r}, l2={self.l2}"
        )
