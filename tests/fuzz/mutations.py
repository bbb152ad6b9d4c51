"""Seeded changes of files: bytes of any file, cells of a table, values of JSON."""

import copy
import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 0.5, -0.5, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf")),
    *("", "x", "nan", "1e999", "../../etc/passwd", "<script>", "\ud800", "a\nb\x1b[2J\u202e", "\0", "é" * 300),
    *([], {}, [[]], [None], ["x"], {"a": 1}, [1, 2, 3, 4], [float("nan")] * 4),
)
CELLS = (
    *("", " ", "nan", "inf", "-1", "0", "1", "0.5", "1e400", "9" * 5000, "٣", "x", "../../etc/passwd", '"', "|"),
    *("\x1b[31m", "\u202e", "a\nb", "No Finding|Mass", "mass", "414Y", "=cmd()", "\0", "C:\\x.png", "1e-400"),
)


def flip(data: bytes, random: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def flip_head(data: bytes, random: random.Random) -> bytes:
    """Headers have the sizes."""
    size = random.choice((16, 64, 512))
    return flip(data[:size], random) + data[size:]


def cut(data: bytes, random: random.Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def remove(data: bytes, random: random.Random) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.choice((1, 4, 64)) :]


def insert(data: bytes, random: random.Random) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + random.choice((b"\0" * 16, b"\xff" * 8, random.randbytes(8), data[:64])) + data[start:]


def large_numbers(data: bytes, random: random.Random) -> bytes:
    """Four bytes that are a huge or a negative number."""
    start = random.randrange(max(min(len(data), 600) - 4, 1))
    return data[:start] + random.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4))) + data[start + 4 :]


BYTES: tuple[Mutation, ...] = (flip, flip_head, cut, remove, insert, large_numbers)


def table(data: bytes, random: random.Random) -> bytes:
    """Changed cells, rows and columns of a CSV file."""
    rows = list(csv.reader(io.StringIO(data.decode())))
    for _ in range(random.choice((1, 1, 2, 3))):
        row = random.choice(rows[: random.choice((2, len(rows)))])
        action = random.choice(("cell", "cell", "cell", "remove", "add", "double", "drop", "shuffle"))
        if action == "cell" and row:
            row[random.randrange(len(row))] = random.choice(CELLS)
        elif action == "remove" and row:
            del row[random.randrange(len(row))]
        elif action == "add":
            row.insert(random.randrange(len(row) + 1), random.choice(CELLS))
        elif action == "double":
            rows.insert(random.randrange(len(rows)), list(row))
        elif action == "drop" and len(rows) > 1:
            rows.remove(row)
        elif action == "shuffle":
            random.shuffle(row)
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def values(data: bytes, random: random.Random) -> bytes:
    """Changed, missing, doubled and renamed values of a JSON file."""
    content = json.loads(data)
    for _ in range(random.choice((1, 1, 2))):
        place = random.choice([*_places(content)] or [()])
        if not place:
            return json.dumps(random.choice(NASTY)).encode("utf-8", "surrogatepass")
        inside = content
        for key in place[:-1]:
            inside = inside[key]
        action = random.choice(("set", "set", "set", "delete", "wrap", "rename", "deep"))
        if action == "set":
            inside[place[-1]] = copy.deepcopy(random.choice(NASTY))
        elif action == "delete":
            del inside[place[-1]]
        elif action == "wrap":
            inside[place[-1]] = [inside[place[-1]]]
        elif action == "deep":
            inside[place[-1]] = "DEEP"
        elif isinstance(inside, dict):
            inside[random.choice(("x", "", "<b>"))] = inside.pop(place[-1])
    text = json.dumps(content)  # surrogates as escapes
    depth = random.choice((10, 900, 100_000))
    return text.replace('"DEEP"', "[" * depth + "]" * depth).encode()


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if above:
        yield above
    if isinstance(value, dict | list) and len(above) < 6:
        keys = list(value) if isinstance(value, dict) else range(min(len(value), 4))
        for key in keys:
            yield from _places(value[key], (*above, key))
