"""Numbers over seeds, and what a contribution adds."""

import math

import pytest
import torch

from cxrfast.experiments.study import MEASURES, ROWS, Study, StudyRun, to_markdown
from cxrfast.experiments.study.results import PROTOCOLS, StudyOutcome, summarize
from cxrfast.metrics import auroc
from cxrfast.predictions import Predictions

CLASSES = ("Mass", "Nodule", "Effusion")
STUDY = Study(rows=(ROWS["rozenberg"], ROWS["no-crf"]), shares=(0.05,), seeds=(1, 2))


def made_up(row: str, seed: int, classes: tuple[str, ...] = CLASSES) -> StudyOutcome:
    """An outcome whose numbers are those of its predictions; `classes` only orders the columns."""
    generator = torch.Generator().manual_seed(seed)  # images, labels and boxes depend on the seed, not on the row
    labels = (torch.rand(40, 3, generator=generator) < 0.4).float()
    boxed = (labels == 1) & (torch.rand(40, 3, generator=generator) < 0.8)
    own = torch.Generator().manual_seed(1000 * seed + len(row))
    prob = torch.rand(40, 3, generator=own) * 0.5 + 0.3 * labels
    iou = torch.where(boxed, torch.rand(40, 3, generator=own).double() * 0.4, torch.nan)
    order = [CLASSES.index(name) for name in classes]
    predictions = Predictions(
        class_names=classes,
        images=[f"{n}.png" for n in range(40)],
        patients=[f"{n // 2}" for n in range(40)],
        prob=prob[:, order],
        labels=labels[:, order],
        n_boxes=boxed.long()[:, order],
        iou=iou[:, order],
        ior=iou[:, order],
    )
    numbers = dict.fromkeys(MEASURES, 0.5) | {
        "auroc": auroc(prob, labels).mean().item(),
        "iou 0.1": found(iou),
        "own iou 0.1": found(iou),
    }
    return StudyOutcome(StudyRun(ROWS[row], 0.05, seed), 3, numbers, dict.fromkeys(PROTOCOLS, predictions))


def found(iou: torch.Tensor) -> float:  # [N, K]
    hits = torch.where(iou.isnan(), torch.nan, (iou >= 0.1).double())
    return hits.nanmean(dim=0).mean().item()


def test_a_contribution_is_the_mean_over_seeds_whatever_the_order_of_classes():
    outcomes = [made_up(row, seed) for seed in (1, 2) for row in ("rozenberg", "no-crf")]
    turned = [*outcomes[:2], *(made_up(o.cell.row.name, 2, CLASSES[::-1]) for o in outcomes[2:])]
    for given in (outcomes, turned):
        result = summarize(STUDY, given)
        by_measure = {one.measure: one for one in result.differences}
        assert {one.contribution for one in result.differences} == {"the CRF"}
        one = by_measure["iou 0.1"]
        assert by_measure["own iou 0.1"].difference == one.difference
        assert one.low < one.difference < one.high
        assert one.seeds == (1, 2)
        assert one.per_seed == pytest.approx(
            [a.numbers["iou 0.1"] - b.numbers["iou 0.1"] for a, b in (outcomes[:2], outcomes[2:])]
        )


def test_a_seed_that_only_one_side_has_is_in_no_difference():
    outcomes = [made_up("rozenberg", 1), made_up("rozenberg", 2), made_up("no-crf", 2)]
    result = summarize(STUDY, outcomes)
    assert {one.seeds for one in result.differences} == {(2,)}
    assert [line.seeds for line in result.lines] == [(1, 2), (2,)]
    assert "… without the CRF (1 seeds)" in to_markdown(result)
    assert not summarize(STUDY, outcomes[:2]).differences


def test_the_table_has_the_mean_the_extremes_and_the_best_in_bold():
    outcomes = [made_up(row, seed) for seed in (1, 2) for row in ("rozenberg", "no-crf")]
    lines = summarize(STUDY, outcomes).lines
    for line in lines:
        values = [o.numbers["auroc"] for o in outcomes if o.cell.row == line.row]
        assert line.numbers["auroc"].values == tuple(values)
        assert line.numbers["auroc"].mean == pytest.approx(sum(values) / 2)
    best = max(line.numbers["auroc"].mean for line in lines)
    text = to_markdown(summarize(STUDY, outcomes))
    assert f"**{best:.3f}**" in text
    assert text.count(f"**{best:.3f}**") == 1


def test_a_number_that_a_run_has_not_is_a_dash():
    outcome = made_up("no-crf", 1)
    without = StudyOutcome(outcome.cell, 0, {**outcome.numbers, "pointing": math.nan}, outcome.predictions)
    assert to_markdown(summarize(STUDY, [without])).splitlines()[4].endswith("| – |")
