"""After Liu et al. 2019: frames, negatives and the loss, each against what it should be."""

import dataclasses
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cxrfast.data import normalize, read_chestxray14, read_some, without_finding
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.inference import load_predictor
from cxrfast.losses import LiLoss
from cxrfast.methods import CIA
from cxrfast.methods._regions import annotated_regions
from cxrfast.methods.cia import CIAOutput
from cxrfast.models import align
from cxrfast.regions.rule import RegionRule
from cxrfast.runs.weights import load_weights, save_weights
from cxrfast.training import build_config, resume, train
from cxrfast.training.loop import Trainer
from tests.tolerances import assert_close

NAMES = ("Mass", "Nodule")
SMALL = {"backbone": "resnet_nano", "output_stride": 16, "grid": 8, "fine": 4, "hidden": 8, "negatives": 5}


def cia(size=64, **options):
    torch.manual_seed(0)
    return CIA(NAMES, size, CIA.Options(**{**SMALL, **options})).eval()


def turn(method, *, angle=0.0, right=0.0, down=0.0):
    """Make the alignment answer with one transformation, whatever the image."""
    wanted = torch.tensor([math.radians(angle), 0.0, 0.0, right, down])
    with torch.no_grad():
        method.alignment.last.bias.copy_(torch.atanh(wanted / method.alignment.bounds))


def images(n=4, size=64, seed=1):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(n=4):
    boxes, has_box = torch.zeros(n, 2, 1, 4), torch.zeros(n, 2, 1, dtype=torch.bool)
    boxes[0, 0, 0] = torch.tensor([8.0, 16.0, 40.0, 48.0])
    boxes[2, 1, 0] = torch.tensor([30.0, 20.0, 60.0, 60.0])
    has_box[0, 0], has_box[2, 1] = True, True
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])  # the box of image 2 has no label
    return {"labels": labels, "boxes": boxes, "has_box": has_box}


def sampler(method, records, folder, **arguments):
    settings = {"batch_size": 4, "seed": 3, "rank": 0, "world_size": 1, **arguments}
    return method.batch_sampler(records, folder, **settings)


def test_alignment_has_a_stage_of_its_own_that_no_score_can_judge():
    method = cia(alignment_epochs=2)
    first, second = method.stages(9)
    assert (first.name, first.epochs, second.name, second.epochs) == ("alignment", 2, "attention", 9)
    names = dict(method.named_parameters())
    assert {name.split(".")[0] for name in names if name.startswith(first.trains)} == {"alignment"}
    assert {name.split(".")[0] for name in names if name.startswith(second.trains)} == {"network"}
    scores, maps = method.predict(images(), first.name)
    assert (scores == 0.5).all()
    assert maps.shape == (4, 2, 32, 32)
    assert (maps == 0).all()
    assert [stage.name for stage in cia(alignment_epochs=0).stages(9)] == ["attention"]


def test_the_first_stage_brings_images_to_the_average_one():
    method, x = cia(), images()
    method.canonical.copy_(images(1, seed=7))
    turn(method, angle=5, right=0.1)
    with torch.no_grad():
        output = method(x, "alignment")
        expected = method.distance(align(x, method.alignment(x)), method.canonical)
        assert_close(output, expected)
        assert_close(method.loss(output, batch()), 10 * expected.mean())


def test_loss_in_the_frame_of_the_image_is_li_s_with_weight_4():
    method, data = cia(), batch()
    logits = torch.randn(4, 2, 8, 8)
    theta = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(4, 2, 3)
    annotated, region = annotated_regions(data, 64, 8, "half")
    expected = LiLoss(4.0)(logits, data["labels"], annotated, region)
    assert_close(method.loss(CIAOutput(logits, theta), data), expected)
    other = cia(lambda_box=1.0).loss(CIAOutput(logits, theta), data)
    assert other < expected


def test_boxes_move_with_the_image():
    """A frame that begins two cells to the right: boxes lie two cells to the left in it."""
    method, data = cia(), batch()
    theta = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]).expand(4, 2, 3)  # a quarter of the side
    logits = torch.randn(4, 2, 8, 8)
    moved = {**data, "boxes": (data["boxes"] - torch.tensor([16.0, 0.0, 16.0, 0.0])).clamp(0, 64)}
    annotated, region = annotated_regions(moved, 64, 8, "half")
    assert_close(method.loss(CIAOutput(logits, theta), data), LiLoss(4.0)(logits, data["labels"], annotated, region))


