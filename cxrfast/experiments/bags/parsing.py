"""Parses what users write for the fields of a plan."""

from collections.abc import Callable, Mapping
from typing import Any

from cxrfast.errors import UsageError
from cxrfast.experiments.bags.drawing import parse_positives
from cxrfast.experiments.bags.methods import Spelling, check_pool


def parse_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a :class:`~cxrfast.experiments.bags.presets.BagPlan` from text, numbers or comma-separated lists.

    Raises:
        UsageError: an unknown field, or a value that does not fit the field.
    """
    for name in given:
        if name not in _FIELDS:
            raise UsageError(f"{name}: unknown setting; expected one of {', '.join(_FIELDS)}")
    return {name: _FIELDS[name](_option(name), _as_text(value)) for name, value in given.items() if value is not None}


def _option(name: str) -> str:
    return name.replace("_", "-")


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _numbers(least: int, distinct: bool = True) -> Callable[[str, str], tuple[int, ...]]:
    """Parser of comma-separated integers of at least `least`; `distinct` removes repetitions."""

    def parse(name: str, text: str) -> tuple[int, ...]:
        try:
            values = [int(part) for part in text.split(",")]
        except ValueError:
            values = []
        if not values or min(values) < least:
            raise UsageError(f"{name}: expected comma-separated numbers of at least {least}, got {text!r}")
        return tuple(dict.fromkeys(values) if distinct else values)

    return parse


def _deviations(name: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= value < float("inf") for value in values):
        raise UsageError(f"{name}: expected comma-separated numbers of at least 0, got {text!r}")
    return values


def _words(check: Callable[[str], Any]) -> Callable[[str, str], tuple[str, ...]]:
    """Parser of comma-separated words that pass a check; repetitions are removed."""

    def parse(name: str, text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        for word in words:
            check(word)
        return words

    return parse


def _number(kind: type[int] | type[float], least: float, above: bool = False) -> Callable[[str, str], Any]:
    def parse(name: str, text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = kind(least - 1)
        if not least <= value < float("inf") or (above and value == least):
            limit = f"above {least:g}" if above else f"of at least {least:g}"
            raise UsageError(f"{name}: expected {'a number' if kind is float else 'an integer'} {limit}, got {text}")
        return value

    return parse


def _text(name: str, text: str) -> str:
    return text


_FIELDS: dict[str, Callable[[str, str], Any]] = {
    "dataset": _text,
    "positive_class": _text,
    "method": _words(Spelling.parse),
    "bag_size": _numbers(1),
    "bag_size_std": _deviations,
    "train_bags": _numbers(2),
    "positives": _words(parse_positives),
    "network": _text,
    "pool": lambda name, text: check_pool(text),
    "delta": _number(float, 0),
    "lam": _number(float, 0),
    "runs": _number(int, 1),
    "epochs": _numbers(1, distinct=False),
    "steps": _numbers(1, distinct=False),
    "batch_size": _number(int, 1),
    "lr": _number(float, 0, above=True),
    "weight_decay": _number(float, 0),
    "val_bags": _number(int, 2),
    "test_bags": _number(int, 2),
}
