"""The loss of Wang et al. 2017, "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks"."""

import torch
import torch.nn.functional as F

from cxrfast.losses._inputs import check_labels
from cxrfast.losses.unknown import split_labels


class WeightedBCE(torch.nn.Module):
    """Eq. 1 (W-CEL): cross-entropy in which the positive and the negative labels of a batch have the same total weight.

    With P and N the positive and the negative pairs of image and class in the batch, over all classes::

        L = β_P Σ_{P} −log σ(logit) + β_N Σ_{N} −log(1 − σ(logit)),
        β_P = (|P| + |N|) / |P|,   β_N = (|P| + |N|) / |N|

    Here L is divided by |P| + |N|, so that its scale does not depend on the batch size. The result is the mean over the
    positive pairs plus the mean over the negative pairs. If there are no positive (or negative) pairs, that mean is 0.

    NaN marks an unknown label; its pair is in neither P nor N and has a gradient of 0.

    Raises:
        TypeError, ValueError: in a call, shapes or dtypes that do not match.

    Example:
        >>> WeightedBCE()(torch.zeros(4, 14), torch.randint(0, 2, (4, 14))).shape
        torch.Size([])
    """

    def forward(
        self,
        logits: torch.Tensor,  # [B, K]
        labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
    ) -> torch.Tensor:  # []
        check_labels(logits, labels)
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        labels, known = split_labels(labels, logits.dtype)
        positive = (labels > 0.5).to(logits.dtype)
        negative = 1 - positive
        if known is not None:
            logits, negative = torch.where(known, logits, 0), negative * known
        missed = (positive * F.softplus(-logits, threshold=50)).sum() / positive.sum().clamp_min(1)
        false = (negative * F.softplus(logits, threshold=50)).sum() / negative.sum().clamp_min(1)
        return missed + false
