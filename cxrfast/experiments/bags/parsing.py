"""What a user writes for the fields of a plan, as values."""

from collections.abc import Callable, Mapping
from typing import Any

from cxrfast.errors import UsageError
from cxrfast.experiments.bags.drawing import parse_positives
from cxrfast.experiments.bags.methods import Spelling, check_pool


def parse_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a :class:`~cxrfast.experiments.bags.presets.Plan` from text, numbers or comma-separated lists.

    Raises:
        UsageError: a name that is no field, or a value that is none of its field.
    """
    for name in given:
        if name not in _FIELDS:
            raise UsageError(f"{name}: no setting of the bag experiments; they have {', '.join(_FIELDS)}")
    return {name: _FIELDS[name](_option(name), _as_text(value)) for name, value in given.items() if value is not None}


def _option(name: str) -> str:
    return name.replace("_", "-")


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _numbers(least: int, distinct: bool = True) -> Callable[[str, str], tuple[int, ...]]:
    """Comma-separated integers, each once if they are to be distinct."""

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
    """Comma-separated words, each once, that pass a check."""

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
