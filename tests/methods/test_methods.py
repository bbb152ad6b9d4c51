"""What the training loop and the evaluator rely on, for every method."""

import pytest
import torch

from cxrfast.errors import UsageError
from cxrfast.methods import METHODS, get_method
from tests.tolerances import assert_close

PATCHES = {"backbone": "resnetv2_nano", "grid": 6, "hidden": 16}
SMALL = {  # maps of 6×6 for images of 64 pixels, but for GRIDS
    "li": PATCHES,
    "rozenberg": {**PATCHES, "crf_kernel_size": 5, "guide_channels": 8},
    "chexnet": {"backbone": "densenet_nano", "upsample": 3},
    "wang": {"backbone": "resnet_nano", "upsample": 3, "transition_channels": 16},
    "sgl": {"backbone": "resnet_nano", "output_stride": 8},
    "zhang": {"backbone": "densenet_nano", "upsample": 3},
    "yao": {"width": 8, "growth": 4, "dense_layers": 1, "levels": 3},
    "cia": {"backbone": "resnet_nano", "output_stride": 16, "grid": 6, "fine": 1, "hidden": 16, "negatives": 2},
}
GRIDS = {"sgl": 8, "yao": 16}  # where maps are not 6×6


def build(name, **options):
    cls = get_method(name)
    torch.manual_seed(0)
    return cls(("Mass", "Nodule"), 64, cls.Options(**SMALL[name], **options))


def batch(n=6):
    boxes = torch.zeros(n, 2, 1, 4)
    boxes[0, 0, 0] = torch.tensor([10.0, 10.0, 40.0, 40.0])
    has_box = torch.zeros(n, 2, 1, dtype=torch.bool)
    has_box[0, 0] = True
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    return {"image": torch.randn(n, 1, 64, 64), "labels": labels, "boxes": boxes, "has_box": has_box}


@pytest.mark.parametrize("name", METHODS)
def test_every_stage_trains_what_it_says_and_the_loss_falls(name):
    method = build(name)
    data = batch()
    for stage in method.stages(3):
        method.train()
        trainable = [p for n, p in method.named_parameters() if n.startswith(stage.trains)]
        assert trainable
        optimizer = torch.optim.Adam(trainable, lr=3e-3)
        losses = []
        for _ in range(25):
            loss = method.loss(method(data["image"], stage.name), data)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert min(losses[-5:]) < losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_predictions_are_probabilities(name):
    method = build(name).eval()
    for stage in method.stages(3):
        scores, maps = method.predict(torch.randn(3, 1, 64, 64), stage.name)
        assert scores.shape == (3, 2)
        grid = GRIDS.get(name, 6)
        assert maps.shape == (3, 2, grid, grid)
        assert ((scores > 0) & (scores < 1)).all()
        assert ((maps >= 0) & (maps <= 1)).all()
    assert method.map_thresholds.shape == (2,)


def test_rozenberg_trains_unaries_first_and_then_the_crf_alone():
    unary, crf = build("rozenberg").stages(9)
    assert (unary.epochs, crf.epochs) == (9, 3)
    names = [name for name, _ in build("rozenberg").named_parameters()]
    assert not {n for n in names if n.startswith(unary.trains)} & {n for n in names if n.startswith(crf.trains)}
    assert {n for n in names if n.startswith((*unary.trains, *crf.trains))} == set(names)


def test_thresholds_are_buffers_not_parameters():
    method = build("rozenberg")
    assert not any("tau" in name or "rho" in name for name, _ in method.named_parameters())
    assert {"criterion.tau", "criterion.rho", "criterion.tau_hat", "criterion.rho_hat"} <= set(method.state_dict())


def test_thresholds_are_fitted_in_alternation_and_not_at_the_end():
    method = build("rozenberg", fit_every=2)
    stage = method.stages(6)[0]
    calls = []

    def maps():
        calls.append(1)
        data = batch()
        return [(method(data["image"], stage.name).detach(), data)]

    rows = [method.after_epoch(stage, epoch, maps) for epoch in range(1, 7)]
    assert [bool(row) for row in rows] == [False, True, False, True, False, False]
    assert len(calls) == 2


def test_lambda_ann_is_constant_or_falls_in_the_second_half_of_the_unary_stage():
    method = build("rozenberg")
    unary, crf = method.stages(5)
    method.before_epoch(unary, 5)
    assert method.criterion.lambda_ann == 70.0
    method = build("rozenberg", lambda_ann=16.0, lambda_ann_end=1.0)
    values = []
    for stage, epoch in ((unary, 1), (unary, 3), (unary, 4), (unary, 5), (crf, 1)):
        method.before_epoch(stage, epoch)
        values.append(method.criterion.lambda_ann)
    assert values == pytest.approx([16.0, 16.0, 4.0, 1.0, 1.0])


def test_li_s_loss_in_place_of_the_area_loss():
    method, li = build("rozenberg", loss="li", lambda_box=3.0, lambda_ann_end=1.0), build("li", lambda_box=3.0)
    data = batch()
    logits = torch.randn(6, 2, 6, 6)
    assert_close(method.loss(logits, data), li.loss(logits, data))
    assert [stage.name for stage in method.stages(9)] == [stage.name for stage in build("rozenberg").stages(9)]
    method.before_epoch(method.stages(9)[0], 9)  # neither weights nor thresholds to move
    assert method.after_epoch(method.stages(9)[0], 5, list) == {}


def test_unknown_method():
    with pytest.raises(UsageError, match="method: expected one of li, rozenberg, .*got 'zhou'"):
        get_method("zhou")
