"""The presets hold what the text and the published script say."""

import dataclasses
from typing import ClassVar

import pytest

from cxrfast.errors import UsageError
from cxrfast.experiments.bags import PRESETS, BagPlan, find_preset


class Stated:
    """Values as the text (sections 4.1 and 4.2) and the script of the authors have them."""

    all: ClassVar[dict] = {"delta": 0.3, "lam": 1.0, "lr": 1e-4, "weight_decay": 1e-4, "batch_size": 64}
    mnist: ClassVar[dict] = {
        **all,
        "dataset": "mnist",
        "network": "lenet5",
        "train_bags": (50, 100, 150, 200, 300, 500),
        "runs": 10,
        "epochs": (300,),
        "test_bags": 1000,
        "positives": ("natural",),
    }
    by_preset: ClassVar[dict] = {
        "seibold4": {**mnist, "bag_size": (10, 50, 100)},
        "seibold5a": mnist,
        "seibold6": {
            **all,
            "dataset": "cifar10",
            "positive_class": "dog",
            "network": "resnet18",
            "bag_size": (50, 100),
            "bag_size_std": (0.0,),
            "train_bags": (2500,),
            "test_bags": 5000,
            "runs": 5,
            "epochs": (50,),
        },
    }


@pytest.mark.parametrize("name", PRESETS)
def test_values_are_the_papers(name):
    plan = dataclasses.asdict(PRESETS[name].plan)
    assert {field: plan[field] for field in Stated.by_preset[name]} == Stated.by_preset[name]


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_has_one_source(name):
    preset = PRESETS[name]
    named = [*preset.text, *preset.script, *preset.ours]
    assert len(set(named)) == len(named)
    fields = {field.name for field in dataclasses.fields(BagPlan)}
    assert set(named) == fields - {"pool", "steps"}  # each method's own, and none
    assert all(words in preset.sources() for words in ("the text", "the published script", "Our choice"))


def test_grids(squares):
    grid = find_preset("seibold4").plan.grid(squares, seed=3)
    assert len(grid) == 5 * 3 * 6 * 10
    assert {(s.method, s.pool) for s in grid} >= {("sgl", "max"), ("bil", "mean"), ("mmm", "max"), ("mean", None)}
    assert {(s.bag_size, s.bag_size_std) for s in grid} == {(10, 2), (50, 10), (100, 20)}
    assert {s.seed for s in grid} == {3}
    assert [s.method for s in find_preset("seibold5a").plan.grid(squares, 0)[:4]] == [
        "max",
        "sgl-no-rescale-no-weight",
        "sgl-no-weight",
        "sgl",
    ]
    assert len(find_preset("seibold6").plan.grid(squares, 0)) == 4 * 2 * 5 * 5
    with pytest.raises(UsageError, match="preset: expected one of seibold4, seibold5a, seibold6, got 'x'"):
        find_preset("x")


def test_changes():
    plan = find_preset("seibold4").plan
    other = plan.changed({"steps": (40,), "runs": None, "pool": "softmax"})
    assert (other.steps, other.epochs, other.runs) == ((40,), (), 10)
    assert other.differences(plan) == (
        "pool softmax instead of by default",
        "epochs by default instead of 300",
        "steps 40 instead of by default",
    )
    assert other.changed({"epochs": (3,)}).steps == ()
    assert plan.differences(plan) == ()
    with pytest.raises(UsageError, match="either --epochs or --steps"):
        plan.changed({"steps": (1,), "epochs": (1,)})
