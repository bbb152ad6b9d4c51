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


def certain_triplets(
    anchor: torch.Tensor,  # [B, K] labels 0 or 1, NaN where unknown
    positive: torch.Tensor,  # [B, K]
    negative: torch.Tensor,  # [B, K]
) -> torch.Tensor:  # [B] bool
    """Which triplets of Eq. 3 the known labels confirm; the others do not belong in the loss.

    NaN marks an unknown label. A pair of images is compared only through the classes that are known in both:

    - *similar*: a class is present in both; or neither image has a known finding, and some class is absent in both.
    - *dissimilar*: no class is present in both, and some class is present in one and absent in the other.

    A triplet is confirmed if anchor and positive are similar, and anchor and negative are dissimilar. A pair without an
    unknown label is always accepted: images may share a finding that is not among these K classes.

    Raises:
        ValueError: shapes that differ.

    Example:
        >>> nan = torch.nan
        >>> anchor, positive = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, nan]])
        >>> certain_triplets(anchor, positive, torch.tensor([[0.0, nan]])).item()  # absent there, present in the anchor
        True
        >>> certain_triplets(anchor, positive, torch.tensor([[nan, 1.0]])).item()  # by the second class
        True
        >>> certain_triplets(anchor, positive, torch.tensor([[nan, 0.0]])).item()  # it may have the anchor's finding
        False
    """
    check_shape("anchor", anchor, "[B, K]", 2)
    for name, labels in (("positive", positive), ("negative", negative)):
        if labels.shape != anchor.shape:
            raise ValueError(f"{name}: expected anchor's shape {list(anchor.shape)}, got {list(labels.shape)}")
    similar, _ = _compared(anchor, positive)
    _, dissimilar = _compared(anchor, negative)
    return similar & dissimilar


def _compared(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # [B, K] -> [B] bool
    """Which pairs count as similar, and which as dissimilar, as in :func:`certain_triplets`."""
    certain = ~(a.isnan() | b.isnan()).any(dim=1)
    present, absent = (a > 0.5, b > 0.5), (a <= 0.5, b <= 0.5)  # both false for NaN
    shared = (present[0] & present[1]).any(dim=1)
    healthy = ~(present[0] | present[1]).any(dim=1) & (absent[0] & absent[1]).any(dim=1)
    differ = (present[0] & absent[1] | absent[0] & present[1]).any(dim=1)
    return certain | shared | healthy, certain | ~shared & differ


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # [B, D] -> [B]
    """The distances of Eq. 4. At 0, `vector_norm` has the subgradient 0; the square root of a sum of squares has
    NaN."""
    wide = torch.float64 if a.dtype == torch.float64 else torch.float32
    return torch.linalg.vector_norm(a.to(wide) - b.to(wide), dim=1)
