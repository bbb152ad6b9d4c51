"""Results as text, as printed by the runner."""

from cxrfast.benchmarks.case import BenchmarkCase
from cxrfast.benchmarks.results import OURS, BenchmarkRow


def heading(case: BenchmarkCase, passes: str) -> str:
    return f"\n{case.name}  {passes}"


def line(row: BenchmarkRow) -> str:
    name = f"  {row.implementation:<28}"
    if row.median_ms is None:
        return f"{name}{row.note}"
    spread = f"({duration(row.lower_quartile_ms or 0)} – {duration(row.upper_quartile_ms or 0)})"
    parts = [f"{duration(row.median_ms):>8}  {spread:<20}"]
    parts.append(_own(row) if row.implementation == OURS else _beside(row))
    if row.extra_mb is not None:
        parts.append(f"+{row.extra_mb:.0f} MB{_goal(row.goal_extra_mb, 'at most {:.0f}', row.extra_mb, most=True)}")
    if row.note:
        parts.append(row.note)
    return name + "  ".join(part for part in parts if part)


def _own(row: BenchmarkRow) -> str:
    parts = []
    if row.fraction_of_limit is not None:
        rate = f"{row.gflop_s:.0f} GFLOP/s" if row.limit == "fma" else f"{row.gb_s:.1f} GB/s"
        goal = _goal(row.goal_fraction, "{:.0%}", row.fraction_of_limit)
        parts.append(f"{rate}, {row.fraction_of_limit:.0%} of {row.limit}{goal}")
    return "  ".join([*parts, f"error {row.error:.1g}"])


def _beside(row: BenchmarkRow) -> str:
    agrees = "" if row.error is None else f"  ±{row.error:.0e}"
    return f"{times(row.ratio or 0)}{_goal(row.goal_ratio, '{:.3g}×', row.ratio or 0)}{agrees}"


def _goal(goal: float | None, form: str, value: float, most: bool = False) -> str:
    if goal is None:
        return ""
    met = value <= goal if most else value >= goal
    return f" (goal {form.format(goal)}: {'met' if met else 'MISSED'})"


def duration(milliseconds: float) -> str:
    """Three significant digits and a unit."""
    for unit, size in (("s", 1e3), ("ms", 1.0)):
        if milliseconds >= size:
            return f"{milliseconds / size:.3g} {unit}"
    return f"{milliseconds * 1e3:.3g} µs"


def times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def listing(cases: list[BenchmarkCase]) -> str:
    width = max((len(case.name) for case in cases), default=0)
    return "\n".join(f"{case.name:<{width}}  {', '.join(peer.name for peer in case.peers)}" for case in cases)
