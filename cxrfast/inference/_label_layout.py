"""Places the labels of boxes: inside the picture, next to their box, if possible without overlaps."""

from collections.abc import Iterator, Sequence

# Left, bottom, right, top; any unit, y upwards
Rectangle = tuple[float, float, float, float]


def place_labels(
    boxes: Sequence[Rectangle],
    sizes: Sequence[tuple[float, float]],  # width and height of each label
    frame: Rectangle,
) -> list[Rectangle]:
    """A rectangle for every label. Labels are placed in order; earlier labels get better places.

    A label is placed above its box, else below it, else in its corners, else further down or up. If no place is free,
    the place with the least overlap with other labels is taken.
    """
    placed: list[Rectangle] = []
    for box, (width, height) in zip(boxes, sizes, strict=True):
        candidates = [_move_into(place, frame) for place in _candidates(box, width, height, frame)]
        # min takes the first of equal candidates, so that a free place near the box is preferred
        placed.append(min(candidates, key=lambda place: sum(_common_area(place, other) for other in placed)))
    return placed


def _candidates(box: Rectangle, width: float, height: float, frame: Rectangle) -> Iterator[Rectangle]:
    left, bottom, right, top = box
    for x in (left, right - width):
        for y in (top, bottom - height, top - height, bottom):
            yield x, y, x + width, y + height
    steps = int((frame[3] - frame[1]) / height) + 1
    for step in range(1, steps):
        for y in (top - (step + 1) * height, top + step * height):
            for x in (left, right - width, left - width, right):
                yield x, y, x + width, y + height


def _move_into(place: Rectangle, frame: Rectangle) -> Rectangle:
    """The rectangle shifted into the frame; a wider one is aligned to the left."""
    left, bottom, right, top = place
    x = max(min(left, frame[2] - (right - left)), frame[0])
    y = max(min(bottom, frame[3] - (top - bottom)), frame[1])
    return x, y, x + (right - left), y + (top - bottom)


def _common_area(a: Rectangle, b: Rectangle) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 1e-6 and height > 1e-6 else 0.0
