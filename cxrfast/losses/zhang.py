"""The triplet loss of Zhang et al. 2020, "Thoracic Disease Identification and Localization using Distance Learning and
Region Verification"."""

import torch

from cxrfast.losses._inputs import check_weight
from cxrfast.ops._validation import check_floating, check_same, check_shape


class TripletLoss(torch.nn.Module):
    """Eq. 4 and 5: a triplet loss in feature space, with images that share a disease as positives.

    With features `f`, an anchor `x`, a positive `x⁺` that shares a label with it and a negative `x⁻` that shares none,
    over the triplets of Eq. 3::

        Eq. 4   l(x, x⁺, x⁻) = [‖f(x) − f(x⁺)‖ − ‖f(x) − f(x⁻)‖ + m]₊
        Eq. 5   L            = Σ l(x, x⁺, x⁻)

    Here the sum is replaced by the mean over the batch, so that the scale does not depend on the batch size. The
    distances are L2 norms, not squared. The gradient of a norm has length 1 for any distance above 0, and is defined as
    0 for equal features. The gradient of the hinge is 0 at its kink.

    Args:
        margin: m.

    Shape: anchor, positive and negative features `[B, D]` of the same floating dtype; half precision is computed in
    float32. The result is a scalar in float32 (float64 for float64 features), 0 for an empty batch.

    Raises:
        TypeError, ValueError: margin out of range; in a call, shapes or dtypes that do not match.

    Example:
        >>> anchor = torch.tensor([[0.0, 0.0]])
        >>> positive, negative = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
        >>> TripletLoss(margin=0.5)(anchor, positive, negative).item()  # 5 − 2 + 0.5
        3.5
    """

    def __init__(self, margin: float = 0.5) -> None:
        super().__init__()
        check_weight("margin", margin)
        self.margin = margin

    def forward(
        self,
        anchor: torch.Tensor,  # [B, D]
        positive: torch.Tensor,  # [B, D]
        negative: torch.Tensor,  # [B, D]
    ) -> torch.Tensor:  # []
        check_floating("anchor", anchor)
        check_shape("anchor", anchor, "[B, D]", 2)
        for name, features in (("positive", positive), ("negative", negative)):
            check_floating(name, features)
            check_same(name, features, "anchor", anchor)
            if features.shape != anchor.shape:
                raise ValueError(f"{name}: expected anchor's shape {list(anchor.shape)}, got {list(features.shape)}")
        difference = _distance(anchor, positive) - _distance(anchor, negative)
        return torch.relu(difference + self.margin).sum() / max(anchor.shape[0], 1)  # Eq. 4, the mean of Eq. 5

    def extra_repr(self) -> str:
        return f"margin={self.margin}"


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # [B, D] -> [B]
    """The distances of Eq. 4. At 0, `vector_norm` has the subgradient 0; the square root of a sum of squares has
    NaN."""
    wide = torch.float64 if a.dtype == torch.float64 else torch.float32
    return torch.linalg.vector_norm(a.to(wide) - b.to(wide), dim=1)
