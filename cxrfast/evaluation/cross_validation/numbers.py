"""Numbers of a cross-validation: mean ± sd over the runs, and pooled over the test images of all folds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cxrfast.evaluation.cross_validation.record import MeanSpreadRecord, SpreadRecord
from cxrfast.metrics.classification import mean_without_nan


@dataclass(frozen=True)
class Spread:
    """One number over the runs of a cross-validation."""

    values: tuple[float, ...]  # one per run; NaN where a run has none
    pooled: float  # over the test images of all folds together, mean over seeds; NaN if a fold is missing
    interval: tuple[float, float] = (math.nan, math.nan)  # 95 %, of the pooled number, by patient; NaN: none

    @property
    def present(self) -> list[float]:
        """The values that are not NaN."""
        return [value for value in self.values if not math.isnan(value)]

    @property
    def exists(self) -> bool:
        return bool(self.present) or not math.isnan(self.pooled)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.present) if self.present else math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation (n − 1)."""
        return statistics.stdev(self.present) if len(self.present) > 1 else math.nan

    @property
    def record(self) -> SpreadRecord:
        return SpreadRecord(**self._fields())

    def _fields(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "sd": self.sd,
            "n": len(self.present),
            "pooled": self.pooled,
            "interval": None if any(map(math.isnan, self.interval)) else self.interval,
            "values": self.values,
        }


@dataclass(frozen=True)
class Column:
    """One number of every class, and its mean over classes."""

    classes: tuple[Spread, ...]  # [K]
    class_names: tuple[str, ...]  # [K]
    mean_interval: tuple[float, float] = (math.nan, math.nan)  # of the pooled mean

    @property
    def mean(self) -> Spread:
        """Mean over the classes that have a value: in a run, for its own mean; in any fold, for the pooled mean."""
        runs = zip(*(number.values for number in self.classes), strict=True)
        values = tuple(mean_without_nan(run, self.class_names).value for run in runs)
        return Spread(
            values, mean_without_nan([n.pooled for n in self.classes], self.class_names).value, self.mean_interval
        )

    @property
    def mean_record(self) -> MeanSpreadRecord:
        pairs = list(zip(self.class_names, self.classes, strict=True))
        return MeanSpreadRecord(
            **self.mean._fields(),
            left_out=tuple(name for name, number in pairs if not number.present),
            incomplete=tuple(name for name, number in pairs if 0 < len(number.present) < len(number.values)),
        )


def average(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan
