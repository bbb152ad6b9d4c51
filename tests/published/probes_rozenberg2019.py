"""What Rozenberg's method does by default, where no option says it: a check for each statement of the register."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from cxrfast.data import CLASSES, Record, make_folds, write_phantoms
from cxrfast.data.dataset import XrayDataset
from cxrfast.evaluation import find_protocol
from cxrfast.experiments.reproduction import TABLES
from cxrfast.losses import RozenbergLoss
from cxrfast.methods.rozenberg import Rozenberg, RozenbergOptions
from cxrfast.methods.rozenberg_thresholds import ThresholdFit
from cxrfast.models.patch_network import PatchHead
from cxrfast.nn import BlurPool2d, MaxBlurPool2d
from cxrfast.training.config import build_config
from cxrfast.training.preparation import choose_classes

CLASS_NAMES = ("A", "B", "C")


@cache
def method() -> Rozenberg:
    """The defaults, on three classes."""
    torch.manual_seed(0)
    return Rozenberg(CLASS_NAMES, 512, RozenbergOptions()).eval()


def records(count: int, labels: tuple[str, ...] = ("Mass",)) -> list[Record]:
    box = dict.fromkeys(labels, ((0.1, 0.1, 0.4, 0.4),))
    return [Record(f"{i}.png", Path(f"{i}.png"), str(i), frozenset(labels), box) for i in range(count)]


def head() -> None:
    kinds = [type(layer) for layer in method().network.unary.head]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    assert method().network.unary.head[-1].out_channels == len(CLASS_NAMES)


def sigmoid() -> None:
    logits = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        whole = method()
        forward, whole.forward = whole.forward, lambda images, stage: logits
        try:
            maps = whole.predict(torch.zeros(2, 1, 512, 512), "unary").maps
        finally:
            whole.forward = forward
    assert torch.equal(maps, torch.sigmoid(logits))


def prior_bias() -> None:
    assert torch.allclose(torch.sigmoid(PatchHead(8, 3)[-1].bias), torch.tensor(0.02))


def annotated_per_class() -> None:
    boxes = torch.zeros(1, 3, 1, 4)
    boxes[0, 1, 0] = torch.tensor([0.0, 0.0, 256.0, 256.0])
    has_box = torch.tensor([[[False], [True], [False]]])
    annotated, region = method()._regions({"boxes": boxes, "has_box": has_box, "labels": torch.ones(1, 3)})
    assert annotated.tolist() == [[False, True, False]]
    assert region.sum(dim=(2, 3)).tolist() == [[0, 100, 0]]


def eq_12() -> None:
    criterion = method().criterion
    assert isinstance(criterion, RozenbergLoss)
    assert (criterion.relaxation, criterion.area_unit, criterion.lambda_ann) == ("relu", "patches", 70)


def threshold_ranges() -> None:
    criterion = RozenbergLoss(2)
    criterion.set_thresholds(tau=[0.0, 1.0], rho=[0.0, 1.0], tau_hat=[0.0, 400.0], rho_hat=[0.0, 400.0])
    for name in ("tau", "rho"):
        try:
            criterion.set_thresholds(**{name: 1.1})
        except ValueError:
            continue
        raise AssertionError(name)


def pac_crf() -> None:
    images = torch.randn(1, 1, 512, 512)
    with torch.no_grad():
        assert method()(images, "crf").shape == (1, 3, 20, 20)


def crf_pairwise() -> None:
    """Affinities fall with the distance of the guides; the kernel itself has nothing to learn."""
    crf = method().network.crf
    names = {name.rsplit(".", 1)[-1] for name, _ in crf.named_parameters()}
    assert names == {"weight", "guide_scale", "unary_weight"}
    assert not crf.unary_weight.requires_grad


def crf_compatibility() -> None:
    (pairwise,) = method().network.crf.pairwise[0]
    assert pairwise.weight.shape == (3, 3, 19, 19)
    assert pairwise.weight.requires_grad


def crf_initialisation() -> None:
    unary, guide = torch.randn(1, 3, 20, 20), torch.randn(1, 3, 20, 20)
    crf = method().network.crf
    with torch.no_grad():
        assert (crf(unary, guide) - unary).abs().max() <= 2


def guide() -> None:
    kinds = [type(layer) for layer in method().network.guide]
    assert kinds == 2 * [nn.Conv2d, nn.ReLU, nn.BatchNorm2d] + [nn.AdaptiveAvgPool2d]


def guide_kernels() -> None:
    layers = [layer for layer in method().network.guide if isinstance(layer, nn.Conv2d)]
    assert [(layer.kernel_size, layer.stride) for layer in layers] == [((5, 5), (4, 4)), ((3, 3), (2, 2))]


def stages() -> None:
    unary, crf = method().stages(30)
    names = [name for name, _ in method().named_parameters()]
    assert {n.split(".")[1] for n in names if n.startswith(unary.trains)} == {"unary"}
    assert {n.split(".")[1] for n in names if n.startswith(crf.trains)} == {"guide", "crf"}


def blur_filter() -> None:
    blurs = [layer for layer in method().modules() if isinstance(layer, BlurPool2d | MaxBlurPool2d)]
    assert blurs
    assert {layer.filter_size for layer in blurs} == {3}


def dataset() -> None:
    assert len(CLASSES) == 14


def image_range() -> None:
    with TemporaryDirectory() as folder:
        phantoms = write_phantoms(Path(folder) / "phantoms", images=2, image_size=64, progress=False)
        image = next((phantoms / "images").iterdir())
        item = XrayDataset([Record(image.name, image, "1", frozenset())], ("Mass",), 64)[0]["image"]
    assert item.shape == (1, 64, 64)
    assert -1 <= item.min() < -0.5
    assert 0 < item.max() <= 1


def all_classes() -> None:
    images = [Record(f"{name}.png", Path(name), name, frozenset({name})) for name in CLASSES]
    config = build_config({"method": "rozenberg", "data": Path("x")})
    assert set(choose_classes(config, CLASSES, images, [])) == set(CLASSES)


def hit() -> None:
    criteria = {c.measure: (c.inclusive, c.thresholds) for c in find_protocol("rozenberg2019").criteria}
    assert criteria == {"iou": (True, (0.1,)), "ior": (True, (0.1,))}


def annotated_only() -> None:
    protocol = find_protocol("rozenberg2019")
    assert (protocol.unit, protocol.gates, protocol.threshold) == ("annotation", (None,), 0.5)


def folds() -> None:
    plan = TABLES["rozenberg1"]
    assert (plan.folds, plan.folds_by) == (5, "image")
    dealt = make_folds(records(50), folds=5, seed=0, by="image")
    assert [len(fold.test) for fold in dealt.folds] == [10] * 5


def no_validation_part() -> None:
    assert find_protocol("rozenberg2019").training_validation == 0
    dealt = make_folds(records(50), folds=5, seed=0, by="image", validation=0)
    assert [fold.val for fold in dealt.folds] == [()] * 5
    images = records(50)
    assert len(dealt.splits(0, images).train) == 40


def kept_epoch() -> None:
    """`tests/training/test_without_validation.py` trains; here only that the folds of the paper leave nothing to choose
    by."""
    no_validation_part()


def unannotated() -> None:
    assert {row.run.unannotated for row in TABLES["rozenberg1"].rows if row.run} == {0.0, 0.2}


def more_than_one_patch() -> None:
    """τ̂ is per class, and the fit raises it to what the class's boxes allow."""
    fit, criterion = ThresholdFit(2, 0.75, 1.0), RozenbergLoss(2)
    region = torch.zeros(8, 2, 4, 4, dtype=torch.bool)
    region[:4, 0, :2] = True  # boxes of eight patches, and of one
    region[:4, 1, 0, 0] = True
    annotated = torch.zeros(8, 2, dtype=torch.bool)
    annotated[:4] = True
    fit.add(torch.full((8, 2, 4, 4), 3.0), torch.ones(8, 2), annotated, region)
    fit.update(criterion)
    assert criterion.tau_hat.tolist() == [8, 1]