def test_a_box_that_has_left_the_frame_still_makes_its_class_positive():
    method, data = cia(), batch()
    theta = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -2.0]]).expand(4, 2, 3)  # nothing of the image is in it
    logits = torch.randn(4, 2, 8, 8)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    none = torch.zeros(4, 2, dtype=torch.bool)
    expected = LiLoss(4.0)(logits, labels, none, none[..., None, None].expand(4, 2, 8, 8))
    assert_close(method.loss(CIAOutput(logits, theta), data), expected)


class Bright(nn.Module):
    """In place of the head: a class is where the first feature is high."""

    def forward(self, features):
        return 40 * (features[:, :1] - 0.5).expand(-1, 2, -1, -1)


@pytest.mark.parametrize(("angle", "right", "down"), [(0.0, 0.0, 0.0), (12.0, 0.1, -0.15), (-8.0, -0.2, 0.1)])
@pytest.mark.parametrize("fine", [1, 4])
def test_maps_are_in_the_frame_of_the_original_image(angle, right, down, fine):
    """A bright spot, found by a network that aligns the image first: the map has it where the image has it."""
    method = cia(grid=32, fine=fine, attention="none")
    turn(method, angle=angle, right=right, down=down)
    method.network.head = nn.Sequential(nn.Identity(), Bright())
    method.network.backbone.forward_features = lambda x: torch.nn.functional.avg_pool2d((x + 1) / 2, 2)
    x = torch.full((1, 1, 64, 64), -1.0)
    x[0, 0, 40:48, 10:20] = 1.0  # centre (15, 44) of 64
    with torch.inference_mode():
        theta = method.alignment(x)
        prediction = method.predict(x, "attention")
    assert angle == 0 or (theta[0, 0, 1]).abs() > 0.1
    cells = 32 * fine
    found = (prediction.maps[0, 0] >= 0.5).nonzero().double().mean(dim=0) + 0.5
    assert_close_to = 64 / 32  # pixels of a cell before it is made finer
    assert (found * 64 / cells - torch.tensor([44.0, 15.0])).abs().max() < assert_close_to


