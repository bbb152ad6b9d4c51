"""Fitting the thresholds τ, ρ, τ̂, ρ̂ of Rozenberg's loss on a frozen network.

§4 states that the optimal thresholds are found with the network frozen, but not how. Minimising Eq. 12 over the
thresholds is degenerate, as the paper says: τ = τ̂ = 0, ρ = 1 and ρ̂ = P² make every term zero. We therefore set each
threshold to a quantile of the quantity that it bounds, over the training images that it applies to. With q = 0.75, one
quarter of the images satisfies the new bound and the others are pulled towards it. The bounds become stricter as the
network improves, and are always strict enough for positive patches to have z ≥ 0.5:

    τ  = q-quantile of the mean z inside the boxes of class k                      in [0.6, 0.95]
    ρ  = (1−q)-quantile of the mean z outside them                                 in [0.01, 0.2]
    τ̂  = q-quantile of the area Σz on unannotated positives, at most the
         lower quartile of the class's box areas (or areas could only grow)        at least 1 patch
    ρ̂  = (1−q)-quantile of the area Σz on images without the class                 in [0, 1] patch

An image whose label of the class is unknown (NaN) counts only for τ and ρ, if it has a box. If a class has fewer than
`MINIMUM` images of the kind that a threshold applies to, the threshold is not changed.
"""

from collections.abc import Iterable

import torch

from cxrfast.losses import RozenbergLoss
from cxrfast.ops import region_sums

MINIMUM = 2
TAU_RANGE = (0.6, 0.95)
RHO_RANGE = (0.01, 0.2)


class ThresholdFit:
    """Collects the bounded quantities over a training set, then sets the thresholds of a loss."""

    def __init__(self, num_classes: int, quantile: float, patch_area: float) -> None:
        self.quantile = quantile
        self.patch_area = patch_area  # of one patch, in the loss's unit: 1, or 1 / P²
        self.inside: list[list[torch.Tensor]] = [[] for _ in range(num_classes)]  # mean z inside boxes
        self.outside: list[list[torch.Tensor]] = [[] for _ in range(num_classes)]  # mean z outside boxes
        self.box_area: list[list[torch.Tensor]] = [[] for _ in range(num_classes)]  # |b|
        self.positive_area: list[list[torch.Tensor]] = [[] for _ in range(num_classes)]  # Σz, positive without a box
        self.negative_area: list[list[torch.Tensor]] = [[] for _ in range(num_classes)]  # Σz, negative

    def add(
        self,
        logits: torch.Tensor,  # [B, K, P, P]
        labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
        annotated: torch.Tensor,  # [B, K] bool
        region: torch.Tensor,  # [B, K, P, P] bool
    ) -> None:
        sums = region_sums(logits.float(), region)
        area = (sums.inside + sums.outside) * self.patch_area
        # Without a box, a pair with an unknown label is in neither group.
        positive = (labels > 0.5) & ~annotated
        negative = (labels < 0.5) & ~annotated
        for k in range(len(self.inside)):
            boxed = annotated[:, k]
            self.inside[k].append((sums.inside / sums.inside_count)[boxed, k].cpu())
            self.outside[k].append((sums.outside / sums.outside_count.clamp_min(1))[boxed, k].cpu())
            self.box_area[k].append((sums.inside_count * self.patch_area)[boxed, k].cpu())
            self.positive_area[k].append(area[positive[:, k], k].cpu())
            self.negative_area[k].append(area[negative[:, k], k].cpu())

    def update(self, criterion: RozenbergLoss) -> dict[str, list[float]]:
        """Set the thresholds of the loss in place. Returns them per class for the log."""
        q = self.quantile
        for k in range(len(self.inside)):
            _set(criterion.tau, k, _quantile(self.inside[k], q), *TAU_RANGE)
            _set(criterion.rho, k, _quantile(self.outside[k], 1 - q), *RHO_RANGE)
            small_box = _quantile(self.box_area[k], 0.25) or 0.0
            wanted, allowed = _quantile(self.positive_area[k], q), _quantile(self.negative_area[k], 1 - q)
            _set(criterion.tau_hat, k, wanted, self.patch_area, max(self.patch_area, small_box))
            _set(criterion.rho_hat, k, allowed, 0.0, self.patch_area)
        return {name: getattr(criterion, name).tolist() for name in ("tau", "rho", "tau_hat", "rho_hat")}


def _quantile(parts: Iterable[torch.Tensor], q: float) -> float | None:
    values = torch.cat(list(parts) or [torch.empty(0)])
    return torch.quantile(values.double(), q).item() if len(values) >= MINIMUM else None


def _set(threshold: torch.Tensor, k: int, value: float | None, low: float, high: float) -> None:
    if value is not None:
        threshold[k] = min(max(value, low), high)
