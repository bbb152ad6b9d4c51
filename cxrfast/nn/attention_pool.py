"""Attention-based multiple-instance pooling."""

from typing import TYPE_CHECKING

import torch

from cxrfast.ops._validation import check_floating, check_integer, check_offsets, check_shape


class AttentionPool(torch.nn.Module):
    """The features of a bag as a weighted average of its instances' features, with weights computed by a small
    attention network (Ilse, Tomczak & Welling 2018)::

        Eq. 7   z   = Σ_j a_j h_j
        Eq. 8   a_j = softmax over the bag of  wᵀ tanh(V h_j)                  plain
        Eq. 9   a_j = softmax over the bag of  wᵀ (tanh(V h_j) ⊙ σ(U h_j))     gated=True

    V, U and w have biases, as in the published code. A bag without instances has features and weights of 0. To pool
    logits instead of features, use :class:`cxrfast.nn.MILPool` or :class:`cxrfast.nn.AutoPool`.

    Args:
        in_features: F.
        hidden: number of rows of V and U.
        gated: Eq. 9 instead of Eq. 8.
        num_classes: K. If it is larger than 1, every class has its own weights and pooled features.

    Shape: features `[B, N, F]` and optionally a boolean mask `[B, N]`, true for instances that belong to the bag
    → pooled features `[B, F]` and weights `[B, N]`. Or features `[N, F]` of all bags and `offsets=[B + 1]` as in
    :func:`cxrfast.ops.mil_pool_ragged` → `[B, F]` and `[N]`. With several classes the pooled features are `[B, K, F]`
    and the weights `[B, K, N]` or `[N, K]`.

    Raises:
        TypeError, ValueError: options out of range; in a call, shapes or dtypes that do not match.

    Example:
        >>> pool = AttentionPool(in_features=32, gated=True)
        >>> pooled, weights = pool(torch.randn(4, 10, 32))  # 4 bags of 10 instances
        >>> pooled.shape, weights.shape
        (torch.Size([4, 32]), torch.Size([4, 10]))
    """

    def __init__(self, in_features: int, hidden: int = 128, gated: bool = False, num_classes: int = 1) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("hidden", hidden), ("num_classes", num_classes)):
            check_integer(name, value, 1)
        self.in_features = in_features
        self.num_classes = num_classes
        self.V = torch.nn.Linear(in_features, hidden)
        self.U = torch.nn.Linear(in_features, hidden) if gated else None
        self.w = torch.nn.Linear(hidden, num_classes)

    def forward(
        self,
        features: torch.Tensor,  # [B, N, F], or [N, F] with offsets
        mask: torch.Tensor | None = None,  # [B, N] bool
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._check(features, mask, offsets)
        hidden = torch.tanh(self.V(features))
        if self.U is not None:
            hidden = hidden * torch.sigmoid(self.U(features))
        scores = self.w(hidden)  # [B, N, K] or [N, K]
        if offsets is not None:
            pooled, weights = _ragged_average(features, scores, offsets)
            return (pooled[:, 0], weights[:, 0]) if self.num_classes == 1 else (pooled, weights)
        weights = _masked_softmax(scores.movedim(2, 1), mask)  # [B, K, N]
        if mask is not None:
            features = torch.where(mask[..., None], features, 0)  # so that NaN in the padding has no effect
        pooled = weights @ features
        return (pooled[:, 0], weights[:, 0]) if self.num_classes == 1 else (pooled, weights)

    if TYPE_CHECKING:  # a call of nn.Module returns Any
        __call__ = forward

    def _check(self, features: torch.Tensor, mask: torch.Tensor | None, offsets: torch.Tensor | None) -> None:
        check_floating("features", features)
        expected, dims = ("[N, F] with offsets", 2) if offsets is not None else ("[B, N, F]", 3)
        check_shape("features", features, expected, dims)
        if features.shape[-1] != self.in_features:
            raise ValueError(f"features: expected {self.in_features} channels, got shape {tuple(features.shape)}")
        if offsets is not None:
            check_offsets(offsets, "features", features)
            if mask is not None:
                raise ValueError("mask: expected None, because offsets are given and define the bags")
        elif mask is not None:
            if mask.dtype != torch.bool:
                raise TypeError(f"mask: expected a boolean tensor, got {mask.dtype}")
            if mask.shape != features.shape[:2]:
                raise ValueError(f"mask: expected {list(features.shape[:2])}, got {list(mask.shape)}")

    def extra_repr(self) -> str:
        return f"gated={self.U is not None}"


def _masked_softmax(
    scores: torch.Tensor,  # [B, K, N]
    mask: torch.Tensor | None,  # [B, N] bool
) -> torch.Tensor:  # [B, K, N]; 0 for a bag without instances
    if mask is None:
        return scores.softmax(2)
    present = mask[:, None]
    weights = torch.where(present, scores, torch.finfo(scores.dtype).min).softmax(2)
    return torch.where(present, weights, 0)


def _ragged_average(
    features: torch.Tensor,  # [N, F]
    scores: torch.Tensor,  # [N, K]
    offsets: torch.Tensor,  # [B + 1] int64
) -> tuple[torch.Tensor, torch.Tensor]:  # [B, K, F], [N, K]
    sizes = offsets.diff()
    bags, classes = sizes.shape[0], scores.shape[1]
    bag = torch.arange(bags, device=sizes.device).repeat_interleave(sizes, output_size=features.shape[0])  # [N]
    index = bag[:, None].expand_as(scores)
    most = scores.detach().new_full((bags, classes), -torch.inf).scatter_reduce(0, index, scores.detach(), "amax")
    shares = (scores - most[bag]).exp()
    weights = shares / shares.new_zeros(bags, classes).index_add(0, bag, shares)[bag]
    weighted = weights[:, :, None] * features[:, None]  # [N, K, F]
    return weighted.new_zeros(bags, *weighted.shape[1:]).index_add(0, bag, weighted), weights
