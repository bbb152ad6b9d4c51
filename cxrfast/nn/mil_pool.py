"""Multiple-instance pooling as a layer."""

import torch

from cxrfast.ops import mil_pool, mil_pool_ragged
from cxrfast.ops._validation import check_integer, choose
from cxrfast.ops.mil_pool import MODES, check_sharpness


class MILPool(torch.nn.Module):
    """:func:`cxrfast.ops.mil_pool` with its mode and sharpness; a learnable sharpness is auto-pool (McFee et al. 2018).

    Args:
        mode: see :func:`cxrfast.ops.mil_pool`.
        num_classes: K, for one sharpness per class; None shares one among all classes.
        sharpness: its value, or the initial value where it is learnt; None is the mode's default.
        learnable: whether sharpness is a parameter.

    Shape: logits `[B, K, *]` and optionally a mask that broadcasts to them → bag logits `[B, K]`; or logits `[N, K]` of
    all bags and `offsets=[B + 1]`, as :func:`cxrfast.ops.mil_pool_ragged` takes them.

    Raises:
        TypeError, ValueError: as :func:`cxrfast.ops.mil_pool`; also where a mode without sharpness is to learn one.
    """

    sharpness: torch.Tensor | None

    def __init__(
        self,
        mode: str = "noisy_or",
        num_classes: int | None = None,
        sharpness: float | None = None,
        learnable: bool = False,
    ):
        super().__init__()
        default = choose("mode", mode, MODES).sharpness
        if default is None and (learnable or sharpness is not None):
            raise ValueError(f"sharpness: expected None and learnable=False, because mode {mode!r} has no sharpness")
        if num_classes is not None:
            check_integer("num_classes", num_classes, 1)
        self.mode = mode
        self.num_classes = num_classes
        if default is None:
            self.sharpness = None
            return
        value = default if sharpness is None else sharpness
        check_sharpness(value)
        initial = torch.full(() if num_classes is None else (num_classes,), float(value))
        if learnable:
            self.sharpness = torch.nn.Parameter(initial)
        else:
            self.register_buffer("sharpness", initial)

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        mask: torch.Tensor | None = None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> torch.Tensor:  # [B, K]
        if offsets is not None:
            if mask is not None:
                raise ValueError("mask: expected None where there are offsets, which say what every bag holds")
            return mil_pool_ragged(logits, offsets, self.mode, sharpness=self.sharpness)
        return mil_pool(logits, self.mode, sharpness=self.sharpness, mask=mask)

    def extra_repr(self) -> str:
        learnable = isinstance(self.sharpness, torch.nn.Parameter)
        return f"mode={self.mode!r}, num_classes={self.num_classes}, learnable={learnable}"


class AutoPool(MILPool):
    """Auto-pool (McFee, Salamon & Bello 2018): softmax pooling whose sharpness α is learnt,
    `P(bag) = Σ p exp(α p) / Σ exp(α p)`, between the mean (α = 0) and the maximum (α → ∞).

    Args:
        num_classes: K, for one α per class, as in the paper; None shares one among all classes.
        sharpness: α to begin with.

    Shape, Raises: as :class:`MILPool`.
    """

    def __init__(self, num_classes: int | None = None, sharpness: float = 1.0) -> None:
        super().__init__("auto", num_classes, sharpness, learnable=True)
