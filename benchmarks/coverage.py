"""How often the 95 % intervals of the patient bootstrap contain the true value, in simulations.

    python -m cxrfast.benchmarks.coverage            # all rows of the tables in docs/evaluation.md
    python -m cxrfast.benchmarks.coverage accuracy   # those whose name contains a text

Every simulation draws patients from a population whose true values are known, and computes an interval from them.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cxrfast.metrics import bootstrap_interval_with_mean, weighted_auroc, weighted_mean
from cxrfast.metrics.bootstrap import Statistic

# A drawn sample: the statistic, the patients of its rows, and the true values of its classes.
Sample = tuple[Statistic, list[str], Tensor]


@dataclass(frozen=True)
class Scenario:
    """A population, and how often it is sampled."""

    name: str
    draw: Callable[[torch.Generator], Sample]
    simulations: int = 1000
    resamples: int = 200


def several_diseases(
    patients: int,
    frequency: tuple[float, float],
    auroc: tuple[float, float],
    classes: int,
    *,
    by_patient: bool = True,
) -> Callable[[torch.Generator], Sample]:
    """Patients with 1 to 5 images. Scores of a patient have a correlation of ½.

    Frequencies and AUROCs of the classes rise evenly between two values. With ``by_patient`` a class is present on all
    images of a patient or on none; otherwise it is drawn for every image.
    """

    def draw(generator: torch.Generator) -> Sample:
        images = torch.randint(1, 6, (patients,), generator=generator)
        patient = torch.arange(patients).repeat_interleave(images)
        shares, areas = torch.linspace(*frequency, classes), torch.linspace(*auroc, classes)
        labels = torch.rand(patients if by_patient else len(patient), classes, generator=generator) < shares
        labels = labels[patient] if by_patient else labels
        shared = torch.randn(patients, classes, generator=generator) + torch.randn(patients, 1, generator=generator)
        noise = (shared / math.sqrt(2))[patient] + torch.randn(len(patient), classes, generator=generator)
        # Positive and negative scores are normal with variance 2: AUROC = Φ(shift / √(2 + 2)).
        scores = noise + 2 * torch.special.ndtri(areas) * labels
        return weighted_auroc(scores, labels.double()), [str(p) for p in patient.tolist()], areas

    return draw


def several_boxes(boxes: tuple[int, int], accuracy: tuple[float, float], classes: int) -> Callable[..., Sample]:
    """Classes with different numbers of boxes. The share of boxes that are found rises evenly between two values.

    A patient has 1 to 3 boxes of a class. They are found with a correlation of ½. Every fifth patient also has boxes of
    the class before.
    """

    def draw(generator: torch.Generator) -> Sample:
        shares, values, patients = torch.linspace(*accuracy, classes), [], []
        numbers = torch.linspace(*boxes, classes).round().int().tolist()
        for k, (share, number) in enumerate(zip(shares.tolist(), numbers, strict=True)):
            n, left = 0, number
            while left:
                size = min(left, int(torch.randint(1, 4, (), generator=generator)))
                found = torch.randn(1, generator=generator) + torch.randn(size, generator=generator)
                row = torch.full((size, classes), math.nan, dtype=torch.float64)
                row[:, k] = (torch.special.ndtr(found / math.sqrt(2)) < share).double()
                values.append(row)
                patients += [f"{k - (n % 5 == 4)}/{n}"] * size
                left, n = left - size, n + 1
        return weighted_mean(torch.cat(values)), patients, shares

    return draw


SCENARIOS = (
    Scenario("AUROC, 200 patients, 0.80, by patient", several_diseases(200, (0.25, 0.25), (0.8, 0.8), 1)),
    Scenario(
        "AUROC, 200 patients, 0.80, single images",
        several_diseases(200, (0.25, 0.25), (0.8, 0.8), 1, by_patient=False),
    ),
    Scenario("AUROC, 60 patients, 0.80, by patient", several_diseases(60, (0.25, 0.25), (0.8, 0.8), 1)),
    Scenario("AUROC, 200 patients, 0.93, by patient", several_diseases(200, (0.25, 0.25), (0.93, 0.93), 1)),
    Scenario("mean AUROC, 300 patients, 8 classes, 1 to 33 %", several_diseases(300, (0.01, 0.33), (0.7, 0.9), 8)),
    Scenario("mean AUROC, 300 patients, 8 classes, 2 to 33 %", several_diseases(300, (0.02, 0.33), (0.7, 0.9), 8)),
    Scenario(
        "mean AUROC, 150 patients, 8 classes, 2 to 20 %, single images",
        several_diseases(150, (0.02, 0.2), (0.7, 0.9), 8, by_patient=False),
    ),
    Scenario(
        "mean AUROC, 400 patients, 14 classes, 2 to 20 %, single images",
        several_diseases(400, (0.02, 0.2), (0.65, 0.93), 14, by_patient=False),
    ),
    Scenario("mean accuracy, 8 classes, 10 to 30 boxes, 0.3 to 0.8", several_boxes((10, 30), (0.3, 0.8), 8)),
    Scenario("mean accuracy, 14 classes, 10 to 30 boxes, 0.1 to 0.9", several_boxes((10, 30), (0.1, 0.9), 14)),
    Scenario("mean accuracy, 2 classes, 8 and 30 boxes, 0.6 and 0.4", several_boxes((8, 30), (0.6, 0.4), 2)),
    Scenario("mean accuracy, 8 classes, 10 to 30 boxes, 0.02 to 0.10", several_boxes((10, 30), (0.02, 0.1), 8)),
    Scenario("mean accuracy, 8 classes, 10 to 30 boxes, 0.03 to 0.97", several_boxes((10, 30), (0.03, 0.97), 8)),
    Scenario("mean accuracy, 2 classes, 10 and 14 boxes, 0.95 and 0.06", several_boxes((10, 14), (0.95, 0.06), 2)),
)


@dataclass(frozen=True)
class Coverage:
    """The result of one scenario."""

    covered: float  # share of the intervals that contain the true value
    width: float  # mean
    without: float  # share of the simulations without an interval, which are not counted


def simulate(scenario: Scenario) -> Coverage:
    """Draw samples with seeds 0, 1, … and count intervals of the mean over classes that contain the true mean."""
    generator = torch.Generator().manual_seed(0)
    hits, widths = 0, []
    for seed in range(scenario.simulations):
        statistic, patients, values = scenario.draw(generator)
        _, found = bootstrap_interval_with_mean(statistic, patients, resamples=scenario.resamples, seed=seed)
        if not bool(torch.isnan(found.low)):
            hits += bool(found.low <= values.mean() <= found.high)
            widths.append(float(found.high - found.low))
    counted = len(widths)
    return Coverage(hits / counted, sum(widths) / counted, 1 - counted / scenario.simulations)


def main() -> None:
    """Print a table of the scenarios."""
    parser = argparse.ArgumentParser(description="Coverage of the 95 % intervals of the patient bootstrap.")
    parser.add_argument("name", nargs="?", default="", help="only scenarios whose name contains this text")
    chosen = [scenario for scenario in SCENARIOS if parser.parse_args().name in scenario.name]
    print("| population | coverage | mean width | without an interval |\n|---|---|---|---|")
    for scenario in chosen:
        found = simulate(scenario)
        print(f"| {scenario.name} | {found.covered:.1%} | {found.width:.3f} | {found.without:.1%} |", flush=True)


if __name__ == "__main__":
    main()
