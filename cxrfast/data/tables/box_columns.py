"""Finds the columns of a table that hold boxes, by the names that are in use."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["corners", "sides", "centre"]

# In order of preference among sets that begin with the same columns.
_SETS: tuple[tuple[Kind, tuple[str, str, str, str]], ...] = (
    ("corners", ("x1", "y1", "x2", "y2")),
    ("corners", ("xmin", "ymin", "xmax", "ymax")),
    ("corners", ("left", "top", "right", "bottom")),
    ("corners", ("xtl", "ytl", "xbr", "ybr")),
    ("corners", ("x0", "y0", "x1", "y1")),
    *(("sides", (x, y, "w", "h")) for x, y in (("x", "y"), ("xmin", "ymin"), ("left", "top"), ("x1", "y1"))),
    ("sides", ("bboxx", "y", "w", "h")),  # ChestX-ray14's own table
    ("sides", ("bboxx", "bboxy", "bboxw", "bboxh")),
    ("sides", ("bboxx", "bboxy", "bboxwidth", "bboxheight")),
    ("corners", ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax")),
    ("corners", ("bboxx1", "bboxy1", "bboxx2", "bboxy2")),
    *(("sides", (x, y, "width", "height")) for x, y in (("x", "y"), ("xmin", "ymin"), ("left", "top"), ("x1", "y1"))),
    *(
        ("centre", (x, y, w, h))
        for w, h in (("w", "h"), ("width", "height"))
        for x, y in (("xcenter", "ycenter"), ("xcentre", "ycentre"), ("cx", "cy"))
    ),
)
_IMAGE_SIZES = (
    ("framewidth", "frameheight"),
    ("imagewidth", "imageheight"),
    ("imgwidth", "imgheight"),
    ("originalwidth", "originalheight"),
    ("width", "height"),
)
_BOX_IN_ONE_CELL = ("bbox", "box", "bndbox", "boundingbox", "predictionstring")
_ORDINARY = frozenset({"width", "height"})  # these may be of the image, beside no box at all

COORDINATES = frozenset(name for _, names in _SETS for name in names) - _ORDINARY | frozenset(_BOX_IN_ONE_CELL)
"""Keys of columns that hold boxes, or parts of them."""


def column_key(name: str) -> str:
    """A column's name without case, spaces and punctuation: "X_min" and "xmin" are the same."""
    return re.sub(r"[\W_]+", "", name).casefold()