def test_negatives_are_held_back_and_the_most_similar_is_taken(phantoms, logged):
    records = read_chestxray14(phantoms).records
    method = cia()
    batches = sampler(method, records, phantoms)
    healthy = set(without_finding(records))
    used = {place for batch in batches for place in batch}
    held_back = set(range(len(records))) - set(batches.places.tolist())
    assert len(held_back) == 5
    assert held_back < healthy
    assert used <= set(batches.places.tolist())
    assert "5 training images without a finding are held back" in logged.messages[-1]
    assert "stored in the weights file" in logged.messages[-1]
    _, pictures, _ = read_some(records, sorted(held_back), 9, 64, title="", progress=False)
    own = normalize(torch.from_numpy(pictures)[:, None])
    # Every image of the library is its own nearest, wherever it stands in it
    assert (method.library(own) - own).abs().max() <= 1 / 255 + 1e-6
    again, other = cia(), cia()
    assert sampler(again, records, phantoms).places.tolist() == batches.places.tolist()
    assert torch.equal(again.library.images, method.library.images)
    assert sampler(other, records, phantoms, seed=4).places.tolist() != batches.places.tolist()
    shares = [list(sampler(cia(), records, phantoms, rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1])


def test_the_canonical_chest_is_the_average_of_training_images(phantoms):
    records = read_chestxray14(phantoms).records[:10]
    method = cia()
    sampler(method, records, phantoms)
    _, pictures, _ = read_some(records, range(10), 10, 64, title="", progress=False)
    assert_close(method.canonical[0, 0], normalize(torch.from_numpy(pictures.mean(axis=0))))


def test_half_of_the_images_without_a_finding_are_trained_on(phantoms):
    records = read_chestxray14(phantoms).records
    healthy = len(without_finding(records))
    method = cia(negatives=1000)
    assert len(sampler(method, records, phantoms).places) == len(records) - healthy // 2
    assert len(torch.unique(method.library.images.flatten(1), dim=0)) == healthy // 2  # repeated to fill it


def test_without_negatives(phantoms):
    records = read_chestxray14(phantoms).records
    ill = [record for record in records if record.labels]
    with pytest.raises(
        CxrfastError, match="no training image is known to be without a finding.* --set attention=none"
    ) as failure:
        sampler(cia(), ill, phantoms)
    assert "\n" not in str(failure.value)
    method = cia(attention="none")
    assert sampler(method, ill, phantoms) is None
    assert not any(name.startswith("library") for name in method.state_dict())
    assert method.canonical.abs().sum() > 0
    gone = [dataclasses.replace(record, path=record.path.with_suffix(".gone")) for record in records]
    with pytest.raises(CxrfastError, match="none of the training images without a finding can be read"):
        sampler(cia(), gone, phantoms)


def test_the_library_is_aligned_once(phantoms):
    method = cia()
    sampler(method, read_chestxray14(phantoms).records, phantoms)
    turn(method, angle=10, right=0.1)
    alignment, attention = method.stages(3)
    before = method.library.images.clone()
    method.before_epoch(alignment, 1)
    assert torch.equal(method.library.images, before)
    method.before_epoch(attention, 1)
    raw = before.float() / 127.5 - 1
    with torch.no_grad():
        expected = align(raw, method.alignment(raw))
    assert (method.library.images.float() / 127.5 - 1 - expected).abs().max() <= 1 / 255 + 1e-5
    aligned = method.library.images.clone()
    method.before_epoch(attention, 2)
    assert torch.equal(method.library.images, aligned)


def test_weights_alone_are_enough_to_compare_with_negatives(phantoms, tmp_path):
    method = cia()
    sampler(method, read_chestxray14(phantoms).records, phantoms)
    turn(method, angle=4)
    save_weights(tmp_path / "w.safetensors", method, stage="attention", label_version="2017")
    loaded, _ = load_weights(tmp_path / "w.safetensors")
    x = images()
    with torch.inference_mode():
        for ours, theirs in zip(loaded.predict(x, "attention"), method.predict(x, "attention"), strict=True):
            assert torch.equal(ours, theirs)
        method.library.fill(images(5, seed=9))
        assert not torch.equal(method.predict(x, "attention").maps, theirs)  # they have a part in it


def test_defaults():
    config = build_config({"method": "cia", "data": "x"})
    assert (config.image_size, config.epochs, config.lr, config.lr_decay, config.lr_step) == (512, 9, 1e-3, 0.1, 4)
    assert config.optimizer == "sgd"
    assert (config.weight_decay, config.options["lambda_box"], config.options["backbone"]) == (1e-4, 4.0, "resnet50")
    assert (config.options["grid"], config.options["fine"]) == (16, 8)  # 16×16 cells, 128×128 in testing
    method = cia()
    assert method.region_rule == RegionRule()
    assert method.map_thresholds.tolist() == [0.5] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "self"}, "options.attention: expected 'contrast' or 'none', got 'self'"),
        ({"negatives": 0}, "options.negatives: expected a number greater than or equal to 1"),
        ({"alignment_epochs": -1}, "options.alignment_epochs: expected a number greater than or equal to 0"),
        ({"lambda_boxes": 4}, "options.lambda_boxes: unknown option; did you mean lambda_box?"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError, match=message):
        build_config({"method": "cia", "data": "x", "options": options})


def test_a_run_that_stopped_goes_on_as_if_it_had_not(phantoms, tmp_path, monkeypatch):
    settings = {
        "method": "cia", "data": phantoms, "image_size": 64, "epochs": 2, "batch_size": 8, "device": "cpu",
        "options": {**SMALL, "alignment_epochs": 1},
    }  # fmt: skip
    whole = train(build_config(settings), tmp_path / "whole")
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in whole.read_metrics()]
    assert [(row["stage"], row["epoch"]) for row in rows] == [("alignment", 1), ("attention", 1), ("attention", 2)]
    epoch, done = Trainer._epoch, []

    def interrupted(*args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return epoch(*args)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(build_config(settings), tmp_path / "run")
    monkeypatch.undo()
    run = resume(tmp_path / "run")
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in run.read_metrics()] == rows
    ours, theirs = load_file(run.last), load_file(whole.last)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert load_predictor(run.path).method == "cia"
    result = evaluate_run(run.path, protocol="own").result
    assert str(result.localization.rule) == "patches of every component, map ≥ the threshold"
