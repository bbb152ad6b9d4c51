"""The methods that are compared: what is learnt from a bag's label, and how instances are scored."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrfast.errors import UsageError
from cxrfast.losses import BagLoss, BILLoss, MMMLoss, SelfGuidingLoss
from cxrfast.nn import AttentionPool
from cxrfast.ops.mil_pool import MODES


class Options(NamedTuple):
    """What methods can be told; each takes those that it names in :data:`METHODS`."""

    pool: str = "max"
    delta: float = 0.3
    lam: float = 1.0


class BagModel(nn.Module):
    """A network and a method: images are encoded one by one, so that one encoding serves every bag that holds them."""

    def encode(self, images: Tensor) -> Tensor:  # [N, C, H, W] uint8 -> [N, D]
        raise NotImplementedError

    def loss(
        self,
        encoded: Tensor,  # [N, D]
        offsets: Tensor,  # [B + 1] int64
        labels: Tensor,  # [B] bool
    ) -> Tensor:  # []
        raise NotImplementedError

    def bag_logits(self, encoded: Tensor, offsets: Tensor) -> Tensor:  # [N, D], [B + 1] -> [B]
        raise NotImplementedError

    def instance_scores(self, encoded: Tensor, offsets: Tensor) -> Tensor:  # [N, D], [B + 1] -> [N] in [0, 1]
        raise NotImplementedError


class InstanceModel(BagModel):
    """Every image has a probability of its own; the bag's is pooled from them. An image's code is its logit."""

    def __init__(self, network: nn.Module, num_features: int, loss: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Linear(num_features, 1)
        self.bag_loss = loss

    def encode(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> logits [N, 1]
        return self.head(self.network(images))

    def loss(self, encoded: Tensor, offsets: Tensor, labels: Tensor) -> Tensor:
        return self.bag_loss(encoded, labels[:, None], offsets=offsets)

    def bag_logits(self, encoded: Tensor, offsets: Tensor) -> Tensor:
        return self.bag_loss.pool(encoded, offsets=offsets)[:, 0]  # type: ignore[operator]  # a module

    def instance_scores(self, encoded: Tensor, offsets: Tensor) -> Tensor:
        return encoded[:, 0].sigmoid()


class AttentionModel(BagModel):
    """Ilse et al. 2018: the bag's features are a weighted mean of its images' features, and are then classified.

    Images have attention weights, not probabilities. As in that paper's figures an image's score is its weight,
    rescaled within the bag to run from 0 to 1 (1 for a bag of equal weights).
    """

    def __init__(self, network: nn.Module, num_features: int, gated: bool) -> None:
        super().__init__()
        self.network = network
        self.pool = AttentionPool(num_features, gated=gated)
        self.head = nn.Linear(num_features, 1)

    def encode(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> features [N, F]
        return self.network(images)

    def loss(self, encoded: Tensor, offsets: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.bag_logits(encoded, offsets), labels.to(encoded.dtype))

    def bag_logits(self, encoded: Tensor, offsets: Tensor) -> Tensor:
        return self.head(self.pool(encoded, offsets=offsets)[0])[:, 0]

    def instance_scores(self, encoded: Tensor, offsets: Tensor) -> Tensor:
        weights = self.pool(encoded, offsets=offsets)[1]
        sizes = offsets.diff()
        low, high = (
            torch.segment_reduce(weights, kind, lengths=sizes).repeat_interleave(sizes) for kind in ("min", "max")
        )
        return torch.where(high > low, (weights - low) / (high - low), 1.0)


class Method(NamedTuple):
    label: str  # in pictures
    options: tuple[str, ...]  # fields of Options that it takes
    make: Callable[[nn.Module, int, Options], BagModel]


def _pooling(pool: str) -> Callable[[nn.Module, int, Options], BagModel]:
    return lambda network, features, options: InstanceModel(network, features, BagLoss(pool))


def _attention(gated: bool) -> Callable[[nn.Module, int, Options], BagModel]:
    return lambda network, features, options: AttentionModel(network, features, gated)


def _bil(network: nn.Module, features: int, options: Options) -> BagModel:
    return InstanceModel(network, features, BILLoss(options.pool, options.lam))


def _mmm(network: nn.Module, features: int, options: Options) -> BagModel:
    return InstanceModel(network, features, MMMLoss(options.pool))


def _sgl(rescale: bool = True, weighted: bool = True) -> Callable[[nn.Module, int, Options], BagModel]:
    def make(network: nn.Module, features: int, options: Options) -> BagModel:
        pool, delta, lam = options
        return InstanceModel(network, features, SelfGuidingLoss(pool, delta, lam, rescale=rescale, weighted=weighted))

    return make


_SGL = ("pool", "delta", "lam")
METHODS = {
    "max": Method("max", (), _pooling("max")),
    "mean": Method("mean", (), _pooling("mean")),
    "softmax": Method("softmax", (), _pooling("softmax")),
    "noisy-or": Method("noisy-OR", (), _pooling("noisy_or")),
    "lse": Method("LSE", (), _pooling("lse")),
    "linear-softmax": Method("linear softmax", (), _pooling("linear_softmax")),
    "bil": Method("BIL", ("pool", "lam"), _bil),
    "mmm": Method("MMM", ("pool",), _mmm),
    "attention": Method("attention", (), _attention(gated=False)),
    "gated-attention": Method("gated attention", (), _attention(gated=True)),
    "sgl": Method("SGL", _SGL, _sgl()),
    "sgl-no-weight": Method("SGL, no weighting", _SGL, _sgl(weighted=False)),
    "sgl-no-rescale": Method("SGL, no rescaling", _SGL, _sgl(rescale=False)),
    "sgl-no-rescale-no-weight": Method("SGL, neither", _SGL, _sgl(rescale=False, weighted=False)),
}


def make_model(method: str, network: nn.Module, num_features: int, options: Options) -> BagModel:
    """`network`, from images to `num_features` features, with a method on top.

    Raises:
        UsageError: an unknown method or pooling, or an option out of range.
    """
    if method not in METHODS:
        raise UsageError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    pool = options.pool.replace("-", "_")
    if pool not in MODES:
        raise UsageError(f"pool: expected one of {', '.join(m.replace('_', '-') for m in MODES)}, got {options.pool!r}")
    try:
        return METHODS[method].make(network, num_features, options._replace(pool=pool))
    except ValueError as error:  # of a loss's option: it names it
        raise UsageError(str(error)) from error
