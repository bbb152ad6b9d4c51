"""A sample of a data set's images, with boxes and labels, for its page."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxrfast.data.images import read_image
from cxrfast.data.records import Box, Record
from cxrfast.errors import CxrfastError
from cxrfast.report.html.gallery import embed_picture

IMAGES = 12
BOXED = 9  # at most, where the data set also has images without boxes
WIDTH = 1000  # of a picture in its own units
TEXT = 46  # height of a class name
_CHARACTER = 30  # about the width of a character of it
MOST_BOXES = 40  # named on one image


@dataclass(frozen=True)
class DrawnBox:
    """A box in the units of its picture, and where its class name stands."""

    name: str
    x: float
    y: float
    width: float
    height: float
    text_x: float
    text_y: float  # base line


@dataclass(frozen=True)
class SampleImage:
    """One image of the sample."""

    name: str
    height: float  # of the picture, whose width is :data:`WIDTH`
    data: str | None  # data URI
    reason: str  # why there is no data
    boxes: tuple[DrawnBox, ...]
    present: str
    unknown: str
    about: str  # view, age, sex


def draw_sample(records: Sequence[Record], class_names: Sequence[str], seed: int = 0) -> list[SampleImage]:
    """Pictures of up to :data:`IMAGES` images, with boxes first."""
    return [_draw(record, class_names) for record in choose_sample(records, seed)]


def choose_sample(records: Sequence[Record], seed: int = 0) -> list[Record]:
    """At random: images with boxes, whose classes take turns, then images without boxes."""
    generator = random.Random(seed)
    plain = [record for record in records if not record.boxes]
    boxed = _take_turns([record for record in records if record.boxes], generator)
    count = max(BOXED, IMAGES - len(plain))
    chosen = boxed[:count]
    return chosen + generator.sample(plain, min(IMAGES - len(chosen), len(plain)))


def _take_turns(records: Sequence[Record], generator: random.Random) -> list[Record]:
    """Up to :data:`IMAGES` of the records: one of each boxed class, rarest class first, then a second one …"""
    of_class: dict[str, list[Record]] = {}
    for record in records:
        for name in record.boxes:
            of_class.setdefault(name, []).append(record)
    queues = []
    for name in sorted(of_class, key=lambda name: (len(of_class[name]), name)):
        queues.append(generator.sample(of_class[name], min(2 * IMAGES, len(of_class[name]))))
    chosen: dict[str, Record] = {}
    for turn in range(2 * IMAGES):
        for queue in queues:
            if turn < len(queue) and len(chosen) < IMAGES:
                chosen.setdefault(queue[turn].image, queue[turn])
    return list(chosen.values())


def _draw(record: Record, class_names: Sequence[str]) -> SampleImage:
    data, reason, height = None, "", float(WIDTH)
    try:
        pixels = read_image(record.path)
        data, height = embed_picture(pixels), WIDTH * pixels.shape[0] / pixels.shape[1]
    except (CxrfastError, MemoryError) as error:
        reason = str(error).replace(str(record.path), record.path.name)
    present = [name for name in class_names if name in record.labels]
    unknown = [name for name in class_names if record.known is not None and name not in record.labels | record.known]
    about = [record.view, None if record.age is None else f"{record.age} years", record.sex]
    return SampleImage(
        name=record.image,
        height=height,
        data=data,
        reason=reason,
        boxes=() if data is None else _place(record.boxes, height),
        present=", ".join(present) or ("no class is known to be present" if unknown else "no finding"),
        unknown=_shorten(unknown, len(class_names)),
        about=", ".join(text for text in about if text),
    )


def _shorten(unknown: Sequence[str], classes: int) -> str:
    if len(unknown) <= 4:
        return ", ".join(unknown)
    return f"{len(unknown)} of {classes} classes"


def _place(boxes: Mapping[str, tuple[Box, ...]], height: float) -> tuple[DrawnBox, ...]:
    """Boxes with their names above them, moved down where names would overlap."""
    taken: list[tuple[float, float, float]] = []  # left, right and base line of the names so far
    drawn = []
    entries = [(name, box) for name, of_class in boxes.items() for box in of_class]
    for name, (x1, y1, x2, y2) in sorted(entries, key=lambda entry: entry[1][1])[:MOST_BOXES]:
        left, top = x1 * WIDTH, y1 * height
        width = len(name) * _CHARACTER
        text_x = max(min(left, WIDTH - width), 4.0)
        text_y = top - 10 if top > TEXT + 10 else top + TEXT
        while any(a < text_x + width and text_x < b and abs(text_y - y) < TEXT for a, b, y in taken):
            text_y += TEXT
        taken.append((text_x, text_x + width, text_y))
        drawn.append(DrawnBox(name, left, top, (x2 - x1) * WIDTH, (y2 - y1) * height, text_x, text_y))
    return tuple(drawn)
