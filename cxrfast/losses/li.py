"""The loss of Li et al. 2018, "Thoracic Disease Identification and Localization with Limited Supervision"."""

import math

import torch
import torch.nn.functional as F

from cxrfast.losses._inputs import check_patch_inputs, check_weight
from cxrfast.losses.unknown import known_pairs, mean_over_images, split_labels
from cxrfast.ops import box_log_likelihood, mil_pool
from cxrfast.ops.region_loss import check_floor


class LiLoss(torch.nn.Module):
    """Eq. 3: the likelihood of the box's patches for pairs with a box, and noisy-OR over all patches for pairs without.

    With patch probabilities `p_j = σ(logit_j)`, and η = 1 for pairs of image and class that have a box::

        Eq. 1   p(y | x, box) = Π_{j∈box} p_j · Π_{j∉box} (1 − p_j)
        Eq. 2   p(y | x)      = 1 − Π_j (1 − p_j)
        Eq. 3   L = Σ_k −λ_bbox · η · p*(y=1) · log p(y | x, box)
                        − (1 − η) · p*(y=1) · log p(y | x)
                        − (1 − η) · p*(y=0) · log(1 − p(y | x))

    The loss is summed over classes and averaged over the images of the batch. Products are computed as sums of
    logarithms, and the noisy-OR as a logit, so nothing underflows. A box implies a positive label: where η = 1, p*(y=1)
    is 1 regardless of the label (188 boxes of ChestX-ray14 have a class that is not among the image's labels).

    NaN marks an unknown label; without a box its pair contributes nothing and has a gradient of 0. The average is then
    over the images of the batch that have at least one known class or box.

    Args:
        lambda_box: λ_bbox, the weight of pairs with a box. 5 in the paper.
        floor: the paper's rescaling against underflow: p and 1 − p are mapped from [0, 1] to [floor, 1] before they are
            multiplied, in Eq. 1 and in the product of Eq. 2. 0.98 in the paper. The default, 0, means no rescaling.

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not match.

    Example:
        >>> logits, labels = torch.randn(8, 14, 20, 20), torch.randint(0, 2, (8, 14))
        >>> annotated = torch.zeros(8, 14, dtype=torch.bool)
        >>> region = torch.zeros(8, 14, 20, 20, dtype=torch.bool)
        >>> annotated[0, 3], region[0, 3, 5:10, 5:10] = True, True  # a box of class 3 on image 0
        >>> LiLoss()(logits, labels, annotated, region).shape
        torch.Size([])
    """

    def __init__(self, lambda_box: float = 5.0, floor: float = 0.0) -> None:
        super().__init__()
        check_weight("lambda_box", lambda_box)
        check_floor(floor)
        self.lambda_box = lambda_box
        self.floor = floor

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, P, P] of patches
        labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
        annotated: torch.Tensor,  # [B, K] bool: the pair has a box
        region: torch.Tensor,  # [B, K, P, P] bool: the patches of the box
    ) -> torch.Tensor:  # []
        terms = self.terms(logits, labels, annotated, region)
        loss = self.lambda_box * terms["box"] + terms["positive"] + terms["negative"]
        return mean_over_images(loss, known_pairs(labels, annotated))

    def terms(
        self,
        logits: torch.Tensor,  # [B, K, P, P]
        labels: torch.Tensor,  # [B, K]
        annotated: torch.Tensor,  # [B, K] bool
        region: torch.Tensor,  # [B, K, P, P] bool
    ) -> dict[str, torch.Tensor]:
        """The three terms of Eq. 3 per image and class `[B, K]`, without λ_bbox: "box", "positive", "negative".
        All are 0 where the label is unknown and there is no box."""
        check_patch_inputs(logits, labels, annotated, region)
        log_likelihood = box_log_likelihood(logits, region, floor=self.floor)  # Eq. 1
        eta = annotated.to(log_likelihood.dtype)
        label, known = split_labels(labels, log_likelihood.dtype)
        absent = 1 - label if known is None else (1 - label) * known
        bag = self._bag_logits(logits.to(log_likelihood.dtype))  # Eq. 2
        return {  # Eq. 3
            "box": -eta * log_likelihood,
            "positive": (1 - eta) * label * F.softplus(-bag, threshold=50),  # −log p(y | x)
            "negative": (1 - eta) * absent * F.softplus(bag, threshold=50),  # −log(1 − p(y | x))
        }

    def _bag_logits(self, logits: torch.Tensor) -> torch.Tensor:  # [B, K, P, P] -> [B, K]
        """The logit of Eq. 2.

        The rescaling maps 1 − p to floor + (1 − floor)(1 − p) = 1 − (1 − floor)·p. The result is therefore the noisy-OR
        of patches with probability (1 − floor)·p, whose logit is log(1 − floor) − log(floor + e^−x).
        """
        if self.floor > 0:
            log_floor = logits.new_tensor(math.log(self.floor))
            logits = math.log1p(-self.floor) - torch.logaddexp(log_floor, -logits)
        return mil_pool(logits, "noisy_or")

    def extra_repr(self) -> str:
        return f"lambda_box={self.lambda_box}, floor={self.floor}"
