"""Two runs side by side: the paired test is that of cxrfast.evaluation, on the images that both have."""

from dataclasses import replace

import pytest
import torch

from cxrfast.errors import UsageError
from cxrfast.evaluation import PROTOCOLS
from cxrfast.metrics import paired_bootstrap_with_mean, weighted_auroc, weighted_mean
from cxrfast.regions.rule import RegionRule
from cxrfast.report import compare, render_comparison
from cxrfast.report.comparison import compare_predictions
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
        ("mean IoU, before any gate", [weighted_mean(run.iou) for run in (b, a)]),
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
    assert all(line.better == "first" for line in measures["mean IoU, before any gate"])
    assert "other" in found.to_text()
    assert max(map(len, found.to_text().splitlines())) <= 100
    assert '<td class="better-first">' in render_comparison(found)


def test_a_run_is_no_better_than_itself(tmp_path):
    run = made_up(tmp_path, 40, ("Mass", "Nodule"))
    found = compare(run, run)
    assert found.names == ("nowhere.safetensors (1)", "nowhere.safetensors (2)")
    for measure in found.measures:
        assert all(line.difference == 0 and not line.significant for line in measure.lines)


@pytest.fixture
def gates(tmp_path, monkeypatch):
    """Two evaluations by a protocol whose gates are open for different images."""
    monkeypatch.setattr("cxrfast.report.comparison.RESAMPLES", 20)

    def call(protocol, thresholds=((), ())):
        first = made_up(tmp_path, 40, ("Mass", "Nodule"), protocol=protocol, thresholds=thresholds[0], point=0.6)
        second = made_up(
            *(tmp_path, 40, ("Mass", "Nodule")),
            protocol=protocol,
            rule=RegionRule(gate=0.62),
            threshold=0.6,
            noise=0.3,
            thresholds=thresholds[1],
        )
        return first, second

    return call


def found_at(measures):
    return [
        (m.title, line.name, line.first, line.second) for m in measures if "found at" in m.title for line in m.lines
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shares_found_are_those_of_the_evaluations(gates, protocol):
    runs = gates(protocol)
    expected, titles = [], []
    tables = zip(*(run.record.localization.tables for run in runs), strict=True)
    for table in tables:
        for rows in zip(*(side.rows for side in table), strict=True):
            titles.append((f"{table[0].relation} {rows[0].T:g}", {str(side.gate) for side in table}))
            for name in ("Mass", "Nodule"):
                expected.append((name, *(row.classes[name].accuracy for row in rows)))
            expected.append(("mean", *(row.mean.value for row in rows)))
    found = found_at(compare(*runs).measures)
    assert [name for _, name, _, _ in found] == [name for name, _, _ in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[2:] == pytest.approx(theirs[1:], abs=1e-12)
    for (title, *_), (place, words) in zip(found[::3], titles, strict=True):
        assert place in title
        assert all((gate or "found") in title for gate in words)
    ungated = found_at(compare_predictions(*(run.predictions for run in runs), protocol))
    shut = [sum(line[side] for line in found) < sum(line[side] for line in ungated) for side in (2, 3)]
    assert shut == [protocol == "seibold2020", protocol in ("seibold2020", "own")]  # the gates do something here


def test_what_neither_run_has_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("cxrfast.report.comparison.RESAMPLES", 20)
    run = made_up(tmp_path, 40, ("Mass", "Nodule", "Edema"), boxed=("Mass", "Nodule"))
    found = compare(run, run)
    assert [[line.name for line in measure.known] for measure in found.shown[1:3]] == [
        ["Mass", "Nodule", "Edema", "mean"],
        ["Mass", "Nodule", "mean"],
    ]
    (note,) = found.not_shown
    assert note == "Not shown, as neither run has numbers: places of Edema."
    html = render_comparison(found)
    for page in (html.split('<section id="curves"')[0], found.to_text()):
        assert page.count("Edema") == 2 + 1  # AUROC, AP, and the note
        assert note in page
    nowhere = replace(run.predictions, prob=torch.full_like(run.predictions.prob, torch.nan))
    found = compare(*[replace(run, predictions=nowhere)] * 2)
    assert not {"AUROC", "average precision"} & {measure.title for measure in found.shown}
    assert (
        found.not_shown[0] == "Not shown, as neither run has numbers: AUROC, average precision of Mass, Nodule, Edema."
    )


def test_only_common_t_are_compared(gates):
    found = compare(*gates("li2018", ((0.2, 0.4), (0.4, 0.6))))
    assert [measure.title for measure in found.measures][3:] == ["found at IoU ≥ 0.4", "found at IoR ≥ 0.4"]
    assert (
        "Only one of the two was evaluated at IoU ≥ 0.2, IoU ≥ 0.6, IoR ≥ 0.2, IoR ≥ 0.6; these T are left out."
        in found.notes
    )


def test_evaluations_of_other_tables_are_refused(gates):
    first, second = gates("seibold2020")
    place = second.record.localization
    for change in ({"inclusive": True}, {"measure": "ior"}):
        tables = tuple(table.model_copy(update=change) for table in place.tables)
        other = second.record.model_copy(update={"localization": place.model_copy(update={"tables": tables})})
        with pytest.raises(UsageError, match="protocol: expected one definition of seibold2020, got different ones"):
            compare(first, replace(second, record=other))


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


def test_many_images_are_matched_in_one_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("cxrfast.report.comparison.RESAMPLES", 2)
    run = made_up(tmp_path, 200, ("Mass",))
    lookups = 0

    class Name(str):
        __slots__ = ()

        def __hash__(self):
            nonlocal lookups
            lookups += 1
            return super().__hash__()

    named = replace(run, predictions=replace(run.predictions, images=[Name(name) for name in run.predictions.images]))
    assert compare(named, named).n_images == 200
    assert lookups < 10 * 200


def test_what_cannot_be_compared_is_refused(tmp_path):
    first = made_up(tmp_path, 20, ("Mass",))
    other = made_up(tmp_path, 20, ("Mass",), protocol="li2018")
    with pytest.raises(
        UsageError,
        match="protocol: expected the same for both, got strict for .* and li2018 for .* .2.; evaluate both by one",
    ):
        compare(first, other)
    with pytest.raises(UsageError, match="have no class in common"):
        compare(first, made_up(tmp_path, 20, ("Nodule",)))
    with pytest.raises(UsageError, match="labels: expected the same for both, got .* and other labels"):
        compare(first, made_up(tmp_path, 20, ("Mass",), seed=5))
    strangers = replace(first.predictions, images=[f"x{name}" for name in first.predictions.images])
    with pytest.raises(UsageError, match="have no image in common"):
        compare(first, replace(first, predictions=strangers))
