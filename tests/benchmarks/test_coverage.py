"""The simulated coverage of intervals is what it says."""

import dataclasses
import math

import pytest
import torch

from cxrfast.benchmarks import coverage


def test_a_drawn_sample_has_the_values_of_its_population():
    """Many patients: the AUROCs and the accuracies of a sample are near the true values."""
    generator = torch.Generator().manual_seed(0)
    draws = (
        coverage.several_diseases(20_000, (0.2, 0.3), (0.7, 0.9), 3),
        coverage.several_boxes((40_000, 40_000), (0.3, 0.8), 2),
    )
    for draw in draws:
        statistic, patients, values = draw(generator)
        found = statistic(torch.ones(1, len(patients), dtype=torch.float64))
        torch.testing.assert_close(found[0].double(), values.double(), rtol=0, atol=0.02)


def test_covered_intervals_are_counted(monkeypatch):
    """Intervals that always, never and sometimes contain the true mean of 0.8, or that do not exist."""
    scenario = dataclasses.replace(coverage.SCENARIOS[0], simulations=4)
    ends = iter([(0.0, 1.0), (0.9, 1.0), (math.nan, math.nan), (0.8, 0.9)])

    def interval(statistic, patients, *, resamples, seed):
        low, high = next(ends)
        return None, coverage_of(low, high)

    def coverage_of(low, high):
        return type("Interval", (), {"low": torch.tensor(low), "high": torch.tensor(high)})

    monkeypatch.setattr(coverage, "bootstrap_interval_with_mean", interval)
    found = coverage.simulate(scenario)
    assert found.covered == pytest.approx(2 / 3)
    assert found.width == pytest.approx((1 + 0.1 + 0.1) / 3)
    assert found.without == pytest.approx(1 / 4)


def test_every_scenario_can_be_drawn():
    names = [scenario.name for scenario in coverage.SCENARIOS]
    assert len(set(names)) == len(names)
    for scenario in coverage.SCENARIOS:
        found = coverage.simulate(dataclasses.replace(scenario, simulations=3, resamples=50))
        assert 0 <= found.covered <= 1
        assert found.width > 0
