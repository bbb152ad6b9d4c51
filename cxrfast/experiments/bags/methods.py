"""The compared methods: how they learn from the label of a bag, and how they score instances."""

from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrfast.errors import UsageError
from cxrfast.losses import BagLoss, BILLoss, MMMLoss, SelfGuidingLoss
from cxrfast.nn import AttentionPool
from cxrfast.ops.mil_pool import MODES, MILPoolMode


class Options(NamedTuple):
    """Options of the methods. :data:`METHODS` lists those that each method takes."""

    pool: str | None = None  # None: the method's default
    delta: float = 0.3
    lam: float = 1.0


class BagModel(nn.Module):
    """A network with a method. Images are encoded independently of their bags, so that bags can share encodings."""

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
    """Pools the probability of a bag from the probabilities of its images. The encoding of an image is its logit."""

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
    """Ilse et al. 2018: classifies the attention-weighted mean of the image features of a bag.

    Images have attention weights, not probabilities. As in the figures of that paper, the score of an image is its
    weight, min-max normalised within the bag; 1 if all weights are equal.
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


class MeanLogit(nn.Module):
    """The mean of a bag's logits, as in the published script of Seibold et al. 2020 for BIL.

    The pooling "mean", by contrast, is the mean of the probabilities.
    """

    def forward(self, logits: Tensor, *, offsets: Tensor) -> Tensor:  # [N, K], [B + 1] -> [B, K]
        sizes = offsets.diff()
        return torch.segment_reduce(logits, "sum", lengths=sizes) / sizes.clamp(min=1)[:, None]


class BagMethod(NamedTuple):
    label: str  # name in pictures and tables
    options: tuple[str, ...]  # the fields of Options that it takes
    make: Callable[[nn.Module, int, Options], BagModel]
    pool: str = "max"  # default pooling of methods that take one


def _pooling(pool: MILPoolMode) -> Callable[[nn.Module, int, Options], BagModel]:
    return lambda network, features, options: InstanceModel(network, features, BagLoss(pool))


def _attention(gated: bool) -> Callable[[nn.Module, int, Options], BagModel]:
    return lambda network, features, options: AttentionModel(network, features, gated)


def _pool(options: Options) -> MILPoolMode | nn.Module:
    assert options.pool is not None
    return MeanLogit() if options.pool == MEAN_LOGIT else cast(MILPoolMode, options.pool.replace("-", "_"))


def _bil(form: Literal["sum", "script"]) -> Callable[[nn.Module, int, Options], BagModel]:
    return lambda network, features, options: InstanceModel(
        network, features, BILLoss(_pool(options), options.lam, form=form)
    )


def _mmm(network: nn.Module, features: int, options: Options) -> BagModel:
    return InstanceModel(network, features, MMMLoss(_pool(options)))


def _sgl(rescale: bool = True, weighted: bool = True) -> Callable[[nn.Module, int, Options], BagModel]:
    def make(network: nn.Module, features: int, options: Options) -> BagModel:
        loss = SelfGuidingLoss(_pool(options), options.delta, options.lam, rescale=rescale, weighted=weighted)
        return InstanceModel(network, features, loss)

    return make


MEAN_LOGIT = "mean-logit"
POOLS = (*(mode.replace("_", "-") for mode in MODES), MEAN_LOGIT)
_SGL = ("pool", "delta", "lam")
METHODS = {
    "max": BagMethod("max", (), _pooling("max")),
    "mean": BagMethod("mean", (), _pooling("mean")),
    "softmax": BagMethod("softmax", (), _pooling("softmax")),
    "noisy-or": BagMethod("noisy-OR", (), _pooling("noisy_or")),
    "lse": BagMethod("LSE", (), _pooling("lse")),
    "linear-softmax": BagMethod("linear softmax", (), _pooling("linear_softmax")),
    "bil": BagMethod("BIL", ("pool", "lam"), _bil("sum"), pool="mean"),
    "bil-script": BagMethod("BIL, script", ("pool", "lam"), _bil("script"), pool=MEAN_LOGIT),
    "mmm": BagMethod("MMM", ("pool",), _mmm),
    "attention": BagMethod("attention", (), _attention(gated=False)),
    "gated-attention": BagMethod("gated attention", (), _attention(gated=True)),
    "sgl": BagMethod("SGL", _SGL, _sgl()),
    "sgl-no-weight": BagMethod("SGL, no weighting", _SGL, _sgl(weighted=False)),
    "sgl-no-rescale": BagMethod("SGL, no rescaling", _SGL, _sgl(rescale=False)),
    "sgl-no-rescale-no-weight": BagMethod("SGL, neither", _SGL, _sgl(rescale=False, weighted=False)),
}


class Spelling(NamedTuple):
    """A method with its pooling, as written by a user: "bil" for the default pooling, "bil:max" for another."""

    method: str
    pool: str | None  # None: the method takes none

    @classmethod
    def parse(cls, text: str, pool: str | None = None) -> "Spelling":
        """Parse `text`. `pool` is the pooling of methods that take one but are written without it.

        Raises:
            UsageError: an unknown method or pooling, or a pooling for a method that takes none.
        """
        method, colon, own = (part.strip() for part in text.partition(":"))
        if method not in METHODS:
            raise UsageError(f"method: expected some of {', '.join(METHODS)}, got {method!r}")
        if "pool" not in METHODS[method].options:
            if colon:
                raise UsageError(f"method: expected no pooling for {method}, got {text!r}")
            return cls(method, None)
        return cls(method, check_pool(own if colon else pool or METHODS[method].pool))

    def __str__(self) -> str:
        return self.method if self.pool in (None, METHODS[self.method].pool) else f"{self.method}:{self.pool}"

    @property
    def label(self) -> str:
        """The name in pictures and tables."""
        label = METHODS[self.method].label
        return label if str(self) == self.method else f"{label} ({self.pool} pooling)"


def check_pool(pool: str) -> str:
    """The name of the pooling. Raises :class:`UsageError`, with all names, if it is unknown."""
    if pool.replace("_", "-") not in POOLS:
        raise UsageError(f"pool: expected one of {', '.join(POOLS)}, got {pool!r}")
    return pool.replace("_", "-")


def make_model(method: str, network: nn.Module, num_features: int, options: Options) -> BagModel:
    """Combine `network`, which maps images to `num_features` features, with a method.

    Raises:
        UsageError: an unknown method or pooling, or an option out of range.
    """
    if method not in METHODS:
        raise UsageError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    pool = check_pool(options.pool or METHODS[method].pool)
    try:
        return METHODS[method].make(network, num_features, options._replace(pool=pool))
    except ValueError as error:  # from an option of a loss; the message names it
        raise UsageError(str(error)) from error
