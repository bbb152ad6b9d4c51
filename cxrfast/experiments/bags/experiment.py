"""One run: a network is trained on bags, its best epoch chosen on validation bags, and measured on test bags."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cxrfast.errors import CxrfastError
from cxrfast.experiments.bags.drawing import Bags, draw_bags, parse_positives
from cxrfast.experiments.bags.images import BagSource, LabelledImages
from cxrfast.experiments.bags.methods import BagModel, Options, make_model
from cxrfast.experiments.bags.metrics import bag_iou
from cxrfast.experiments.bags.networks import Normalized, make_network
from cxrfast.metrics.classification import auroc

VALIDATION_SHARE = 0.1  # of the training images; training and validation bags share no images
_AT_ONCE = 256  # images per forward pass: few enough for their features to stay in the CPU caches
_PARTS = {"split": 0, "train": 1, "validation": 2, "test": 3, "weights": 4, "order": 5}


@dataclass(frozen=True)
class BagSettings:
    """The settings of one run. With the images and the machine, they determine its results."""

    method: str = "sgl"
    bag_size: int = 10
    bag_size_std: float = 2.0
    train_bags: int = 100
    positives: str = "natural"  # see parse_positives
    network: str = "lenet5"
    pool: str | None = None  # None: the method's default, or the method takes none
    delta: float | None = 0.3
    lam: float | None = 1.0
    epochs: int = 50
    batch_size: int = 8  # bags
    lr: float = 1e-3
    weight_decay: float = 1e-4
    val_bags: int = 50
    test_bags: int = 1000
    seed: int = 0
    run: int = 0


class Epoch(NamedTuple):
    epoch: int  # from 1
    loss: float  # mean over batches, as trained
    val_auc: float
    val_loss: float  # bag loss of the validation bags


class BagOutcome(NamedTuple):
    auc: float  # of the test bags
    iou: float  # mean over the positive test bags
    epoch: int  # the chosen one
    val_auc: float
    positives_per_bag: float  # mean over the positive test bags
    seconds: float
    test: Bags
    scores: Tensor  # [N] float32 of the instances of `test`
    history: list[Epoch]


class PreparedBags(NamedTuple):
    """Bags, with each of their distinct images stored once."""

    bags: Bags
    images: Tensor  # [n, C, H, W] uint8
    place: Tensor  # [N] int64: index of an instance's image in `images`


def train_bags(
    source: BagSource,
    settings: BagSettings,
    *,
    device: str = "cpu",
    after_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> BagOutcome:
    """Train on bags drawn from the training images, keep the best epoch on validation bags, and test it.

    A tenth of the training images is held out for the validation bags. The best epoch has the highest validation AUC
    of bags; among equal ones, the lowest bag loss. Labels of instances are not used. Test bags are used only once, at
    the end. Bags, initial weights and the order of training depend on the seed and the run, but not on the method, so
    that all methods are compared on the same bags. Validation and test bags do not depend on the number of training
    bags either.

    Raises:
        UsageError: an option out of range.
        CxrfastError: the loss is not finite.
    """
    begin = time.perf_counter()
    train, validation = _split(source.train, settings)
    bags = _draw(train, settings.train_bags, "train", settings)
    held_out = _prepare(validation, _draw(validation, settings.val_bags, "validation", settings), device)
    images = train.images.to(device)
    model = _make_model(source, settings).to(device)
    optimizer = torch.optim.Adam(model.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True)
    order = torch.Generator().manual_seed(_seed(settings, "order"))
    history: list[Epoch] = []
    best, weights = None, {}
    for epoch in range(1, settings.epochs + 1):
        loss = _train_epoch(model, optimizer, images, bags, settings.batch_size, order)
        if not np.isfinite(loss):
            raise CxrfastError(
                f"{settings.method}: expected a finite loss, got {loss} in epoch {epoch}; reduce --lr {settings.lr}"
            )
        history.append(Epoch(epoch, loss, *_validate(model, held_out)))
        after_epoch(history[-1])
        if best is None or (history[-1].val_auc, -history[-1].val_loss) > (best.val_auc, -best.val_loss):
            best = history[-1]
            weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(weights)
    test = _prepare(source.test, _draw(source.test, settings.test_bags, "test", settings), device)
    auc, iou, scores = _test(model, test)
    chosen = cast(Epoch, best)
    positives = test.bags.positive.sum().item() / test.bags.labels.sum().item()
    seconds = time.perf_counter() - begin
    return BagOutcome(auc, iou, chosen.epoch, chosen.val_auc, positives, seconds, test.bags, scores, history)


def _seed(settings: BagSettings, part: str, *more: int) -> int:
    """The seed of an independent random stream for one purpose of a run."""
    words = np.random.SeedSequence([settings.seed, settings.run, _PARTS[part], *more]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def _split(images: LabelledImages, settings: BagSettings) -> tuple[LabelledImages, LabelledImages]:
    """Training and validation images, stratified by the positive class."""
    generator = torch.Generator().manual_seed(_seed(settings, "split"))
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for kind in (images.positive, ~images.positive):
        index = kind.nonzero().flatten()
        if len(index) < 2:
            raise CxrfastError(
                "positive-class: expected at least two positive and two negative training images, got "
                f"{int(images.positive.sum())} and {int((~images.positive).sum())}"
            )
        index = index[torch.randperm(len(index), generator=generator)]
        n_validation = max(1, round(VALIDATION_SHARE * len(index)))
        parts[0].append(index[n_validation:])
        parts[1].append(index[:n_validation])
    train, validation = (images.part(torch.cat(part)) for part in parts)
    return train, validation


def _draw(images: LabelledImages, n_bags: int, part: str, settings: BagSettings) -> Bags:
    return draw_bags(
        images.positive,
        n_bags,
        settings.bag_size,
        size_std=settings.bag_size_std,
        positives=parse_positives(settings.positives),
        seed=_seed(settings, part, settings.bag_size, n_bags),
    )


def _prepare(images: LabelledImages, bags: Bags, device: str) -> PreparedBags:
    distinct, place = bags.instances.unique(return_inverse=True)
    return PreparedBags(bags, images.images[distinct].to(device), place.to(device))


def _make_model(source: BagSource, settings: BagSettings) -> BagModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(settings, "weights"))
        network = make_network(settings.network, source.train.images.shape[1])
        normalized = Normalized(network, source.mean, source.std)
        given = {"pool": settings.pool, "delta": settings.delta, "lam": settings.lam}
        options = Options(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        return make_model(settings.method, normalized, cast(int, network.num_features), options)


def _train_epoch(
    model: BagModel,
    optimizer: torch.optim.Optimizer,
    images: Tensor,  # [M, C, H, W] uint8
    bags: Bags,
    batch_size: int,
    generator: torch.Generator,
) -> float:
    model.train()
    total, batches = torch.zeros(()), torch.randperm(len(bags.labels), generator=generator).split(batch_size)
    for chosen in batches:
        batch = bags.select(chosen)
        index, offsets, labels = (x.to(images.device) for x in (batch.instances, batch.offsets, batch.labels))
        loss = model.loss(model.encode(images[index]), offsets, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total = total.to(loss.device) + loss.detach()
    return total.item() / len(batches)


@torch.no_grad()
def _encode(model: BagModel, prepared: PreparedBags) -> tuple[Tensor, Tensor]:  # [N, D], offsets [B + 1]
    """Encode every distinct image once, also if several bags contain it."""
    model.eval()
    encoded = torch.cat([model.encode(part) for part in prepared.images.split(_AT_ONCE)])
    return encoded[prepared.place], prepared.bags.offsets.to(encoded.device)


@torch.no_grad()
def _validate(model: BagModel, prepared: PreparedBags) -> tuple[float, float]:
    """AUC and mean bag loss."""
    logits = model.bag_logits(*_encode(model, prepared)).float().cpu()
    labels = prepared.bags.labels
    loss = F.binary_cross_entropy_with_logits(logits, labels.float()).item()
    return auroc(logits[:, None], labels[:, None]).item(), loss


@torch.no_grad()
def _test(model: BagModel, prepared: PreparedBags) -> tuple[float, float, Tensor]:
    """AUC of bags, mean IoU over the positive bags, and the scores of all instances [N]."""
    encoded, offsets = _encode(model, prepared)
    bags = prepared.bags
    auc = auroc(model.bag_logits(encoded, offsets).cpu()[:, None], bags.labels[:, None]).item()
    scores = model.instance_scores(encoded, offsets).float().cpu()
    iou = bag_iou(scores > 0.5, bags.positive, bags.offsets)[bags.labels].mean().item()
    return auc, iou, scores
