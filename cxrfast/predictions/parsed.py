"""The content of files of predictions in one form, with images and classes by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from cxrfast.errors import CxrfastError
from cxrfast.predictions.masks import Mask


@dataclass(frozen=True)
class Region:
    """One box, or one mask with its bounding box."""

    image: str
    class_name: str
    xyxy: tuple[float, float, float, float]  # fractions of the image
    score: float
    mask: Mask | None = None


class Maps(NamedTuple):
    """The heat maps of one file."""

    path: Path
    images: tuple[str, ...]  # [n]
    classes: tuple[str, ...]  # [K]
    values: Tensor  # [n, K, P, Q]


@dataclass
class ParsedPredictions:
    """Predictions from one or several files. A value that two files give is an error."""

    images: dict[str, None] = field(default_factory=dict)  # all that are named, also those without any region
    classes: dict[str, None] = field(default_factory=dict)
    scores: dict[tuple[str, str], float] = field(default_factory=dict)  # (image, class) -> probability
    regions: list[Region] = field(default_factory=list)
    has_regions: bool = False  # true also if a file of regions is empty
    region_classes: dict[str, None] = field(default_factory=dict)  # classes that the files of regions cover
    maps: list[Maps] = field(default_factory=list)
    method: dict[tuple[str, str], Any] = field(default_factory=dict)  # (what, class or "") -> default of the method
    notes: list[str] = field(default_factory=list)

    def add_score(self, image: str, class_name: str, value: float, where: str) -> None:
        if (image, class_name) in self.scores:
            raise CxrfastError(f"{where}: a second score of {class_name} on {image}; keep one of the two")
        self.scores[image, class_name] = checked_score(value, where)
        self.images[image] = self.classes[class_name] = None

    def add_region(self, region: Region) -> None:
        self.regions.append(region)
        self.images[region.image] = None
        self.add_region_classes(region.class_name)

    def add_region_classes(self, *names: str) -> None:
        self.has_regions = True
        self.region_classes |= dict.fromkeys(names)
        self.classes |= dict.fromkeys(names)

    def add_maps(self, maps: Maps) -> None:
        for before in self.maps:
            if before.values.shape[2:] != maps.values.shape[2:]:
                sizes = [" × ".join(map(str, part.values.shape[2:])) for part in (before, maps)]
                raise CxrfastError(f"{maps.path}: maps of {sizes[1]}, but {sizes[0]} in {before.path}; write one size")
        self.maps.append(maps)
        self.images |= dict.fromkeys(maps.images)
        self.add_region_classes(*maps.classes)

    def add_to_method(self, what: str, class_name: str, value: Any, path: Path) -> None:
        """Add a default of the method: a threshold, an operating point, the region rule, or the image size."""
        known = self.method.setdefault((what, class_name), value)
        if known != value:
            of = f" of {class_name}" if class_name else ""
            raise CxrfastError(f"{path}: {what}{of} is {value}, but {known} in a file before; write the same in all")

    def rename_classes(self, names: Mapping[str, str]) -> None:
        """Give classes other names. Two classes that get one name are an error."""
        names = {name: new for name, new in names.items() if name != new}
        for name, new in names.items():
            if new in self.classes or list(names.values()).count(new) > 1:
                raise CxrfastError(
                    f"predictions: class {name!r} means {new!r}, which is there too; keep one of the two"
                )
        if not names:
            return

        def of(name: str) -> str:
            return names.get(name, name)

        self.classes = dict.fromkeys(map(of, self.classes))
        self.region_classes = dict.fromkeys(map(of, self.region_classes))
        self.scores = {(image, of(name)): value for (image, name), value in self.scores.items()}
        self.regions = [replace(region, class_name=of(region.class_name)) for region in self.regions]
        self.maps = [maps._replace(classes=tuple(map(of, maps.classes))) for maps in self.maps]
        self.method = {(what, of(name)): value for (what, name), value in self.method.items()}


def checked_score(value: float, where: str) -> float:
    if not 0 <= value <= 1:
        raise CxrfastError(f"{where}: score {value:g}; expected 0 to 1, pass scores through a sigmoid first")
    return value
