"""Estimated cost of a table on one GPU machine; it was not measured on one.

The time is the number of images × passes, divided by the lower of two rates in images/s:

- GPU: an assumed sustained FLOP/s, divided by the floating-point operations of the network per training image at the
  paper's setting, as counted by torch;
- data loading: the number of data-loader workers × the measured rate of one core for copies of 512×512 pixels.

Validation and test images count one third, because they need only the forward pass.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cxrfast.experiments.reproduction.plans import PlannedRun, TablePlan
from cxrfast.experiments.reproduction.settings import Overrides, run_config
from cxrfast.methods import Stage
from cxrfast.training.schedule import plan_legs

GFLOP = {
    "li": 147.9, "rozenberg": 183.0, "sgl": 125.3, "wang": 131.7, "chexnet": 16.4, "zhang": 16.5, "yao": 108.9,
    "cia": 265.0,
}  # fmt: skip
"""FLOP per training image at the method's defaults, forward and backward; a multiply-add counts as 2."""

PARAMETERS = {
    "li": 32.9e6, "rozenberg": 33.0e6, "sgl": 23.5e6, "wang": 27.7e6, "chexnet": 7.0e6, "zhang": 7.0e6, "yao": 11.3e6,
    "cia": 33.0e6,
}  # fmt: skip
SUSTAINED = 20e12  # assumed FLOP/s: a data-centre GPU on float32 convolutions with TF32
PROCESSES = 16  # assumed number of data-loader workers
READ = 50.0  # measured images/s of one worker for copies of 512×512; 13 for originals of 1024×1024
DATA_GB = 45.0  # size of the released images
_TRAIN_VAL, _TEST, _BOXED, _ALL = 86_524, 25_596, 880, 112_120  # images of ChestX-ray14


@dataclass(frozen=True)
class Cost:
    """The cost of one or several runs."""

    images: float  # passes of images through the network in training, over all epochs
    hours: float
    disk_gb: float  # without the data set

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.images + other.images, self.hours + other.hours, self.disk_gb + other.disk_gb)


def run_cost(run: PlannedRun, table: TablePlan) -> Cost:
    """The cost of a run at the paper's setting, on all of ChestX-ray14."""
    config = run_config(run, table, Path("data"), Overrides())
    options = config.method_options()
    legs = plan_legs([Stage("first", config.epochs, ())], config)
    epochs = sum(leg.epochs for leg in legs) + _crf_epochs(config.epochs, options)
    if run.unannotated is not None:
        trainings = table.folds
        annotated = _BOXED * (1 - 1 / table.folds)
        pool = annotated + run.unannotated * (_ALL - _BOXED)
        test = _BOXED / table.folds
    else:
        trainings, pool, test = 1, float(_TRAIN_VAL), float(_TEST)
    val, train = config.val_share * pool, (1 - config.val_share) * pool
    passes = 3 if getattr(options, "triplet", None) else 1  # anchor, positive and negative
    trained = epochs * passes * train
    seen = trained + epochs * val / 3 + 2 * test / 3
    rate = min(SUSTAINED / (GFLOP[run.method] * 1e9), PROCESSES * READ)
    # Best weights, last weights, and a checkpoint with Adam's two moments; predictions and maps
    disk = trainings * (PARAMETERS[run.method] * 4 * 5 + test * 14 * 100 + _BOXED * 14 * 56**2 * 4) / 1e9
    return Cost(trainings * trained, trainings * seen / rate / 3600, disk)


def _crf_epochs(epochs: int, options: object) -> int:
    if not hasattr(options, "crf_epochs"):
        return 0
    return max(1, epochs // 3) if options.crf_epochs is None else options.crf_epochs


def table_cost(table: TablePlan, runs: Iterable[PlannedRun]) -> Cost:
    return sum((run_cost(run, table) for run in runs), Cost(0.0, 0.0, 0.0))
