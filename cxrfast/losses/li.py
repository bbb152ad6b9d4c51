"""The loss of Li et al. 2018, "Thoracic Disease Identification and Localization with Limited Supervision"."""

import math

import torch
import torch.nn.functional as F

from cxrfast.losses._inputs import check_patch_inputs, check_weight, mean_over_images
from cxrfast.ops import box_log_likelihood, mil_pool
from cxrfast.ops.region_loss import check_floor


class LiLoss(torch.nn.Module):
    """Eq. 3: patches of a box against all others where there is a box, noisy-OR of all patches where there is none.

    With patch probabilities `p_j = σ(logit_j)`, and η = 1 for the pairs of image and class that have a box::

        Eq. 1   p(y | x, box) = Π_{j∈box} p_j · Π_{j∉box} (1 − p_j)
        Eq. 2   p(y | x)      = 1 − Π_j (1 − p_j)
        Eq. 3   L = Σ_k −λ_bbox · η · p*(y=1) · log p(y | x, box)
                        − (1 − η) · p*(y=1) · log p(y | x)
                        − (1 − η) · p*(y=0) · log(1 − p(y | x))

    summed over classes and averaged over the images of the batch. All products are sums of logarithms, and the noisy-OR
    is pooled as a logit, so nothing underflows. A box implies the finding: where η = 1, p*(y=1) is taken as 1 whatever
    the label says (188 boxes of ChestX-ray14 name a class that the image's labels lack).

    Args:
        lambda_box: λ_bbox, the weight of the pairs with a box. 5 in the paper.
        floor: the paper's rescaling against underflow, 0.98 there: p and 1 − p are mapped from [0, 1] to [floor, 1]
            before they are multiplied, in Eq. 1 and in the product of Eq. 2. 0, the default, rescales nothing.

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not fit.
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
        labels: torch.Tensor,  # [B, K] 0 or 1
        annotated: torch.Tensor,  # [B, K] bool: the pair has a box
        region: torch.Tensor,  # [B, K, P, P] bool: the patches of the box
    ) -> torch.Tensor:  # []
        terms = self.terms(logits, labels, annotated, region)
        return mean_over_images(self.lambda_box * terms["box"] + terms["positive"] + terms["negative"])

    def terms(
        self,
        logits: torch.Tensor,  # [B, K, P, P]
        labels: torch.Tensor,  # [B, K]
        annotated: torch.Tensor,  # [B, K] bool
        region: torch.Tensor,  # [B, K, P, P] bool
    ) -> dict[str, torch.Tensor]:
        """The three summands of Eq. 3 per image and class `[B, K]`, without λ_bbox: "box", "positive", "negative"."""
        check_patch_inputs(logits, labels, annotated, region)
        log_likelihood = box_log_likelihood(logits, region, floor=self.floor)  # Eq. 1
        eta = annotated.to(log_likelihood.dtype)
        label = labels.to(log_likelihood.dtype)
        bag = self._bag_logits(logits.to(log_likelihood.dtype))  # Eq. 2
        return {  # Eq. 3
            "box": -eta * log_likelihood,
            "positive": (1 - eta) * label * F.softplus(-bag, threshold=50),  # −log p(y | x)
            "negative": (1 - eta) * (1 - label) * F.softplus(bag, threshold=50),  # −log(1 − p(y | x))
        }

    def _bag_logits(self, logits: torch.Tensor) -> torch.Tensor:  # [B, K, P, P] -> [B, K]
        """The logit of Eq. 2.

        Where 1 − p is rescaled to floor + (1 − floor)(1 − p) = 1 − (1 − floor)·p, the image is the noisy-OR of patches
        with probability (1 − floor)·p, whose logit is log(1 − floor) − log(floor + e^−x).
        """
        if self.floor > 0:
            log_floor = logits.new_tensor(math.log(self.floor))
            logits = math.log1p(-self.floor) - torch.logaddexp(log_floor, -logits)
        return mil_pool(logits, "noisy_or")

    def extra_repr(self) -> str:
        return f"lambda_box={self.lambda_box}, floor={self.floor}"
