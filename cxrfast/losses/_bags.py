"""Base class of the losses over bags of instances: input validation, pooling, and the bag loss."""

import torch
import torch.nn.functional as F

from cxrfast.losses.unknown import masked_cross_entropy, mean_of_known, split_labels
from cxrfast.ops import mil_pool, mil_pool_ragged
from cxrfast.ops._mask import accumulate_dtype, mask_rows
from cxrfast.ops._validation import check_floating, check_shape, choose
from cxrfast.ops.mil_pool import MODES, MILPoolMode, check_sharpness


class ModePool(torch.nn.Module):
    """:func:`cxrfast.ops.mil_pool` with a fixed mode and sharpness. It has no buffers, so it works on any device."""

    def __init__(self, mode: MILPoolMode, sharpness: float | None = None) -> None:
        super().__init__()
        default = choose("pool", mode, MODES).sharpness
        if sharpness is not None and default is None:
            raise ValueError(f"sharpness: expected None, because pool {mode!r} has none, got {sharpness!r}")
        if sharpness is not None:
            check_sharpness(sharpness)
        self.mode, self.sharpness = mode, sharpness

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        mask: torch.Tensor | None = None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> torch.Tensor:  # [B, K]
        if offsets is None:
            return mil_pool(logits, self.mode, sharpness=self.sharpness, mask=mask)
        return mil_pool_ragged(logits, offsets, self.mode, sharpness=self.sharpness)

    def extra_repr(self) -> str:
        return repr(self.mode) + (f", sharpness={self.sharpness}" if self.sharpness is not None else "")


class BagLossBase(torch.nn.Module):
    """A loss over bags: validates its inputs and pools. Subclasses define the terms of the loss and their sum."""

    def __init__(self, pool: MILPoolMode | torch.nn.Module, sharpness: float | None = None) -> None:
        super().__init__()
        if isinstance(pool, torch.nn.Module):
            if sharpness is not None:
                raise ValueError("sharpness: expected None, because pool is a module, which has its own")
            self.pool = pool
        elif isinstance(pool, str):
            self.pool = ModePool(pool, sharpness)
        else:
            raise TypeError(f"pool: expected the name of a mode or a torch.nn.Module, got {pool!r}")

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
        *,
        mask: torch.Tensor | None = None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> torch.Tensor:  # []
        return self.total(self.terms(logits, labels, mask=mask, offsets=offsets))

    def terms(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The unweighted terms by name, as listed in the class docstring. The arguments are those of `forward`."""
        x, y, known = self.checked(logits, labels, mask, offsets)
        return self.parts(x, y, known, mask, offsets)

    def parts(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] of logits' dtype, 0 where unknown
        known: torch.Tensor | None,  # [B, K] bool; None: all
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:  # []
        """The loss from its terms. Not used by a subclass that overrides `forward`."""
        raise NotImplementedError

    def checked(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        labels: torch.Tensor,  # [B, K] 0 or 1, NaN where unknown
        mask: torch.Tensor | None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None,  # [B + 1] int64
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Logits and labels in the accumulation dtype, and which labels are known, as for :meth:`parts`.

        Raises TypeError or ValueError if the inputs do not match.
        """
        check_floating("logits", logits)
        if offsets is not None:
            check_shape("logits", logits, "[N, K] with offsets", 2)
            if mask is not None:
                raise ValueError("mask: expected None, because offsets are given and define the bags")
        elif logits.dim() < 3:
            raise ValueError(f"logits: expected [B, K, *] with instance dimensions, got shape {tuple(logits.shape)}")
        shape = [logits.shape[0] if offsets is None else offsets.shape[0] - 1, logits.shape[1]]
        if list(labels.shape) != shape:
            raise ValueError(f"labels: expected {shape}, got {list(labels.shape)}")
        dtype = accumulate_dtype(logits.dtype)
        return logits.to(dtype), *split_labels(labels, dtype)

    def pooled(
        self, logits: torch.Tensor, mask: torch.Tensor | None, offsets: torch.Tensor | None
    ) -> torch.Tensor:  # [B, K]
        """The bags' logits. `mask` and `offsets` are passed to the pooling module only if they are given."""
        if offsets is not None:
            return self.pool(logits, offsets=offsets)
        return self.pool(logits) if mask is None else self.pool(logits, mask=mask)

    def bag_loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        known: torch.Tensor | None,
        mask: torch.Tensor | None,
        offsets: torch.Tensor | None,
    ) -> torch.Tensor:  # []
        """Seibold et al. 2020, Eq. 4."""
        return mean_bce(self.pooled(logits, mask, offsets), labels, present_bags(logits, mask, offsets), known)


def present_bags(
    logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
    mask: torch.Tensor | None,
    offsets: torch.Tensor | None,
) -> torch.Tensor | None:  # [B, K] bool, or broadcastable to it; None: all
    """True for bags with at least one instance."""
    if offsets is not None:
        return (offsets.diff() > 0)[:, None]
    if mask is not None:
        return mask_rows(mask, logits).any(2)
    return None if logits.shape[2:].numel() else torch.zeros((), dtype=torch.bool, device=logits.device)


def mean_bce(
    bag_logits: torch.Tensor,  # [B, K]
    targets: torch.Tensor,  # [B, K] in [0, 1]
    present: torch.Tensor | None,  # [B, K] bool, or broadcastable to it; None: all
    known: torch.Tensor | None,  # [B, K] bool, or broadcastable to it; None: all
) -> torch.Tensor:  # []
    """The binary cross-entropy, averaged over the pairs with a known label of bags that have instances."""
    if present is None:
        loss = masked_cross_entropy(bag_logits, targets, known, "mean" if targets.numel() else "sum")
        return mean_of_known(loss, known)
    present = counted(targets, present, known)
    loss = F.binary_cross_entropy_with_logits(torch.where(present, bag_logits, 0), targets, reduction="none")
    return torch.where(present, loss, 0).sum() / present.sum().clamp(min=1)


def counted(
    pairs: torch.Tensor,  # any shape
    present: torch.Tensor | None,  # bool, broadcastable to pairs; None: all
    known: torch.Tensor | None,  # bool, broadcastable to pairs; None: all
) -> torch.Tensor:  # bool, of the shape of pairs
    """True for the pairs with a known label whose bag has instances."""
    kept = torch.ones_like(pairs, dtype=torch.bool) if present is None else present.expand_as(pairs)
    return kept if known is None else kept & known
