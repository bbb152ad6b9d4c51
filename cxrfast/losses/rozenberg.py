"""The loss of Rozenberg, Freedman and Bronstein 2019, "Localization with Limited Annotation for Chest X-rays"."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from cxrfast.losses._inputs import check_patch_inputs, check_weight
from cxrfast.losses.unknown import known_pairs, mean_over_images, split_labels
from cxrfast.ops import region_sums
from cxrfast.ops._validation import check_integer, choose

AreaUnit = Literal["patches", "fraction"]
AREA_UNITS: dict[AreaUnit, float] = {"patches": float("inf"), "fraction": 1.0}  # the largest area in each unit
Relaxation = Literal["relu", "sigmoid"]
THRESHOLDS = ("tau", "rho", "tau_hat", "rho_hat")
_EDGE = 1e-4  # minimum distance of initial learnt thresholds from the ends of their range, where logits are infinite

Numbers = float | Sequence[float] | torch.Tensor


class RozenbergLoss(torch.nn.Module):
    """Bounds on the number of positive patches: Eq. 12, or the first pass of Eq. 5 to 8.

    With patch scores `z_i = σ(logit_i)`, the patches b inside a box, the patches b̄ outside, and a = 1 for pairs of
    image and class that have a box, for every class k::

        Eq. 9   L_ann = ReLU(τ·|b| − Σ_{i∈b} z_i) / |b| + ReLU(Σ_{i∈b̄} z_i − ρ·|b̄|) / |b̄|         with a box
        Eq. 11  L_un  = y · ReLU(τ̂ − Σ_i z_i) + γ · (1 − y) · ReLU(Σ_i z_i − ρ̂)                     without a box
        Eq. 12  L     = Σ_k λ_ann · a · L_ann + (1 − a) · L_un

    averaged over the images of the batch (Eq. 10 is Eq. 11 without γ). `relaxation="sigmoid"` replaces Eq. 9 and 10 by
    the paper's first formulation, which the paper then rejects because of vanishing gradients::

        Eq. 5   L_ann = −σ(Σ_{i∈b} z_i − τ·|b|) · σ(ρ·|b̄| − Σ_{i∈b̄} z_i)
        Eq. 8   L_un  = −y · σ(Σ_i z_i − τ̂) − γ · (1 − y) · σ(ρ̂ − Σ_i z_i)

    At this point the paper has no γ; γ = 1 gives Eq. 8 as published. a is defined per image *and* class; where it is 1
    the label is not used. In Eq. 9 a term over zero patches (an empty box, or the outside of a box that covers the
    whole map) is 0.

    NaN marks an unknown label; without a box its pair contributes nothing and has a gradient of 0. The average is then
    over the images of the batch that have at least one known class or box.

    γ is the ratio of positive to negative examples in the training data (:func:`positive_to_negative`). It reduces the
    weight of the negatives, which are far more numerous. τ and ρ are fractions of |b| and |b̄|; τ̂ and ρ̂ are numbers
    of patches. With `area_unit="fraction"`, which is not in the paper, Σ_i z_i of Eq. 11 is divided by the number of
    patches, and τ̂ and ρ̂ are fractions of the map.

    The gradient is 0 where a bound is satisfied, including at the kink of the ReLU, and vanishes where σ saturates.

    γ and the thresholds are buffers: they are saved in the state dict and have no gradient. :meth:`set_thresholds`
    changes the thresholds. With `learnt_thresholds` they are parameters: each is the sigmoid of an unconstrained
    parameter, scaled to [0, 1] or [0, number of patches]. Minimising the loss over them then moves τ and τ̂ to 0, ρ to
    1 and ρ̂ to the number of patches, where every term vanishes. The paper does not learn them because of this trivial
    solution.

    Args:
        num_classes: K.
        lambda_ann: λ_ann, the weight of pairs with a box. 70 in the paper.
        gamma: γ, the weight of negatives; one number, or one per class.
        tau: τ, the minimum mean score inside a box; this and the following are one number, or one per class.
        rho: ρ, the maximum mean score outside a box.
        tau_hat: τ̂, the minimum area on a positive image without a box, in `area_unit`.
        rho_hat: ρ̂, the maximum area on a negative image, in `area_unit`.
        area_unit: "patches", as in the paper, or "fraction".
        relaxation: "relu" (Eq. 9 to 12) or "sigmoid" (Eq. 5 and 8).
        learnt_thresholds: None, or the number of patches of the map, which makes the thresholds parameters.

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not match.

    Example:
        >>> criterion = RozenbergLoss(14, gamma=0.0545)
        >>> logits, labels = torch.randn(8, 14, 20, 20), torch.randint(0, 2, (8, 14))
        >>> annotated = torch.zeros(8, 14, dtype=torch.bool)
        >>> region = torch.zeros(8, 14, 20, 20, dtype=torch.bool)
        >>> annotated[0, 3], region[0, 3, 5:10, 5:10] = True, True  # a box of class 3 on image 0
        >>> criterion(logits, labels, annotated, region).shape
        torch.Size([])
    """

    gamma: torch.Tensor  # [K]
    tau: torch.Tensor  # [K]
    rho: torch.Tensor  # [K]
    tau_hat: torch.Tensor  # [K]
    rho_hat: torch.Tensor  # [K]

    def __init__(
        self,
        num_classes: int,
        *,
        lambda_ann: float = 70.0,
        gamma: Numbers = 1.0,
        tau: Numbers = 0.9,
        rho: Numbers = 0.05,
        tau_hat: Numbers = 1.0,
        rho_hat: Numbers = 0.0,
        area_unit: AreaUnit = "patches",
        relaxation: Relaxation = "relu",
        learnt_thresholds: int | None = None,
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, 1)
        check_weight("lambda_ann", lambda_ann)
        choose("area_unit", area_unit, AREA_UNITS)
        choose("relaxation", relaxation, dict.fromkeys(get_args(Relaxation)))
        self.num_classes = num_classes
        self.lambda_ann = lambda_ann
        self.area_unit = area_unit
        self.relaxation = relaxation
        self._greatest = dict.fromkeys(("tau", "rho"), 1.0) | dict.fromkeys(
            ("tau_hat", "rho_hat"), AREA_UNITS[area_unit]
        )
        self.learnt = torch.nn.ParameterDict()
        if learnt_thresholds is not None:
            check_integer("learnt_thresholds", learnt_thresholds, 1)
            for name in ("tau_hat", "rho_hat"):
                self._greatest[name] = float(learnt_thresholds) if area_unit == "patches" else 1.0
            self.learnt.update({name: torch.zeros(num_classes) for name in THRESHOLDS})
        for name in ("gamma", *THRESHOLDS):
            self.register_buffer(name, torch.zeros(num_classes))
        self.set_gamma(gamma)
        self.set_thresholds(tau=tau, rho=rho, tau_hat=tau_hat, rho_hat=rho_hat)

    def set_gamma(self, gamma: Numbers) -> None:
        """Change γ, in place."""
        if isinstance(gamma, int | float | str | None):
            check_weight("gamma", gamma)
        self.gamma.copy_(self._per_class("gamma", gamma, float("inf")))

    def set_thresholds(
        self,
        *,
        tau: Numbers | None = None,
        rho: Numbers | None = None,
        tau_hat: Numbers | None = None,
        rho_hat: Numbers | None = None,
    ) -> None:
        """Change thresholds in place. None keeps the current value. If any value is out of range, nothing changes."""
        given = {"tau": tau, "rho": rho, "tau_hat": tau_hat, "rho_hat": rho_hat}
        checked = {
            name: self._per_class(name, value, self._greatest[name])
            for name, value in given.items()
            if value is not None
        }
        for name, values in checked.items():
            getattr(self, name).copy_(values)
            if name in self.learnt:
                share = (values / self._greatest[name]).clamp(_EDGE, 1 - _EDGE)
                self.learnt[name].data.copy_(torch.logit(share))

    def thresholds(self) -> dict[str, torch.Tensor]:
        """The current τ, ρ, τ̂ and ρ̂, `[K]` each, by argument name."""
        if not self.learnt:
            return {name: getattr(self, name) for name in THRESHOLDS}
        return {name: self._greatest[name] * torch.sigmoid(self.learnt[name]) for name in THRESHOLDS}

    def _per_class(self, name: str, value: Numbers, high: float) -> torch.Tensor:
        values = torch.as_tensor(value, dtype=torch.float32).detach()
        if values.shape not in ((), (self.num_classes,)):
            raise ValueError(f"{name}: expected a number or {self.num_classes} of them, got {list(values.shape)}")
        if not ((values >= 0) & (values <= high) & values.isfinite()).all():
            raise ValueError(f"{name}: expected finite values from 0 to {high:g}, got {values.tolist()}")
        return values.expand(self.num_classes)

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, P, P] of patches
        labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
        annotated: torch.Tensor,  # [B, K] bool: the pair has a box
        region: torch.Tensor,  # [B, K, P, P] bool: the patches of the box
    ) -> torch.Tensor:  # []
        terms = self.terms(logits, labels, annotated, region)
        loss = self.lambda_ann * terms["annotated"] + terms["positive"] + terms["negative"]  # Eq. 12
        return mean_over_images(loss, known_pairs(labels, annotated))

    def terms(
        self,
        logits: torch.Tensor,  # [B, K, P, P]
        labels: torch.Tensor,  # [B, K]
        annotated: torch.Tensor,  # [B, K] bool
        region: torch.Tensor,  # [B, K, P, P] bool
    ) -> dict[str, torch.Tensor]:
        """The terms of Eq. 12 per image and class `[B, K]`: "annotated" (without λ_ann), "positive" and "negative"
        (with γ). All are 0 where the label is unknown and there is no box."""
        check_patch_inputs(logits, labels, annotated, region)
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"logits: expected {self.num_classes} classes, got {logits.shape[1]}")
        sums = region_sums(logits, region)
        dtype = sums.inside.dtype
        t = {name: value.to(dtype) for name, value in self.thresholds().items()}
        area = sums.inside + sums.outside  # Σ_i z_i
        if self.area_unit == "fraction":
            area = area / (sums.inside_count + sums.outside_count).clamp_min(1)
        if self.relaxation == "relu":
            # Eq. 9, each term divided by its number of patches
            too_low_inside = torch.relu(t["tau"] - sums.inside / sums.inside_count.clamp_min(1))
            too_high_outside = torch.relu(sums.outside / sums.outside_count.clamp_min(1) - t["rho"])
            loss_annotated = (sums.inside_count > 0) * too_low_inside + too_high_outside
            loss_positive = torch.relu(t["tau_hat"] - area)  # Eq. 11, positive image: a minimum area, anywhere
            loss_negative = torch.relu(area - t["rho_hat"])  # Eq. 11, negative image
        else:
            enough_inside = torch.sigmoid(sums.inside - t["tau"] * sums.inside_count)
            little_outside = torch.sigmoid(t["rho"] * sums.outside_count - sums.outside)
            loss_annotated = -enough_inside * little_outside  # Eq. 5
            loss_positive = -torch.sigmoid(area - t["tau_hat"])  # Eq. 6
            loss_negative = -torch.sigmoid(t["rho_hat"] - area)  # Eq. 7
        a, (y, known) = annotated.to(dtype), split_labels(labels, dtype)
        absent = 1 - y if known is None else (1 - y) * known
        return {
            "annotated": a * loss_annotated,
            "positive": (1 - a) * y * loss_positive,
            "negative": (1 - a) * self.gamma.to(dtype) * absent * loss_negative,
        }

    def extra_repr(self) -> str:
        values = ", ".join(f"{name}={value.tolist()}" for name, value in self.thresholds().items())
        return (
            f"{self.num_classes}, lambda_ann={self.lambda_ann}, gamma={self.gamma.tolist()}, "
            f"area_unit={self.area_unit!r}, relaxation={self.relaxation!r}, {values}"
        )


def positive_to_negative(
    labels: torch.Tensor,  # [N, K] 0 or 1, NaN where unknown; of the training images
    class_names: Sequence[str],
    *,
    per_class: bool = False,
) -> torch.Tensor:  # [K]
    """γ of Eq. 11: the number of positive examples divided by the number of negative ones.

    An example is a pair of image and class. NaN marks an unknown label, which is no example of either kind. By default
    there is one ratio over all pairs, returned for every class (0.0545 on ChestX-ray14 with the labels of 2017). With
    `per_class` each class has its own ratio (0.0020 to 0.216).

    Raises:
        ValueError: a ratio is 0, infinite or undefined, because there is no positive or no negative example.

    Example:
        >>> labels = torch.tensor([[1, 0], [0, 0], [0, 0], [0, 1]])
        >>> positive_to_negative(labels, ["Mass", "Nodule"], per_class=True).tolist()
        [0.3333..., 0.3333...]
    """
    positive, negative = (kind.double().sum(dim=0) for kind in (labels > 0.5, labels <= 0.5))  # NaN is neither
    if not per_class:
        positive, negative = (count.sum().expand(len(class_names)) for count in (positive, negative))
    for name, p, n in zip(class_names, positive.tolist(), negative.tolist(), strict=True):
        if p == 0 or n == 0:
            what, ratio = ("negative", "infinite") if p else ("positive", 0) if n else ("known", "undefined")
            where = f"of {name} " if per_class else ""
            raise ValueError(
                f"gamma: there is no {what} example {where}among {len(labels)} training images, so that the ratio of "
                f"positive to negative examples is {ratio}"
            )
    return (positive / negative).float()
