"""Records of detection data sets: images whose annotations list all their findings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cxrfast.data.class_names import class_key, is_no_finding
from cxrfast.data.datasets.shared.gathering import KnownSets
from cxrfast.data.records import Box, Record
from cxrfast.errors import CxrfastError


class Classes:
    """The classes of a data set in their order, whose spellings of one finding are one class."""

    def __init__(self, names: Iterable[str] = ()):
        self._by_key: dict[str, str] = {}
        self.matched: dict[str, str] = {}  # another spelling -> class
        for name in names:
            self.add(name)

    def add(self, name: str) -> str | None:
        """The class that ``name`` means, which is new if there is none; None for "No Finding"."""
        if is_no_finding(name):
            return None
        of = self._by_key.setdefault(class_key(name), name)
        if of != name:
            self.matched[name] = of
        return of

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_key.values())


@dataclass
class Found:
    """What the annotation of one image lists."""

    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    no_finding: bool = False
    repeated: int = 0

    def add(self, class_name: str | None, box: Box | None) -> None:
        """Add a finding. Raises ValueError if "No Finding" is beside a finding."""
        if class_name is None:
            self.no_finding = True
        else:
            self.labels.add(class_name)
            if box is not None:
                self.repeated += box in self.boxes.get(class_name, ())
                self.boxes[class_name] = tuple(dict.fromkeys((*self.boxes.get(class_name, ()), box)))
        if self.no_finding and self.labels:
            raise ValueError(f"no finding beside {min(self.labels)}")


def labelled(
    places: Sequence[tuple[str, Path]],
    found: Mapping[str, Found | None],
    class_names: Sequence[str],
    parts: Mapping[str, str | None],
) -> list[Record]:
    """Records in the order of ``places``. An image without annotation, ``None``, has unknown labels."""
    shared = KnownSets()
    every = shared.share(class_names)
    records = []
    for image, path in places:
        of = found.get(image)
        record = Record(image, path, "", frozenset(), known=frozenset(), split=parts.get(image))
        if of is not None:
            record = replace(record, labels=shared.share(of.labels), known=every, boxes=of.boxes)
        records.append(record)
    return records


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines of a text file that are not blank. Raises :class:`CxrfastError`."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CxrfastError(f"{path} cannot be read as text ({error}); restore the original file") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
