"""One annotation file of PASCAL VOC, parsed without expanding entities."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from cxrfast.data.tables.csv_table import parse_number
from cxrfast.errors import CxrfastError


class VocObject(NamedTuple):
    name: str
    corners: tuple[float, float, float, float] | None  # xmin, ymin, xmax, ymax as written; None: no box
    difficult: bool


class VocFile(NamedTuple):
    path: Path
    file_name: str  # of the image; empty if it is not given
    size: tuple[float, float] | None  # width and height
    objects: tuple[VocObject, ...]


def is_voc(path: Path) -> bool:
    """Whether an XML file begins as an annotation does."""
    try:
        with path.open("rb") as file:
            return b"<annotation" in file.read(4096).replace(b"\0", b"")
    except OSError:
        return False


def read_voc(path: Path) -> VocFile:
    """Parse one file. Raises :class:`CxrfastError` for XML that is damaged, has a DOCTYPE, or is no annotation."""
    root = _parse(path)
    if root.tag != "annotation":
        raise CxrfastError(f"{path}: the root is <{root.tag}>, expected <annotation>; remove the file")
    try:
        size = _size(root)
        objects = tuple(_objects(root))
    except ValueError as error:
        raise CxrfastError(f"{path}: {error}; correct the file") from None
    return VocFile(path, _text(root, "filename"), size, objects)


def _size(root: ElementTree.Element) -> tuple[float, float] | None:
    texts = [_text(root, f"size/{side}") for side in ("width", "height")]
    try:
        width, height = (parse_number(text) for text in texts)
    except ValueError:
        raise ValueError(f"the size is {texts}, expected width and height in pixels") from None
    return (width, height) if width and height else None


def _objects(root: ElementTree.Element) -> Iterator[VocObject]:
    for number, entry in enumerate(root.findall("object"), 1):
        name = _text(entry, "name")
        if not name:
            raise ValueError(f"object {number} has no name")
        corners = None
        if entry.find("bndbox") is not None:
            texts = [_text(entry, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            try:
                numbers = [parse_number(text) for text in texts]
            except ValueError:
                numbers = [None]
            if None in numbers:
                raise ValueError(f"the box of object {number} ({name}) is {texts}, expected xmin, ymin, xmax, ymax")
            corners = tuple(numbers)
        yield VocObject(name, corners, _text(entry, "difficult") in ("1", "true", "True"))  # type: ignore[arg-type]


def _text(entry: ElementTree.Element, path: str) -> str:
    return (entry.findtext(path) or "").strip()


def _parse(path: Path) -> ElementTree.Element:
    """The tree of an XML file. A DOCTYPE is refused, because entities in it can expand without limit."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> None:
        raise CxrfastError(f"{path} has a DOCTYPE, which may hold entities; remove it from the file")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise CxrfastError(f"{path}, line {error.lineno}: not XML ({error}); restore the original file") from None
    except OSError as error:
        raise CxrfastError(f"{path} cannot be read ({error}); check its permissions") from error
    return builder.close()