@dataclass(frozen=True)
class BoxColumns:
    """The columns of boxes in a table.

    Two corners, a corner with the sides, or a centre with the sides are found under these names, in any case and with
    or without underscores: ``x1, y1, x2, y2``; ``xmin, ymin, xmax, ymax``; ``left, top, right, bottom``;
    ``x0, y0, x1, y1``; ``xtl, ytl, xbr, ybr``; ``x, y, w, h`` and ``x, y, width, height`` (also from ``xmin, ymin``,
    ``left, top`` or ``x1, y1``); ``x_center, y_center`` or ``cx, cy`` with the sides.

    ``width`` and ``height`` are the sides of the box only if no other columns complete it. Otherwise they are the size
    of the image, as ``image_width`` and ``image_height`` always are.
    """

    kind: Kind
    places: tuple[int, int, int, int]
    names: tuple[str, ...]  # as the table has them
    size: tuple[int, int] | None  # places of the image's width and height
    unused: tuple[str, ...]  # further columns of boxes, which are not read
    size_may_be_sides: bool  # the size is in columns width and height, which some tables use for the box

    @property
    def uses_width(self) -> bool:
        """Whether the columns width and height are sides of the box."""
        return not _ORDINARY.isdisjoint(map(column_key, self.names))

    @classmethod
    def among(cls, header: Sequence[str], *, refuse_parts: bool = True) -> "BoxColumns | None":
        """The columns of boxes in this header, or None.

        Args:
            header: the names of the columns.
            refuse_parts: some but not all columns of a box are an error. Otherwise they are taken for other columns: in
                a table of images, ``w`` and ``h`` may be anything.

        Raises:
            ValueError: two sets of columns, a box in one cell, or columns that are not complete.

        Example::

            BoxColumns.among(["image", "x", "y", "width", "height"]).kind  # "sides"
        """
        place = {column_key(name): n for n, name in reversed(list(enumerate(header)))}
        chosen: list[tuple[Kind, tuple[str, str, str, str]]] = []
        for kind, names in _SETS:
            whole = all(name in place for name in names)
            if whole and not any(names[0] in others for _, others in chosen):  # x1, y1 of x0, y0, x1, y1 begin no box
                chosen.append((kind, names))

        def written(names: Sequence[str]) -> str:
            return ", ".join(header[place[name]] for name in names)

        if len(chosen) > 1:
            raise ValueError(
                f"columns {written(chosen[0][1])} and {written(chosen[1][1])} both hold boxes; keep one of the two"
            )
        if not chosen:
            _refuse_one_cell(place, header)
            if refuse_parts:
                _refuse_parts(place, header)
            return None
        kind, names = chosen[0]
        sizes = [pair for pair in _IMAGE_SIZES if all(name in place and name not in names for name in pair)]
        size = sizes[0] if sizes else None
        if not sizes and len(_ORDINARY & place.keys() - set(names)) == 1:
            raise ValueError("one of the columns width and height of the image is missing; add it or leave out both")
        every = COORDINATES | _ORDINARY
        unused = [header[n] for name, n in place.items() if name in every and name not in (*names, *(size or ()))]
        return cls(
            kind,
            tuple(place[name] for name in names),  # type: ignore[arg-type]
            tuple(header[place[name]] for name in names),
            None if size is None else (place[size[0]], place[size[1]]),
            tuple(reversed(unused)),
            size == ("width", "height"),
        )

    def xyxy(self, values: Sequence[float]) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 from the numbers in the four columns."""
        a, b, c, d = values
        if self.kind == "sides":
            return a, b, a + c, b + d
        return (a, b, c, d) if self.kind == "corners" else (a - c / 2, b - d / 2, a + c / 2, b + d / 2)

    def read(
        self, row: Sequence[str], number: Callable[[str], float | None]
    ) -> tuple[tuple[float, float, float, float] | None, tuple[float, float] | None]:
        """The box as x1, y1, x2, y2, None if all of its cells are empty, and the image's width and height, if stated.

        Raises:
            ValueError: a cell that is no number, or only some empty cells.
        """
        size = None if self.size is None else tuple(number(row[n]) for n in self.size)
        if size is not None and None in size:
            size = None
        values = self.numbers(row, number)
        return (None if values is None else self.xyxy(values)), size  # type: ignore[return-value]

    def numbers(
        self, row: Sequence[str], number: Callable[[str], float | None]
    ) -> tuple[float, float, float, float] | None:
        """What the four columns hold; None if all of their cells are empty. Errors as for :func:`four_numbers`."""
        return four_numbers([row[n] for n in self.places], self.names, number)


def four_numbers(
    cells: Sequence[str], names: Sequence[str], number: Callable[[str], float | None]
) -> tuple[float, float, float, float] | None:
    """The four numbers of a box, as ``number`` reads a cell; None if all four cells are empty.

    Raises ValueError for text and for a box of which only some cells are empty. ``names`` are for the message.
    """
    try:
        a, b, c, d = (number(cell) for cell in cells)
    except ValueError:
        problem = "expected four finite numbers"
    else:
        if a is None and b is None and c is None and d is None:
            return None
        if not (a is None or b is None or c is None or d is None):
            return a, b, c, d
        problem = "expected four finite numbers or four empty cells"
    shown = ", ".join(f"{name} {cell.strip() or 'empty'}" for name, cell in zip(names, cells, strict=True))
    raise ValueError(f"box is {shown}, {problem}")


def _refuse_one_cell(place: dict[str, int], header: Sequence[str]) -> None:
    one_cell = [header[place[name]] for name in _BOX_IN_ONE_CELL if name in place]
    if one_cell:
        raise ValueError(f"column '{one_cell[0]}' holds whole boxes; write columns x1, y1, x2, y2 instead")


def _refuse_parts(place: dict[str, int], header: Sequence[str]) -> None:
    """Columns that look like a box, but cannot be read as one, are refused by name."""
    found = [[name for name in names if name in place and name not in _ORDINARY] for _, names in _SETS]
    most, (_, names) = max(zip(found, _SETS, strict=True), key=lambda pair: len(pair[0]))
    if len(most) >= 2:
        there = ", ".join(header[place[name]] for name in most)
        lacking = ", ".join(name for name in names if name not in place)
        raise ValueError(f"columns {there} of a box, but not {lacking}; add them, or remove all of them")
