"""What the method `li` does by default, where no option says it: a check for each statement of the register."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from cxrfast.data import CLASSES, Record, make_folds, read_chestxray14, write_phantoms
from cxrfast.evaluation import find_protocol
from cxrfast.losses import LiLoss
from cxrfast.methods.li import Li, LiOptions
from cxrfast.models import resize_to_grid

CLASS_NAMES = ("A", "B", "C")


@cache
def method() -> Li:
    """The defaults, on three classes."""
    torch.manual_seed(0)
    return Li(CLASS_NAMES, 512, LiOptions()).eval()


def batch() -> dict[str, torch.Tensor]:
    """One image with a box of the second class, which is no label of it, and one without boxes."""
    boxes = torch.zeros(2, 3, 1, 4)
    boxes[0, 1, 0] = torch.tensor([0.0, 0.0, 256.0, 256.0])
    has_box = torch.zeros(2, 3, 1, dtype=torch.bool)
    has_box[0, 1] = True
    return {"labels": torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), "boxes": boxes, "has_box": has_box}


def logits() -> torch.Tensor:
    return torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss(data: dict[str, torch.Tensor]) -> torch.Tensor:
    return method().loss(logits(), {**data, "labels": data["labels"].double()})


def patches() -> None:
    """400 patches; smaller maps are enlarged bilinearly, larger ones max-pooled."""
    with torch.no_grad():
        assert method()(torch.zeros(1, 1, 512, 512), "patches").shape == (1, 3, 20, 20)
    small, large = torch.randn(1, 2, 16, 16), torch.randn(1, 2, 40, 40)
    enlarged = nn.functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    assert torch.equal(resize_to_grid(small, 20), enlarged)
    assert torch.equal(resize_to_grid(large, 20), nn.functional.max_pool2d(large, 2))


def head() -> None:
    layers = method().network.head
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    assert (layers[0].kernel_size, layers[-1].kernel_size, layers[-1].out_channels) == ((3, 3), (1, 1), 3)


def prior_bias() -> None:
    assert torch.allclose(torch.sigmoid(method().network.head[-1].bias), torch.tensor(0.02))


def sigmoid() -> None:
    maps = torch.randn(1, 3, 20, 20)
    whole = method()
    forward, whole.forward = whole.forward, lambda images, stage: maps
    try:
        found = whole.predict(torch.zeros(1, 1, 512, 512), "patches").maps
    finally:
        whole.forward = forward
    assert torch.equal(found, torch.sigmoid(maps))


def eq_1() -> None:
    """The boxed pair alone, in products."""
    p, inside = logits()[0, 1].sigmoid(), torch.zeros(20, 20, dtype=torch.bool)
    inside[:10, :10] = True
    expected = -(torch.where(inside, p, 1 - p).log().sum())
    annotated = torch.zeros(1, 1, dtype=torch.bool) | True
    terms = LiLoss().terms(logits()[:1, 1:2], torch.ones(1, 1).double(), annotated, inside[None, None])
    assert torch.allclose(terms["box"][0, 0], expected)


def eq_2() -> None:
    present = 1 - (1 - logits().sigmoid()).flatten(2).prod(dim=2)
    whole = method()
    forward, whole.forward = whole.forward, lambda images, stage: logits() - 8  # so that 1 − P has digits left
    try:
        scores = whole.predict(torch.zeros(2, 1, 512, 512), "patches").scores
    finally:
        whole.forward = forward
    expected = 1 - (1 - (logits() - 8).sigmoid()).flatten(2).prod(dim=2)
    assert torch.allclose(scores.double(), expected, rtol=1e-4)
    assert (present > expected).all()


def eq_3() -> None:
    """λ = 5 times Eq. 1 for the boxed pair, cross-entropy of Eq. 2 for the others; the mean over two images."""
    p = logits().sigmoid()
    inside = torch.zeros(20, 20, dtype=torch.bool)
    inside[:10, :10] = True
    log_none = (1 - p).log().flatten(2).sum(dim=2)
    total = torch.zeros((), dtype=torch.float64)
    for n in range(2):
        for k in range(3):
            if (n, k) == (0, 1):
                total += -5 * torch.where(inside, p[n, k], 1 - p[n, k]).log().sum()
            elif batch()["labels"][n, k]:
                total += -torch.log(-torch.expm1(log_none[n, k]))
            else:
                total += -log_none[n, k]
    assert torch.allclose(loss(batch()), total / 2)


def one_loss() -> None:
    (stage,) = method().stages(30)
    assert all(name.startswith(stage.trains) for name, _ in method().named_parameters())
    without = batch()
    without["has_box"] = torch.zeros_like(without["has_box"])
    assert loss(without) != loss(batch())


def annotated_per_class() -> None:
    """The first class of the image with a box is unannotated: its own box would change nothing of the second's."""
    changed = batch()
    changed["labels"][0, 0] = 0.0
    assert loss(changed) != loss(batch())


def boxes_imply_labels() -> None:
    """A box is a positive pair, with or without the label."""
    labelled = batch()
    labelled["labels"][0, 1] = 1.0
    assert torch.equal(loss(labelled), loss(batch()))


def dataset() -> None:
    assert len(CLASSES) == 14
    with TemporaryDirectory() as folder:
        phantoms = write_phantoms(Path(folder) / "x", images=4, image_size=64, boxed_fraction=1.0, progress=False)
        records = read_chestxray14(phantoms).records
    assert len(records) == 4
    assert all(set(record.boxes) <= set(CLASSES) for record in records)


def folds() -> None:
    found = find_protocol("li2018").training_folds
    assert found is not None
    assert (found.count, found.by) == (5, "image")


def how_folds_are_dealt() -> None:
    """Ten images of one patient stand in all folds."""
    box = {"Mass": ((0.1, 0.1, 0.4, 0.4),)}
    records = [Record(f"{i}.png", Path(f"{i}.png"), "one patient", frozenset({"Mass"}), box) for i in range(10)]
    dealt = make_folds(records, folds=5, seed=0, by="image")
    assert [len(fold.test) for fold in dealt.folds] == [2] * 5


def hit() -> None:
    criteria = {c.measure: (c.inclusive, c.thresholds) for c in find_protocol("li2018").criteria}
    tenths = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert criteria == {"iou": (True, tenths), "ior": (True, tenths)}


PROBES = {
    "patches": patches,
    "head": head,
    "prior-bias": prior_bias,
    "sigmoid": sigmoid,
    "eq-1": eq_1,
    "eq-2": eq_2,
    "eq-3": eq_3,
    "one-loss": one_loss,
    "annotated-per-class": annotated_per_class,
    "boxes-imply-labels": boxes_imply_labels,
    "dataset": dataset,
    "folds": folds,
    "how-folds-are-dealt": how_folds_are_dealt,
    "hit": hit,
}
