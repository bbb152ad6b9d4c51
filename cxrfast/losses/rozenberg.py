"""The loss of Rozenberg, Freedman and Bronstein 2019, "Localization with Limited Annotation for Chest X-rays"."""

from collections.abc import Sequence

import torch

from cxrfast.losses._inputs import check_patch_inputs, check_weight, mean_over_images
from cxrfast.ops import region_sums
from cxrfast.ops._validation import check_integer, choose

AREA_UNITS = {"patches": float("inf"), "fraction": 1.0}  # and the greatest area in it

Threshold = float | Sequence[float] | torch.Tensor


class RozenbergLoss(torch.nn.Module):
    """Eq. 12: bounds on areas of positive patches, each a ReLU that is silent once its bound is kept.

    With patch scores `z_i = σ(logit_i)`, the patches b of a box, the others b̄, and a = 1 for the pairs of image and
    class that have a box, for every class k::

        Eq. 9   L_ann = ReLU(τ − 1/|b| Σ_{i∈b} z_i) + γ · ReLU(1/|b̄| Σ_{i∈b̄} z_i − ρ)      there is a box
        Eq. 10  L_pos = ReLU(τ̂ − Σ_i z_i)                                                  positive, without a box
        Eq. 11  L_neg = ReLU(Σ_i z_i − ρ̂)                                                  negative
        Eq. 12  L     = Σ_k λ_ann · a · L_ann + (1 − a) · [y · L_pos + (1 − y) · L_neg]

    averaged over the images of the batch. a is per image *and* class; where it is 1 the label is not asked.

    Mind the scales: τ and ρ bound a mean of z, in [0, 1]; τ̂ and ρ̂ bound an area, a sum of z over the map, in patches.
    On 20×20 patches L_neg can reach 400, L_ann no more than 1 + γ. `area_unit="fraction"` divides the areas of Eq. 10
    and 11 by the number of patches; τ̂ and ρ̂ are then fractions of the map. `cxrfast train` uses that, with
    τ̂ = 1/P²: in patches the negatives outweigh the boxes, and all scores may collapse to zero.

    A ReLU's gradient at its kink is 0, as it is where a bound is kept, and z·(1 − z) vanishes where σ saturates. A term
    over no patches (an empty box; the outside of a box that covers the whole map) is 0.

    The thresholds are buffers: they never receive a gradient (minimising L over them is degenerate), travel with the
    state dict, and are changed by :meth:`set_thresholds`.

    Args:
        num_classes: K.
        lambda_ann: λ_ann, the weight of the pairs with a box. 70 in the paper.
        gamma: γ, the weight of the patches outside a box.
        tau: τ, the least mean score inside a box; a number or one per class, as the following.
        rho: ρ, the greatest mean score outside a box.
        tau_hat: τ̂, the least area on a positive image without a box, in `area_unit`.
        rho_hat: ρ̂, the greatest area on a negative image, in `area_unit`.
        area_unit: "patches" or "fraction".

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not fit.
    """

    tau: torch.Tensor  # [K]
    rho: torch.Tensor  # [K]
    tau_hat: torch.Tensor  # [K]
    rho_hat: torch.Tensor  # [K]

    def __init__(
        self,
        num_classes: int,
        *,
        lambda_ann: float = 70.0,
        gamma: float = 1.0,
        tau: Threshold = 0.9,
        rho: Threshold = 0.05,
        tau_hat: Threshold = 1.0,
        rho_hat: Threshold = 0.0,
        area_unit: str = "patches",
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, 1)
        check_weight("lambda_ann", lambda_ann)
        check_weight("gamma", gamma)
        choose("area_unit", area_unit, AREA_UNITS)
        self.num_classes = num_classes
        self.lambda_ann = lambda_ann
        self.gamma = gamma
        self.area_unit = area_unit
        for name in ("tau", "rho", "tau_hat", "rho_hat"):
            self.register_buffer(name, torch.zeros(num_classes))
        self.set_thresholds(tau=tau, rho=rho, tau_hat=tau_hat, rho_hat=rho_hat)

    def set_thresholds(
        self,
        *,
        tau: Threshold | None = None,
        rho: Threshold | None = None,
        tau_hat: Threshold | None = None,
        rho_hat: Threshold | None = None,
    ) -> None:
        """Change the given thresholds, in place; None keeps one. Nothing changes if any of them is out of range."""
        area = AREA_UNITS[self.area_unit]
        checked = [
            (name, self._threshold(name, value, high))
            for name, value, high in (
                ("tau", tau, 1.0),
                ("rho", rho, 1.0),
                ("tau_hat", tau_hat, area),
                ("rho_hat", rho_hat, area),
            )
            if value is not None
        ]
        for name, values in checked:
            getattr(self, name).copy_(values)

    def _threshold(self, name: str, value: Threshold, high: float) -> torch.Tensor:
        values = torch.as_tensor(value, dtype=torch.float32).detach()
        if values.shape not in ((), (self.num_classes,)):
            raise ValueError(f"{name}: expected a number or {self.num_classes} of them, got {list(values.shape)}")
        if not ((values >= 0) & (values <= high) & values.isfinite()).all():
            raise ValueError(f"{name}: expected finite values from 0 to {high:g}, got {values.tolist()}")
        return values.expand(self.num_classes)

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, P, P] of patches
        labels: torch.Tensor,  # [B, K] 0 or 1
        annotated: torch.Tensor,  # [B, K] bool: the pair has a box
        region: torch.Tensor,  # [B, K, P, P] bool: the patches of the box
    ) -> torch.Tensor:  # []
        terms = self.terms(logits, labels, annotated, region)
        return mean_over_images(self.lambda_ann * terms["annotated"] + terms["positive"] + terms["negative"])  # Eq. 12

    def terms(
        self,
        logits: torch.Tensor,  # [B, K, P, P]
        labels: torch.Tensor,  # [B, K]
        annotated: torch.Tensor,  # [B, K] bool
        region: torch.Tensor,  # [B, K, P, P] bool
    ) -> dict[str, torch.Tensor]:
        """The three summands of Eq. 12 per image and class `[B, K]`, without λ_ann: "annotated", "positive",
        "negative"."""
        check_patch_inputs(logits, labels, annotated, region)
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"logits: expected {self.num_classes} classes, got {logits.shape[1]}")
        sums = region_sums(logits, region)
        tau, rho, tau_hat, rho_hat = (t.to(sums.inside.dtype) for t in (self.tau, self.rho, self.tau_hat, self.rho_hat))

        # Eq. 9: inside a box the mean score is at least τ, outside it is at most ρ.
        too_low_inside = torch.relu(tau - sums.inside / sums.inside_count.clamp_min(1))
        too_high_outside = torch.relu(sums.outside / sums.outside_count.clamp_min(1) - rho)
        loss_annotated = (sums.inside_count > 0) * too_low_inside + self.gamma * too_high_outside

        area = sums.inside + sums.outside  # Σ_i z_i
        if self.area_unit == "fraction":
            area = area / (sums.inside_count + sums.outside_count).clamp_min(1)
        loss_positive = torch.relu(tau_hat - area)  # Eq. 10: somewhere, but where is not known
        loss_negative = torch.relu(area - rho_hat)  # Eq. 11: nowhere

        a, y = annotated.to(area.dtype), labels.to(area.dtype)
        return {  # Eq. 12
            "annotated": a * loss_annotated,
            "positive": (1 - a) * y * loss_positive,
            "negative": (1 - a) * (1 - y) * loss_negative,
        }

    def extra_repr(self) -> str:
        return (
            f"{self.num_classes}, lambda_ann={self.lambda_ann}, gamma={self.gamma}, area_unit={self.area_unit!r}, "
            f"tau={self.tau.tolist()}, rho={self.rho.tolist()}, "
            f"tau_hat={self.tau_hat.tolist()}, rho_hat={self.rho_hat.tolist()}"
        )
