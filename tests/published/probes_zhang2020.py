"""What Zhang's method does by default, where no option says it: a check for each statement of the register.

Those of the triplets are in `probes_zhang2020_triplets.py`.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from cxrfast.data import BOXED_CLASSES, CLASSES, Record, XrayDataset, write_phantoms
from cxrfast.evaluation import Folds, find_protocol
from cxrfast.experiments.reproduction import TABLES
from cxrfast.inference import ClassFinding, FoundBox, Localization, draw
from cxrfast.losses import TripletLoss
from cxrfast.methods.zhang import STAGE, Zhang, ZhangOptions, cross_entropy, one_at_least
from cxrfast.metrics import auroc
from cxrfast.models import attended_region, normalize_maps, region_logits
from cxrfast.regions.rule import RegionRule
from cxrfast.training.config import build_config
from cxrfast.training.schedule import Leg, plan_legs
from cxrfast.training.validation import Validation

NAMES = ("A", "B", "C")
LABELS = torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]])  # 2 triplets


@cache
def method() -> Zhang:
    """The defaults, on three classes."""
    torch.manual_seed(0)
    return Zhang(NAMES, 224, ZhangOptions()).eval()


@cache
def small() -> Zhang:
    """The same with a small backbone."""
    torch.manual_seed(0)
    return Zhang(NAMES, 64, ZhangOptions(backbone="densenet_nano")).eval()


def images(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def three_losses() -> None:
    (stage,) = method().stages(30)
    assert stage.epochs == 30
    assert all(name.startswith(stage.trains) for name, _ in method().named_parameters())


def eq_1() -> None:
    network = Zhang(NAMES, 64, ZhangOptions(backbone="densenet_nano", verification=0.0)).eval()
    with torch.no_grad():
        output = network(images(), STAGE)
        expected = output.features @ network.network.classifier.weight.T + network.network.classifier.bias
        assert torch.allclose(network.predict(images(), STAGE).scores, torch.sigmoid(expected), atol=1e-6)


def features() -> None:
    with torch.no_grad():
        output = small().network(images())
    assert torch.allclose(output.pooled, output.features.mean(dim=(2, 3)), atol=1e-6)


def label_vector() -> None:
    with TemporaryDirectory() as folder:
        phantoms = write_phantoms(Path(folder) / "phantoms", images=1, image_size=64, progress=False)
        image = next((phantoms / "images").iterdir())
        shown = Record(image.name, image, "1", frozenset({"A", "C"}))
        assert XrayDataset([shown], NAMES, 64)[0]["labels"].tolist() == [1, 0, 1]


def eq_2() -> None:
    logits = torch.randn(4, 3)
    y = torch.randint(0, 2, (4, 3)).float()
    p = torch.sigmoid(logits)
    summed = -(y * p.log() + (1 - y) * (1 - p).log()).sum()
    assert torch.allclose(cross_entropy(logits, y), summed / 4, atol=1e-5)


def eq_4() -> None:
    x, near, far = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert method().distance(x, near, far).item() == 5 - 2 + 0.5
    assert method().distance(x, far, near).item() == 0


def eq_5() -> None:
    columns = [torch.randn(7, 4) for _ in range(3)]
    one_by_one = [TripletLoss()(*(column[i : i + 1] for column in columns)) for i in range(7)]
    assert torch.allclose(method().distance(*columns), torch.stack(one_by_one).mean())


def eq_6() -> None:
    with torch.no_grad():
        output = small().network(images())
        expected = torch.einsum("kd,ndhw->nkhw", small().network.classifier.weight, output.features)
    assert torch.allclose(output.maps, expected, atol=1e-5)


def feature_maps() -> None:
    with torch.no_grad():
        assert method().network(torch.zeros(1, 1, 224, 224)).features.shape == (1, 1024, 7, 7)


def eq_7() -> None:
    maps = torch.randn(2, 3, 7, 7)
    classes = torch.tensor([[True, False, True], [False, True, False]])
    expected = torch.stack([maps[0, 0] + maps[0, 2], maps[1, 1]])[:, None]
    assert torch.equal(method()._region(maps, classes), attended_region(expected, 0.8))


def normalised_map() -> None:
    maps = torch.randn(2, 3, 7, 7)
    found = normalize_maps(maps)
    low, high = maps[1, 2].min(), maps[1, 2].max()
    assert torch.allclose(found[1, 2], (maps[1, 2] - low) / (high - low))


def constant_map() -> None:
    assert attended_region(torch.full((1, 1, 7, 7), 0.3), 0.8).all()


def rectangle() -> None:
    heat = torch.zeros(1, 1, 7, 7)
    heat[0, 0, 1, 2] = heat[0, 0, 4, 5] = 1
    region = attended_region(heat, 0.8)
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[1:5, 2:6] = True
    assert torch.equal(region[0, 0], expected)


def verified_features() -> None:
    g, v = torch.randn(1, 5, 7, 7), torch.randn(3, 5)
    region = torch.zeros(1, 1, 7, 7, dtype=torch.bool)
    region[..., 2:4, 1:6] = True
    f = torch.where(region, g, 0.0).mean(dim=(2, 3))
    maps = torch.einsum("kd,ndhw->nkhw", v, g)
    assert torch.allclose(region_logits(maps, region, None), f @ v.T, atol=1e-5)


def region_classifier() -> None:
    verifier, classifier = method().verifier, method().network.classifier
    assert isinstance(verifier, nn.Linear)
    assert verifier.weight is not classifier.weight
    assert not torch.equal(verifier.weight, classifier.weight)
    assert verifier.weight.shape == (3, 1024)


def gradients(**weights: float) -> set[str]:
    """What a loss of the options trains: "theta", "W_G", "V"."""
    torch.manual_seed(0)
    network = Zhang(NAMES, 64, ZhangOptions(backbone="densenet_nano", margin=9.0))
    output = network(images(), STAGE)
    losses = {
        "eq2": cross_entropy(output.logits[:2], LABELS[:2]),
        "eq5": network.distance(*output.features.unflatten(0, (3, -1))),
    }
    whole = network.loss(output, {"labels": LABELS})
    losses["eq8"] = whole - losses["eq2"] - losses["eq5"]
    total = sum(weights[name] * loss for name, loss in losses.items() if name in weights)
    parts = {"theta": network.network.backbone, "W_G": network.network.classifier, "V": network.verifier}
    parameters = [(name, p) for name, part in parts.items() for p in part.parameters()]
    found = torch.autograd.grad(total, [p for _, p in parameters], allow_unused=True)
    pairs = zip(parameters, found, strict=True)
    return {name for (name, _), gradient in pairs if gradient is not None and gradient.abs().max() > 1e-7}


def eq_8() -> None:
    assert gradients(eq8=1.0) == {"theta", "V"}


def what_each_loss_trains() -> None:
    assert gradients(eq2=1.0) == {"theta", "W_G"}
    assert gradients(eq5=1.0) == {"theta"}
    assert gradients(eq8=1.0) == {"theta", "V"}


def eq_10() -> None:
    with torch.no_grad():
        output = small()(images(), STAGE)
        region = small()._region(output.maps, one_at_least(output.logits >= 0, output.logits))
        verified = region_logits(output.verifier_maps, region, small().verifier.bias)
        scores = small().predict(images(), STAGE).scores
    assert torch.allclose(scores, torch.sigmoid(output.logits + verified), atol=1e-6)


def eq_11() -> None:
    method = Zhang(NAMES, 64, ZhangOptions(backbone="densenet_nano", upsample=1)).eval()
    with torch.no_grad():
        g = method.network(images()).features
        weight = (method.network.classifier.weight + method.verifier.weight) / 2
        expected = normalize_maps(torch.einsum("kd,ndhw->nkhw", weight, g))
        assert torch.allclose(method.predict(images(), STAGE).maps, expected, atol=1e-5)


def predicted_box() -> None:
    assert method().region_rule == RegionRule(shape="rectangle")


def dataset() -> None:
    assert len(CLASSES) == 14


def boxes_of_the_test_set() -> None:
    assert len(BOXED_CLASSES) == 8
    image_labels_only()


def image_labels_only() -> None:
    """The loss asks for nothing but the labels, and the places of the images."""

    class Asked(dict):
        def __getitem__(self, name: str) -> torch.Tensor:
            assert name in ("labels", "index"), name
            return super().__getitem__(name)

    batch = Asked(labels=LABELS, index=torch.arange(6), boxes=torch.zeros(6, 3, 1, 4), has_box=torch.ones(6, 3, 1))
    with torch.no_grad():
        assert small().loss(small()(images(), STAGE), batch).isfinite()


def auc() -> None:
    scores, labels = torch.tensor([[0.1], [0.4], [0.35], [0.8]]), torch.tensor([[0.0], [0], [1], [1]])
    assert auroc(scores, labels).item() == 0.75
    assert TABLES["zhang1"].metrics == ("auroc",)


def iou_over_t() -> None:
    protocol = find_protocol("zhang2020")
    (criterion,) = protocol.criteria
    assert (criterion.measure, criterion.inclusive, protocol.unit, protocol.gates) == ("iou", False, "box", (None,))


def cross_validated_thresholds() -> None:
    assert find_protocol("zhang2020").threshold == Folds(10, "box")
    assert find_protocol("zhang2020-pooled").threshold == Folds(10, "box", pooled=True)


def threshold_criterion() -> None:
    from cxrfast.evaluation.localization import LEVELS

    assert len(LEVELS) == 29
    assert torch.allclose(LEVELS.logit(), torch.arange(-7, 7.5, 0.5, dtype=torch.float64))


def augmentation() -> None:
    kept = {"translate": 0, "scale": (1, 1), "brightness": 0, "contrast": 0, "crop": 1.0}
    found = vars(Zhang.augmentation)
    assert {name: found[name] for name in ("rotation", "flip", *kept)} == {"rotation": 5, "flip": 0.5, **kept}


def divided_once() -> None:
    """And the search of tuned-e: 10, 15 and 20 of 30 epochs."""
    unasked = build_config({"method": "zhang", "data": "x"})
    assert plan_legs(method().stages(30), unasked) == (Leg(0, 0, 30),)
    search = build_config({"method": "zhang", "data": "x", "lr_schedule": "search"})
    legs = plan_legs(method().stages(30), search)
    assert [leg.divided_after for leg in legs] == [None, 10, 15, 20]
    assert sum(leg.epochs for leg in legs) == 65


def best_model() -> None:
    nan = float("nan")
    better, worse = Validation((0.9, 0.8), (nan, nan)), Validation((0.7, 0.8), (nan, nan))
    assert better.score > worse.score
    assert better.score == better.auroc


def table_1() -> None:
    plan = TABLES["zhang1"]
    shown = {row.run.name for row in plan.rows if row.run}
    assert shown >= {"zhang", "zhang-distance", "zhang-verification", "zhang-neither"}
    assert any(row.run is None for row in plan.rows)


def table_2() -> None:
    assert find_protocol(TABLES["zhang2"].protocol).criteria[0].thresholds == (0.1, 0.3, 0.5, 0.7)
    assert TABLES["zhang2"].metrics == ("accuracy",)


def table_3() -> None:
    plan = TABLES["zhang3"]
    assert (plan.metrics, plan.protocol) == (("accuracy",), "zhang2020")
    assert {row.run.name for row in plan.rows if row.run} == {"zhang", "zhang-distance", "zhang-verification"}


def figure_3() -> None:
    found = ClassFinding("A", 0.9, True, 0.5, 0.5, (FoundBox((10.0, 10.0, 30.0, 30.0), 1.0, 0.8, 400.0),))
    picture = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    model = {"method": "zhang", "weights": "w", "label_version": "2017", "image_size": 64}
    figure = draw(Localization("a.png", picture, (found,), torch.rand(1, 8, 8), None, model))
    plain, heated, _ = figure.axes
    assert len(heated.images) == len(plain.images) + 1  # the heat map
    assert len(heated.patches) == 1  # the box
    assert any("A  0.90 (threshold 0.50)" in text.get_text() for text in figure.texts)


PROBES = {
    "three-losses": three_losses,
    "eq-1": eq_1,
    "features": features,
    "label-vector": label_vector,
    "eq-2": eq_2,
    "eq-4": eq_4,
    "eq-5": eq_5,
    "eq-6": eq_6,
    "feature-maps": feature_maps,
    "eq-7": eq_7,
    "normalised-map": normalised_map,
    "constant-map": constant_map,
    "rectangle": rectangle,
    "verified-features": verified_features,
    "region-classifier": region_classifier,
    "eq-8": eq_8,
    "region-gradient": eq_8,
    "what-each-loss-trains": what_each_loss_trains,
    "eq-10": eq_10,
    "eq-11": eq_11,
    "predicted-box": predicted_box,
    "dataset": dataset,
    "boxes-of-the-test-set": boxes_of_the_test_set,
    "image-labels-only": image_labels_only,
    "auc": auc,
    "iou-over-t": iou_over_t,
    "cross-validated-thresholds": cross_validated_thresholds,
    "threshold-criterion": threshold_criterion,
    "augmentation": augmentation,
    "divided-once": divided_once,
    "best-model": best_model,
    "table-1": table_1,
    "table-2": table_2,
    "table-3": table_3,
    "figure-3": figure_3,
}
