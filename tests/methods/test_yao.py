"""After Yao et al. 2018: loss and scores against the formula in NumPy, and weights that need nothing else."""

import numpy as np
import pytest
import torch

from cxrfast.errors import UsageError
from cxrfast.methods import Yao
from cxrfast.regions.rule import RegionRule
from cxrfast.runs.weights import load_weights, save_weights
from cxrfast.training import build_config
from tests.tolerances import assert_close

NAMES = ("Mass", "Nodule", "Edema")
SMALL = {"width": 8, "growth": 4, "dense_layers": 1, "levels": 2, "map_stride": 4}
LABELS = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]], dtype=float)


def yao(**options):
    torch.manual_seed(0)
    method = Yao(NAMES, 32, Yao.Options(**{**SMALL, **options})).double().eval()
    torch.nn.init.normal_(method.network.classifier.weight)
    with torch.no_grad():
        method.pooling.beta.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    return method


def images():
    return torch.randn(4, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def pooled(logits, r0):
    """LSE-LBA as it is printed."""
    s = 1 / (1 + np.exp(-logits))
    r = (r0 + np.exp([-1.0, 0.5, 2.0]))[None, :, None, None]
    w, h = s.shape[2:]
    return 1 / r[..., 0, 0] * np.log(np.exp(r * s).sum(axis=(2, 3)) / (w * h))


@pytest.mark.parametrize("r0", [0.0, 5.0])
def test_loss_and_scores_are_those_of_the_pooled_probability(r0):
    method, x = yao(r0=r0), images()
    with torch.no_grad():
        logits = method.network(x).numpy()
        loss = method.loss(method(x, "saliency"), {"labels": torch.from_numpy(LABELS)})
        scores, maps = method.predict(x, "saliency")
    p = pooled(logits, r0)
    expected = -(LABELS * np.log(p) + (1 - LABELS) * np.log(1 - p)).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert_close(scores.float(), torch.from_numpy(p).float())
    assert maps.shape == (4, 3, 8, 8)
    assert_close(maps.float(), torch.from_numpy(1 / (1 + np.exp(-logits))).float())


def test_the_sharpness_is_learnt_above_its_bound():
    method, x = yao(r0=5.0), images()
    (stage,) = method.stages(7)
    assert stage.epochs == 7
    assert all(name.startswith(stage.trains) for name, _ in method.named_parameters())
    method.loss(method(x, stage.name), {"labels": torch.from_numpy(LABELS)}).backward()
    assert (method.pooling.beta.grad != 0).all()
    assert (method.pooling.sharpness > 5).all()


def test_boxes_make_no_difference():
    method, x = yao(), images()
    batch = {"labels": torch.from_numpy(LABELS), "has_box": torch.ones(4, 3, 1, dtype=torch.bool)}
    output = method(x, "saliency")
    assert torch.equal(method.loss(output, batch), method.loss(output, {"labels": batch["labels"]}))


def test_weights_alone_rebuild_the_network(tmp_path):
    method = yao(r0=3.0).float()
    save_weights(tmp_path / "w.safetensors", method, stage="saliency", label_version="2017")
    loaded, _ = load_weights(tmp_path / "w.safetensors")
    assert loaded.options == method.options
    x = images().float()
    with torch.inference_mode():
        for ours, theirs in zip(loaded.predict(x, "saliency"), method.predict(x, "saliency"), strict=True):
            assert torch.equal(ours, theirs)


def test_defaults():
    config = build_config({"method": "yao", "data": "x"})
    assert (config.image_size, config.options["r0"], config.options["beta"]) == (512, 5.0, 0.0)
    method = Yao(NAMES, 64, Yao.Options(width=8))
    assert method.region_rule == RegionRule()  # the union of all positive cells
    assert method.map_thresholds.tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r0": -1}, "options.r0: expected a number greater than or equal to 0, got -1"),
        ({"r0": float("inf")}, "options.r0: expected a finite number"),
        ({"map_stride": 3}, "options.map_stride: expected 2 or 4"),
        ({"levels": 1}, "options.levels: expected a number greater than or equal to 2"),
        ({"pretrained": True}, "options.pretrained: unknown option"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError, match=message):
        build_config({"method": "yao", "data": "x", "options": options})
