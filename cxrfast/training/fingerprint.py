"""The fingerprint of a run's data and settings, which a resumed run must still have."""

import base64
import hashlib
import json
import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cxrfast._files import write_text
from cxrfast.data import Record
from cxrfast.data.splits import PARTS
from cxrfast.errors import CxrfastError
from cxrfast.training.config import RunConfig
from cxrfast.training.preparation import PreparedData

SAMPLE = 100
"""Images whose content is hashed at the start, unless all are."""

_FREE = {"device", "workers", "cache", "data", "classes"}
"""Settings that may change. The data themselves are compared, wherever they lie, and the classes that are used."""

_FORMAT = 1


@dataclass(frozen=True)
class Fingerprint:
    """What a run was started with.

    - `settings`: all settings, except those that may change.
    - `classes`: in the order of the network's outputs.
    - `images`: names of the images of all parts, one hash for each part in the order of its images.
    - `values`: for each property of a record in `PROPERTIES`, a SHA-256 of all values, and a CRC-32 for each image,
      which tells the image that has changed.
    - `contents`: SHA-256 of image files, by image: of a sample, or of all.
    - `tables`: SHA-256 of the tables that the reader named, by file name. They only add to an error message: the order
      of rows and columns that are not read may change.
    """

    settings: Mapping[str, Any]
    classes: Sequence[str]
    images: Mapping[str, str]
    values: Mapping[str, tuple[str, str]]
    contents: Mapping[str, str]
    tables: Mapping[str, str]

    @classmethod
    def of(cls, config: RunConfig, data: PreparedData, *, verify: bool = False) -> "Fingerprint":
        """Reads the tables and a sample of the images; with `verify`, all images."""
        records = _records(data)
        return cls(
            settings=_settings(config),
            classes=list(data.class_names),
            images={part: _sha(record.image for record in data.records[part]) for part in PARTS},
            values={name: _of_values(records, value) for name, value in PROPERTIES.items()},
            contents={record.image: hash_file(record.path) for record in (records if verify else _sample(records))},
            tables={path.name: hash_file(path) for path in data.tables},
        )

    def save(self, path: Path) -> None:
        write_text(path, json.dumps({"format": _FORMAT, **vars(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Fingerprint":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = cls(**{name: content[name] for name in cls.__dataclass_fields__})
            if content["format"] != _FORMAT or not all(
                isinstance(value, dict) for name, value in vars(found).items() if name != "classes"
            ):
                raise ValueError("not a fingerprint of this version")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CxrfastError(
                f"{path} is damaged ({' '.join(str(error).split())}); restore it, or delete it to resume without the "
                "comparison of data and settings"
            ) from error
        return found

    def with_settings(self, config: RunConfig) -> "Fingerprint":
        """For a run that goes on from another one's state with settings of its own."""
        return replace(self, settings=_settings(config))

    def check(self, config: RunConfig, data: PreparedData, *, verify: bool = False) -> None:
        """Raise CxrfastError, which names the first difference, if settings or data are others than at the start."""
        different = (
            self._different_setting(config, data)
            or self._different_record(data)
            or self._different_content(data, verify)
        )
        if different is not None:
            raise CxrfastError(f"resume: {different}; restore it, or train a new run")

    def _different_setting(self, config: RunConfig, data: PreparedData) -> str | None:
        for name, value in _settings(config).items():
            # A setting that is younger than the run had its default then.
            before = self.settings.get(name, RunConfig.model_fields[name].get_default(call_default_factory=True))
            if isinstance(value, dict) and isinstance(before, dict):
                names = sorted(value.keys() | before.keys())
                changed = [(f"{name}.{key}", before.get(key), value.get(key)) for key in names]
            else:
                changed = [(name, before, value)]
            for full, old, new in changed:
                if old != new:
                    return f"the run began with {full} {_shown(old)}, but config.yaml has {_shown(new)}"
        if list(self.classes) != list(data.class_names):
            return f"the run began with the classes {', '.join(self.classes)}, not {', '.join(data.class_names)}"
        return None

    def _different_record(self, data: PreparedData) -> str | None:
        for part in PARTS:
            if self.images.get(part) != _sha(record.image for record in data.records[part]):
                return f"splits.json has other {part} images than at the start"
        records = _records(data)
        for name, value in PROPERTIES.items():
            total, each = _of_values(records, value)
            before_total, before_each = self.values.get(name, (total, each))
            if total == before_total:
                continue
            old, new = (np.frombuffer(base64.b64decode(text), "<u4") for text in (before_each, each))
            where = np.flatnonzero(old != new) if old.shape == new.shape else np.empty(0, int)
            first = f"{records[where[0]].image}: " if len(where) else ""
            more = f" (and of {len(where) - 1} more images)" if len(where) > 1 else ""
            return f"{first}{name} changed since the run began{more}{self._changed_tables(data)}"
        return None

    def _changed_tables(self, data: PreparedData) -> str:
        changed = [path.name for path in data.tables if self.tables.get(path.name) != hash_file(path)]
        return f", see {', '.join(changed)}" if changed else ""

    def _different_content(self, data: PreparedData, verify: bool) -> str | None:
        by_name = {record.image: record for record in _records(data)}
        sampled = [name for name in self.contents if name in by_name]
        if not verify:
            sampled = sampled[:SAMPLE]
        for name in sampled:
            if hash_file(by_name[name].path) != self.contents[name]:
                return f"{by_name[name].path}: the content of the image changed since the run began"
        return None

    @property
    def is_complete(self) -> bool:
        """Whether it has the content of every image."""
        counts = [len(base64.b64decode(each)) // 4 for _, each in self.values.values()]
        return bool(counts) and len(self.contents) >= counts[0]


PROPERTIES: Mapping[str, Callable[[Record], Any]] = {
    "the patient": lambda record: record.patient,
    "the labels": lambda record: sorted(record.labels),
    "the known labels": lambda record: None if record.known is None else sorted(record.known),
    "the boxes": lambda record: sorted((name, *map(list, boxes)) for name, boxes in record.boxes.items()),
    "the name of the image file": lambda record: record.path.name,
    "the size of the image file": lambda record: _size(record.path),
}
"""What is compared of every image."""


def hash_file(path: Path) -> str:
    """SHA-256 of a file; "missing" for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "missing"


def _records(data: PreparedData) -> list[Record]:
    return [record for part in PARTS for record in data.records[part]]


def _settings(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=_FREE)


def _sample(records: Sequence[Record]) -> list[Record]:
    """The same images in every run of these data, in their order."""
    chosen = random.Random(0).sample(range(len(records)), min(SAMPLE, len(records)))
    return [records[at] for at in sorted(chosen)]


def _of_values(records: Sequence[Record], value: Callable[[Record], Any]) -> tuple[str, str]:
    """SHA-256 of the values of all records, and the CRC-32 of each, as little-endian integers in base64."""
    texts = [json.dumps([record.image, value(record)]).encode() for record in records]
    checks = np.array([zlib.crc32(text) for text in texts], "<u4")
    return hashlib.sha256(b"\n".join(texts)).hexdigest(), base64.b64encode(checks.tobytes()).decode()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # a missing file is an error when it is read


def _sha(names: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
