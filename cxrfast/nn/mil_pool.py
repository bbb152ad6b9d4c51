"""Multiple-instance pooling as a module."""

import math
from typing import TYPE_CHECKING

import torch

from cxrfast.ops import mil_pool, mil_pool_ragged
from cxrfast.ops._validation import check_integer, choose
from cxrfast.ops.mil_pool import MODES, MILPoolMode, check_sharpness


class MILPool(torch.nn.Module):
    """:func:`cxrfast.ops.mil_pool` as a module with a fixed or learnable sharpness.

    Args:
        mode: see :func:`cxrfast.ops.mil_pool`.
        num_classes: K, for one sharpness per class. None uses one sharpness for all classes.
        sharpness: its value, or the initial value if it is learnable. None is the mode's default.
        learnable: whether sharpness is a parameter. With mode "auto" this is auto-pool (:class:`AutoPool`).

    Shape: logits `[B, K, *]` and optionally a mask that broadcasts to them → bag logits `[B, K]`. Or logits `[N, K]` of
    all bags and `offsets=[B + 1]`, as in :func:`cxrfast.ops.mil_pool_ragged`.

    Raises:
        TypeError, ValueError: as :func:`cxrfast.ops.mil_pool`, and for a learnable sharpness of a mode that has none.

    Example:
        >>> pool = MILPool("lse", sharpness=5.0)
        >>> pool(torch.randn(8, 14, 20, 20)).shape
        torch.Size([8, 14])
    """

    sharpness: torch.Tensor | None

    def __init__(
        self,
        mode: MILPoolMode = "noisy_or",
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
        return _pool(logits, self.mode, self.sharpness, mask, offsets)

    if TYPE_CHECKING:  # a call of nn.Module returns Any
        __call__ = forward

    def extra_repr(self) -> str:
        learnable = isinstance(self.sharpness, torch.nn.Parameter)
        return f"mode={self.mode!r}, num_classes={self.num_classes}, learnable={learnable}"


class AutoPool(MILPool):
    """Auto-pool (McFee, Salamon & Bello 2018): softmax pooling with a learnable sharpness α.

    `P(bag) = Σ p exp(α p) / Σ exp(α p)` interpolates between the mean (α = 0) and the maximum (α → ∞).

    Args:
        num_classes: K, for one α per class, as in the paper. None uses one α for all classes.
        sharpness: the initial α.

    Shape, Raises: as :class:`MILPool`.

    Example:
        >>> pool = AutoPool(num_classes=14)
        >>> pool(torch.randn(8, 14, 20, 20)).shape, pool.sharpness.shape
        (torch.Size([8, 14]), torch.Size([14]))
    """

    def __init__(self, num_classes: int | None = None, sharpness: float = 1.0) -> None:
        super().__init__("auto", num_classes, sharpness, learnable=True)


class LSELBAPool(torch.nn.Module):
    """Log-sum-exp pooling with a lower-bounded learnable sharpness (Yao et al. 2018)::

        P(bag) = 1/r · log [1/N · Σ exp(r · p)],    r = r₀ + exp(β),    p = σ(logit)

    over the N instances of a bag (for a map, N = w·h). r → 0 gives the mean, r → ∞ the maximum. β is learnable, so r
    adapts to the size of a finding, but it always stays above r₀. The gradient ∂P/∂β = exp(β) · ∂P/∂r is exact, with
    ∂P/∂r from the operator :func:`cxrfast.ops.mil_pool` in mode "lse". The computation is in log space: values and
    gradients are finite for logits of ±50 and more.

    Args:
        num_classes: K, for one β per class. None uses one β for all classes.
        r0: r₀, 0 or more; fixed.
        beta: the initial β.

    Shape: logits `[B, K, *]` and optionally a mask that broadcasts to them → bag logits `[B, K]`. Or logits `[N, K]` of
    all bags and `offsets=[B + 1]`, as in :func:`cxrfast.ops.mil_pool_ragged`.

    Raises:
        TypeError, ValueError: r0 or beta not a finite number, r0 below 0, num_classes below 1, exp(β) too large for
            float32; in a call, as :func:`cxrfast.ops.mil_pool`.

    Example:
        >>> pool = LSELBAPool(num_classes=14, r0=10.0)
        >>> torch.sigmoid(pool(torch.randn(8, 14, 128, 128))).shape
        torch.Size([8, 14])
    """

    def __init__(self, num_classes: int | None = None, r0: float = 0.0, beta: float = 0.0) -> None:
        super().__init__()
        if num_classes is not None:
            check_integer("num_classes", num_classes, 1)
        for name, value in (("r0", r0), ("beta", beta)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name}: expected a number, got {value!r}")
        if not 0 <= r0 <= _LARGEST:
            raise ValueError(f"r0: expected a finite number of at least 0, got {r0}")
        if not abs(beta) <= _LARGEST_BETA:
            raise ValueError(f"beta: expected a number within ±{_LARGEST_BETA:.0f}, got {beta}")
        self.num_classes = num_classes
        self.r0 = float(r0)
        self.beta = torch.nn.Parameter(torch.full(() if num_classes is None else (num_classes,), float(beta)))

    @property
    def sharpness(self) -> torch.Tensor:  # [] or [K]
        """r = r₀ + exp(β)."""
        return self.r0 + self.beta.exp()

    def forward(
        self,
        logits: torch.Tensor,  # [B, K, *], or [N, K] with offsets
        mask: torch.Tensor | None = None,  # bool, broadcastable to logits
        offsets: torch.Tensor | None = None,  # [B + 1] int64
    ) -> torch.Tensor:  # [B, K]
        return _pool(logits, "lse", self.sharpness, mask, offsets)

    if TYPE_CHECKING:  # a call of nn.Module returns Any
        __call__ = forward

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, r0={self.r0}"


_LARGEST = torch.finfo(torch.float32).max
_LARGEST_BETA = math.floor(math.log(_LARGEST))


def _pool(
    logits: torch.Tensor,
    mode: MILPoolMode,
    sharpness: torch.Tensor | None,
    mask: torch.Tensor | None,
    offsets: torch.Tensor | None,
) -> torch.Tensor:  # [B, K]
    if offsets is not None:
        if mask is not None:
            raise ValueError("mask: expected None, because offsets are given and define the bags")
        return mil_pool_ragged(logits, offsets, mode, sharpness=sharpness)
    return mil_pool(logits, mode, sharpness=sharpness, mask=mask)
