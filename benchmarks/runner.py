"""Runs cases and reports the results."""

import datetime
import logging
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import cxrfast
from cxrfast._logging import get_logger
from cxrfast.benchmarks import results
from cxrfast.benchmarks.case import BenchmarkCase, Function, Goal, Peer
from cxrfast.benchmarks.machine import Machine, file_stem, measure_machine
from cxrfast.benchmarks.measure import (
    Call,
    Clock,
    difference,
    error_to_float64,
    extra_memory,
    free_memory,
    in_turns,
    make_call,
)
from cxrfast.benchmarks.peers import missing
from cxrfast.benchmarks.results import OURS, BenchmarkRow
from cxrfast.benchmarks.table import heading, line

logger = get_logger(__name__)

# Maximum relative difference between two implementations' results that is not reported.
_SAME = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class BenchmarkSettings:
    device: torch.device
    dtype: torch.dtype
    libraries: Sequence[str]
    quick: bool = False  # small problems and few rounds, to check that everything runs

    @property
    def budget(self) -> float:
        """Seconds for every implementation of a case."""
        return 0.0 if self.quick else 1.0

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 50


def run(cases: Sequence[BenchmarkCase], settings: BenchmarkSettings, folder: Path) -> Path:
    """Measure the cases and write them to the device's file in `folder`, after each pass, so that an interruption loses
    nothing."""
    # torch.compile warns on machines without a GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    clock = Clock(settings.device)
    machine = measure_machine(settings.device, clock, settings.quick)
    logger.info(
        f"{machine.device}, {torch.get_num_threads()} threads, {_name(settings.dtype)}: "
        f"copies {machine.copy / 1e9:.1f} GB/s (into new memory {machine.allocating_copy / 1e9:.1f}), "
        f"multiplies {machine.fma / 1e9:.0f} GFLOP/s"
    )
    path = folder / f"{file_stem(machine.device)}{'-quick' if settings.quick else ''}.csv"
    template = _template(machine, settings)
    absent: dict[str, str] = {}
    for case in cases:
        if settings.device.type not in case.devices:
            continue
        torch.compiler.reset()  # torch.compile has a limit on recompilations
        measurement = _Measurement(case, settings, machine, clock, template)
        for passes in case.work:
            logger.info(heading(case, passes))
            rows = measurement.run(passes)
            for row in rows:
                logger.info(line(row))
            results.write(path, rows)
            missed = (row for row in rows if row.note.startswith("not installed"))
            absent |= {row.implementation.split(" (")[0]: row.note for row in missed}
    for library, reason in absent.items():
        logger.warning(f"{library}: {reason}")
    return path


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _template(machine: Machine, settings: BenchmarkSettings) -> dict[str, Any]:
    return {
        "device": machine.device,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "cxrfast": cxrfast.__version__,
        "commit": results.commit(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "dtype": _name(settings.dtype),
        "copy_gb_s": machine.copy / 1e9,
        "sgemm_gflop_s": machine.fma / 1e9,
    }


class _Measurement:
    """One case, with all of its implementations."""

    def __init__(
        self,
        case: BenchmarkCase,
        settings: BenchmarkSettings,
        machine: Machine,
        clock: Clock,
        template: dict[str, Any],
    ) -> None:
        self.case, self.settings, self.machine, self.clock, self.template = case, settings, machine, clock, template
        shape = case.small_shape if settings.quick else case.shape
        self.problem = case.make(shape, settings.device, settings.dtype)
        self.small = case.make(case.small_shape, settings.device, settings.dtype)

    def run(self, passes: str) -> list[BenchmarkRow]:
        goal = Goal() if self.settings.quick else self.case.goals.get(passes, Goal())
        ours = self._row(passes, OURS, error=error_to_float64(self.small, passes, self.settings.dtype))
        calls = {OURS: self._call(self.problem.ours, passes)}
        rows = {OURS: ours}
        calls[OURS]()
        ours.extra_mb = _megabytes(extra_memory(calls[OURS], self.settings.device))
        ours.goal_extra_mb, ours.goal_fraction = goal.extra_megabytes, goal.fraction
        for peer in self.case.peers:
            if peer.library not in self.settings.libraries or self.settings.device.type not in peer.devices:
                continue
            row = rows[peer.name] = self._row(passes, peer.name, note=self._obstacle(peer, passes))
            row.goal_ratio = goal.ratio(peer)
            if not row.note:
                self._prepare(peer, passes, row, calls)
        settings = self.settings
        times = in_turns(calls, self.clock, settings.budget, settings.rounds, launches=not self.case.limit)
        for name, seconds in times.items():
            _fill_times(rows[name], seconds, times[OURS])
        self._fill_rates(ours, passes)
        return list(rows.values())

    def _row(self, passes: str, implementation: str, **values: Any) -> BenchmarkRow:
        identity: dict[str, Any] = {"case": self.case.name, "operator": self.case.operator, "passes": passes}
        return BenchmarkRow(**self.template, **identity, implementation=implementation, limit=self.case.limit, **values)

    def _call(self, function: Function, passes: str) -> Call:
        return make_call(function, self.problem.inputs, passes, self.settings.dtype)

    def _obstacle(self, peer: Peer, passes: str) -> str:
        reason = missing(peer.library)
        free = free_memory(self.settings.device)
        needed = peer.memory.get(passes, 0)
        if reason is None and not self.settings.quick and free is not None and needed > 0.9 * free:
            return f"skipped: needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        return reason or ""

    def _prepare(self, peer: Peer, passes: str, row: BenchmarkRow, calls: dict[str, Call]) -> None:
        """Set up a compared implementation, check its result against ours, measure its memory, and add it to the timed
        calls. Any exception in it becomes the row's note."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function = peer.make(self.problem)
                call = self._call(torch.compile(function, dynamic=False) if peer.compile else function, passes)
                theirs = call()
                row.note = self._compare(peer, passes, row, calls[OURS], theirs)
                del theirs
                row.extra_mb = _megabytes(extra_memory(call, self.settings.device))
            calls[peer.name] = call
        except Exception as error:
            text = " ".join(str(error).split())
            row.note = f"failed: {type(error).__name__}: {text[:120]}"

    def _compare(self, peer: Peer, passes: str, row: BenchmarkRow, ours: Call, theirs: object) -> str:
        if peer.differs:
            return f"not the same function: {peer.differs}"
        mine = self._call(peer.same_as, passes)() if peer.same_as else ours()
        row.error = (peer.compare or difference)(mine, theirs)
        return "" if row.error <= _SAME[self.settings.dtype] else f"its result differs by {row.error:.1g}"

    def _fill_rates(self, row: BenchmarkRow, passes: str) -> None:
        work = self.case.work[passes]
        if not self.case.limit or self.settings.quick or row.median_ms is None:
            return
        seconds = row.median_ms / 1e3
        row.gb_s = work.bytes(self.settings.dtype) / seconds / 1e9
        row.gflop_s = work.operations / seconds / 1e9 or None
        amount = work.operations if self.case.limit == "fma" else work.bytes(self.settings.dtype)
        row.fraction_of_limit = amount / seconds / self.machine.limit(self.case.limit)


def _megabytes(size: int | None) -> float | None:
    return None if size is None else size / 2**20


def _fill_times(row: BenchmarkRow, seconds: list[float], ours: list[float]) -> None:
    milliseconds = [1e3 * each for each in seconds]
    quartiles = statistics.quantiles(milliseconds, method="inclusive") if len(milliseconds) > 1 else milliseconds * 3
    row.lower_quartile_ms, row.median_ms, row.upper_quartile_ms = quartiles
    row.rounds = len(milliseconds)
    row.ratio = statistics.median(theirs / mine for theirs, mine in zip(seconds, ours, strict=False))