def fold_average() -> None:
    plan = TABLES["rozenberg1"]
    assert all(row.run.cross_validated for row in plan.rows if row.run)


def table_1() -> None:
    plan = TABLES["rozenberg1"]
    assert (plan.metrics, plan.measures) == (("accuracy",), ("iou", "ior"))
    assert {row.run.method for row in plan.rows if row.run} == {"li", "rozenberg"}


PROBES = {
    "head": head,
    "sigmoid": sigmoid,
    "prior-bias": prior_bias,
    "annotated-per-class": annotated_per_class,
    "eq-12": eq_12,
    "threshold-ranges": threshold_ranges,
    "pac-crf": pac_crf,
    "crf-pairwise": crf_pairwise,
    "crf-compatibility": crf_compatibility,
    "crf-initialisation": crf_initialisation,
    "guide": guide,
    "guide-kernels": guide_kernels,
    "stages": stages,
    "blur-filter": blur_filter,
    "dataset": dataset,
    "image-range": image_range,
    "all-classes": all_classes,
    "hit": hit,
    "annotated-only": annotated_only,
    "folds": folds,
    "no-validation-part": no_validation_part,
    "kept-epoch": kept_epoch,
    "unannotated": unannotated,
    "more-than-one-patch": more_than_one_patch,
    "fold-average": fold_average,
    "better-than-li": table_1,
    "table-1": table_1,
}
