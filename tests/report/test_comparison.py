"""Two runs side by side: the paired test is that of cxrfast.evaluation, on the images that both have."""

from dataclasses import replace

import pytest
import torch

from cxrfast.errors import UsageError
from cxrfast.evaluation import paired_bootstrap_with_mean, weighted_auroc, weighted_mean
from cxrfast.report import compare, render_comparison
from tests.report.made_up import made_up


def other_scores(evaluated, seed=1):
    generator = torch.Generator().manual_seed(seed)
    predictions = evaluated.predictions
    noise = 0.3 * torch.randn(predictions.prob.shape, generator=generator)
    changed = replace(predictions, prob=(predictions.prob + noise).clamp(0.01, 0.99), iou=predictions.iou * 0.8)
    return replace(evaluated, predictions=changed, run=replace(evaluated.run, name="other"))


def test_it_is_the_paired_bootstrap(tmp_path):
    first = made_up(tmp_path, 80, ("Mass", "Nodule"))
    second = other_scores(first)
    found = compare(first, second)
    measures = {measure.title: measure.lines for measure in found.measures}
    a, b = first.predictions, second.predictions
    for title, statistics in (
        ("AUROC", [weighted_auroc(run.prob, run.labels) for run in (b, a)]),
        ("mean IoU", [weighted_mean(run.iou) for run in (b, a)]),
        ("found at IoU ≥ 0.3", [weighted_mean((run.iou >= 0.3).double() / ~run.iou.isnan()) for run in (b, a)]),
    ):
        expected, of_mean = paired_bootstrap_with_mean(*statistics, a.patients)
        for k, line in enumerate(measures[title][:2]):
            values = (line.difference, line.low, line.high, line.p_value)
            torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), torch.stack([c[k] for c in expected]))
            assert line.second - line.first == pytest.approx(line.difference)
        mean = measures[title][2]
        assert mean.name == "mean"
        assert mean.difference == pytest.approx(sum(line.difference for line in measures[title][:2]) / 2)
        assert (mean.difference, mean.low, mean.high, mean.p_value) == tuple(column.item() for column in of_mean)
    assert all(line.better == "first" for line in measures["mean IoU"])
    assert "other" in found.to_text()
    assert max(map(len, found.to_text().splitlines())) <= 100
    assert '<td class="better-first">' in render_comparison(found)


def test_a_run_is_no_better_than_itself(tmp_path):
    run = made_up(tmp_path, 40, ("Mass", "Nodule"))
    found = compare(run, run)
    assert found.names == ("nowhere.safetensors (1)", "nowhere.safetensors (2)")
    for measure in found.measures:
        assert all(line.difference == 0 and not line.significant for line in measure.lines)


def test_only_common_images_and_classes_count(tmp_path):
    first = made_up(tmp_path, 60, ("Mass", "Nodule"))
    predictions = first.predictions
    rows = slice(10, 60)
    part = replace(
        predictions,
        class_names=("Nodule",),
        images=predictions.images[rows],
        patients=predictions.patients[rows],
        **{name: getattr(predictions, name)[rows, 1:] for name in ("prob", "labels", "n_boxes", "iou", "ior")},
    )
    found = compare(first, replace(first, predictions=part))
    assert (found.n_images, found.n_patients) == (50, 25)
    assert [line.name for line in found.measures[0].lines] == ["Nodule"]
    assert any("10 images" in note for note in found.notes)
    assert any("Mass" in note for note in found.notes)


def test_what_cannot_be_compared_is_refused(tmp_path):
    first = made_up(tmp_path, 20, ("Mass",))
    other = made_up(tmp_path, 20, ("Mass",), protocol="li2018")
    with pytest.raises(UsageError, match="protocol strict, nowhere.safetensors .2. by li2018; evaluate both by one"):
        compare(first, other)
    with pytest.raises(UsageError, match="have no class in common"):
        compare(first, made_up(tmp_path, 20, ("Nodule",)))
    with pytest.raises(UsageError, match="different labels"):
        compare(first, made_up(tmp_path, 20, ("Mass",), seed=5))
    strangers = replace(first.predictions, images=[f"x{name}" for name in first.predictions.images])
    with pytest.raises(UsageError, match="have no image in common"):
        compare(first, replace(first, predictions=strangers))
