"""Multiple-instance pooling as a layer."""

import math

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
        return _pool(logits, self.mode, self.sharpness, mask, offsets)

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


class LSELBAPool(torch.nn.Module):
    """Log-sum-exp pooling with a lower-bounded adaptive sharpness (Yao et al. 2018)::

        P(bag) = 1/r · log [1/N · Σ exp(r · p)],    r = r₀ + exp(β),    p = σ(logit)

    over the N instances of a bag (of a map: N = w·h). β is learnt, so r adapts to how much of an image a finding
    covers, but never falls to r₀ or below: r → 0 is the mean, r → ∞ the maximum. The gradient of β is exact:
    ∂P/∂β = exp(β) · ∂P/∂r, with ∂P/∂r from the operator. Values and gradients are those of
    :func:`cxrfast.ops.mil_pool` in mode "lse": in log space, and finite for logits of ±50 and more.

    Args:
        num_classes: K, for one β per class; None shares one among all classes.
        r0: r₀, 0 or more; fixed.
        beta: β to begin with.

    Shape: logits `[B, K, *]` and optionally a mask that broadcasts to them → bag logits `[B, K]`; or logits `[N, K]` of
    all bags and `offsets=[B + 1]`, as :func:`cxrfast.ops.mil_pool_ragged` takes them.

    Raises:
        TypeError, ValueError: r0 or beta not a finite number, r0 below 0, num_classes below 1, an exp(β) that float32
            does not hold; in a call, as :func:`cxrfast.ops.mil_pool`.

    Example:
        >>> pool = LSELBAPool(num_classes=14, r0=10.0)
        >>> scores = torch.sigmoid(pool(torch.randn(8, 14, 128, 128)))  # [8, 14]
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

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, r0={self.r0}"


_LARGEST = torch.finfo(torch.float32).max
_LARGEST_BETA = math.floor(math.log(_LARGEST))


def _pool(
    logits: torch.Tensor,
    mode: str,
    sharpness: torch.Tensor | None,
    mask: torch.Tensor | None,
    offsets: torch.Tensor | None,
) -> torch.Tensor:  # [B, K]
    if offsets is not None:
        if mask is not None:
            raise ValueError("mask: expected None where there are offsets, which say what every bag holds")
        return mil_pool_ragged(logits, offsets, mode, sharpness=sharpness)
    return mil_pool(logits, mode, sharpness=sharpness, mask=mask)
