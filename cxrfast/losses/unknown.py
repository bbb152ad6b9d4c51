"""Unknown labels: NaN in a tensor of labels marks a pair of image and class whose label is not known.

Such a pair contributes neither to a sum nor to the denominator of a mean, and its gradient is 0. The losses of this
package use the functions below. If all labels are known, the results equal those of the plain formula to the bit,
because the masks multiply by 1.
"""

import torch
import torch.nn.functional as F

from cxrfast.losses._inputs import check_labels


def binary_cross_entropy(
    logits: torch.Tensor,  # [B, K]
    labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
) -> torch.Tensor:  # []
    """The mean of ``−y·log σ(logit) − (1 − y)·log(1 − σ(logit))`` over the pairs of image and class that are known.

    NaN marks an unknown label; its pair contributes neither to the sum nor to the number of pairs, and has a gradient
    of 0. If every label is unknown, the loss is 0 and can still be differentiated. Labels may be boolean or integers.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not match.

    Example:
        >>> logits, labels = torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, torch.nan]])
        >>> binary_cross_entropy(logits, labels).item()  # log 2: the second class is left out
        0.693147...
    """
    check_labels(logits, labels)
    targets, known = split_labels(labels, logits.dtype)
    return mean_of_known(masked_cross_entropy(logits, targets, known, "mean" if labels.numel() else "sum"), known)


def split_labels(
    labels: torch.Tensor,  # any shape
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Labels with NaN replaced by 0, and a mask that is true where they are known.

    The mask is None for boolean and integer labels, which cannot be NaN. Floating-point labels
    always have a mask, because testing them for NaN would make the host wait for the GPU.
    """
    if not labels.is_floating_point():
        return labels.to(dtype), None
    known = ~labels.isnan()
    return torch.where(known, labels, 0).to(dtype), known


def known_pairs(
    labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
    annotated: torch.Tensor,  # [B, K] bool
) -> torch.Tensor | None:  # [B, K] bool; None: all
    """The pairs with a known label or a box, which makes the label known."""
    return ~labels.isnan() | annotated if labels.is_floating_point() else None


def masked_cross_entropy(
    logits: torch.Tensor,  # any shape
    targets: torch.Tensor,  # broadcastable to logits, without NaN
    known: torch.Tensor | None,  # bool, broadcastable to logits; None: all
    reduction: str,
) -> torch.Tensor:
    """Binary cross-entropy, 0 where the label is unknown. Its mean is over all entries; see :func:`mean_of_known`."""
    if known is None:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction=reduction)
    logits = torch.where(known, logits, 0)  # an infinite logit times a weight of 0 is NaN
    return F.binary_cross_entropy_with_logits(logits, targets, weight=known.to(logits.dtype), reduction=reduction)


def mean_over_images(
    loss: torch.Tensor,  # [B, K], 0 where unknown
    known: torch.Tensor | None = None,  # [B, K] bool; None: all
) -> torch.Tensor:  # []
    """The loss summed over classes and averaged over the images with at least one known class; 0 if there are none."""
    mean = loss.sum() / max(loss.shape[0], 1)
    return mean if known is None else mean_of_known(mean, known.any(dim=1))


def mean_of_known(
    mean: torch.Tensor,  # [] over all entries, of which the unknown ones are 0
    known: torch.Tensor | None,  # bool; None: all
) -> torch.Tensor:  # []
    """The mean over the known entries, from the mean over all entries; 0 if none is known.

    The factor is exactly 1 if all are known. (To divide a sum by the number of known entries would round the gradient
    differently from a plain mean.)
    """
    if known is None:
        return mean
    count = known.sum().to(mean.dtype).clamp(min=1)
    return mean * (torch.full_like(count, known.numel()) / count)
