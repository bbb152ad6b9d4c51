"""Training, validation and test parts, by patient."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cxrfast._files import reason, write_text
from cxrfast._json import read_json
from cxrfast.data.datasets.interface import UNITS, Grouping
from cxrfast.data.dealing import count_groups, rarity
from cxrfast.data.image_names import require_inside
from cxrfast.data.records import Record
from cxrfast.errors import CxrfastError, UsageError

PARTS = ("train", "val", "test")
Strategy = Literal["patient", "official"]
TEST_SHARE = 0.2  # of all images, without official lists


@dataclass(frozen=True)
class Splits:
    """Image names of the three parts, and how the parts were made.

    ``strategy`` is "official", or what is kept in one part: "patient", or "study" or "image" where the data set names
    no patients.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    seed: int
    strategy: str
    label_version: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 of the assignment of images to parts. Their order, the seed and the notes are not included."""
        parts = {part: sorted(getattr(self, part)) for part in PARTS}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def part(self, name: str, records: Sequence[Record]) -> list[Record]:
        """The records of one part, in the order of its names."""
        if name not in PARTS:
            raise UsageError(f"split is {name!r}; expected one of {', '.join(PARTS)}")
        by_name = {record.image: record for record in records}
        self._require_known(by_name)
        return [by_name[image] for image in getattr(self, name)]

    def check(self, records: Sequence[Record]) -> None:
        """Raise :class:`CxrfastError` if two parts share an image or a patient, or if an image is unknown.

        Parts and folds by image (strategy ``"image"``) may share patients."""
        group = self.strategy if self.strategy in UNITS else "patient"
        by_name = {record.image: record for record in records}
        self._require_known(by_name)
        part_of_image: dict[str, str] = {}
        part_of_patient: dict[str, str] = {}
        for part in PARTS:
            for image in getattr(self, part):
                if image in part_of_image:
                    where = part if part_of_image[image] == part else f"{part_of_image[image]} and {part}"
                    raise CxrfastError(f"the splits name image {image} twice ({where}); remove one of the two")
                part_of_image[image] = part
                patient = by_name[image].patient
                if self.strategy == "image":  # as in some papers; the evaluation reports the number of shared patients
                    continue
                if part_of_patient.setdefault(patient, part) != part:
                    raise CxrfastError(
                        f"the splits have {group} {patient} in {part_of_patient[patient]} and in {part} (image "
                        f"{image}), so test results would be too good; keep all images of a {group} in one part"
                    )

    def _require_known(self, by_name: dict[str, Record]) -> None:
        unknown = [image for part in PARTS for image in getattr(self, part) if image not in by_name]
        if unknown:
            raise CxrfastError(
                f"the splits name {len(unknown)} images that the data set lacks (first: {unknown[0]}); "
                "use the data set they were made for, or make new splits"
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON with one image per line, so that it can be edited by hand."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Splits":
        path = Path(path)
        content = read_splits_file(path, ", ".join(PARTS))
        for part in PARTS:
            if part not in content:
                raise CxrfastError(f"{path} has no '{part}'; add it, as a list of image names (it may be empty)")
        for key in (*PARTS, "notes"):
            names = content.get(key, [])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise CxrfastError(f"{path}: '{key}' is not a list of strings; write it as [\"00000001_000.png\", …]")
            if key in PARTS:
                for name in names:
                    require_inside(name, f"{path}, '{key}'")
        version = content.get("label_version")
        return cls(
            **{part: tuple(content[part]) for part in PARTS},
            seed=_typed(content, "seed", 0, int, "a whole number", path),
            strategy=_typed(content, "strategy", "patient", str, "a text", path),
            label_version=None if version is None else str(version),
            notes=tuple(content.get("notes", ())),
        )


def _typed(content: dict[str, Any], name: str, default: Any, kind: type, expected: str, path: Path) -> Any:
    value = content.get(name, default)
    if not isinstance(value, kind):
        raise CxrfastError(f"{path}: '{name}' is {value!r:.80}; write {expected}")
    return value


def fractions_with(val_share: float) -> tuple[float, float, float]:
    """Fractions for :func:`make_splits`, with validation images as this share of the images outside the test part."""
    return round((1 - TEST_SHARE) * (1 - val_share), 12), round((1 - TEST_SHARE) * val_share, 12), TEST_SHARE


def make_splits(
    records: Sequence[Record],
    *,
    seed: int,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    strategy: Strategy = "patient",
    label_version: str | None = None,
    grouping: Grouping = "patient",
) -> Splits:
    """Assign patients to train, validation and test.

    - ``"patient"``: all patients, in proportion to ``fractions``. Patients with boxes are stratified by their rarest
      boxed class, the others by their rarest label, as far as their numbers allow.
    - ``"official"``: the published parts. A data set with parts for training, validation and testing is split so. If it
      has no part for validation (ChestX-ray14 has one for training and validation), validation patients are taken from
      the training part, in proportion to the first two fractions. If it has none for testing, its validation part is
      the test part, and a note says so. All boxes of ChestX-ray14 are in the test part.

    ``grouping`` says what ``Record.patient`` identifies (:attr:`DataSource.grouping`). Where that is not a patient,
    notes, errors and the strategy of the result say "study" or "image".

    The result depends on the records' content and the seed, not on their order.
    """
    _check_options(fractions, strategy)
    records = sorted(records, key=lambda record: record.image)
    twice = [image for image, count in Counter(record.image for record in records).items() if count > 1]
    if twice:
        raise CxrfastError(f"image {twice[0]} is in the records twice; remove one of the two")
    notes: list[str] = []
    if strategy == "official":
        dealt = _deal_official(_official_parts(records), fractions, seed, grouping, notes)
    else:
        dealt = deal(records, fractions, seed, grouping)
        notes += _describe_grouping(grouping)
    train, val, test = (tuple(sorted(names)) for names in dealt)
    name = strategy if strategy == "official" else grouping
    splits = Splits(train, val, test, seed, name, label_version, tuple(notes))
    splits.check(records)
    return splits


def _check_options(fractions: tuple[float, float, float], strategy: str) -> None:
    if strategy not in get_args(Strategy):
        raise UsageError(f"split strategy is {strategy!r}; expected one of {', '.join(get_args(Strategy))}")
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] <= 0:
        raise UsageError(
            f"split fractions are {fractions}; expected three of at least 0 that sum to 1, the first above 0"
        )


def _official_parts(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each official part: "train_val" and "test", or "train", "val" and "test"."""
    unlisted = [record.image for record in records if record.split is None]
    if unlisted:
        raise CxrfastError(
            f"{len(unlisted)} images are in no official list (first: {unlisted[0]}); restore the lists of the data set "
            "(train_val_list.txt and test_list.txt of ChestX-ray14), or make a random split (--split patient)"
        )
    parts: dict[str, list[Record]] = {}
    for record in records:
        parts.setdefault(str(record.split), []).append(record)
    unknown = sorted(set(parts) - {"train_val", *PARTS})
    if unknown:
        raise CxrfastError(f"official part is {unknown[0]!r}; expected train, val or test, or train_val and test")
    if "train_val" in parts and ("train" in parts or "val" in parts):
        raise CxrfastError("the official parts are train_val and also train or val; expected one of the two forms")
    if "train_val" not in parts and "train" not in parts:
        raise CxrfastError(
            "no image is in the official list for training, so nothing can be trained on; make a random split "
            "(--split patient)"
        )
    return parts


def _deal_official(
    parts: dict[str, list[Record]],
    fractions: tuple[float, float, float],
    seed: int,
    grouping: Grouping,
    notes: list[str],
) -> list[list[str]]:
    """Image names of the three parts, from the official ones. Appends to ``notes``."""
    train = parts.get("train_val") or parts["train"]
    val, test = parts.get("val", []), parts.get("test", [])
    if val and not test:
        val, test = [], val
        notes.append(f"no official test part: the {len(test)} images of the official validation part are tested")
    elif "train" in parts and not test:
        notes.append("no official test part: no image is tested")
    if val and fractions[1] == 0:
        notes.append(f"the {len(val)} images of the official validation part train, as no image is to validate")
        train, val = [*train, *val], []
    if val:
        dealt = [[record.image for record in part] for part in (train, val, test)]
        notes.append("validation images are those of the official validation part, whatever the share")
    else:
        share = fractions[0] + fractions[1]
        dealt = deal(train, (fractions[0] / share, fractions[1] / share, 0.0), seed, grouping)
        dealt[2] = [record.image for record in test]
        notes += _describe_grouping(grouping) if fractions[1] else []
    notes += _describe_official([*train, *val], test)
    return dealt


def _describe_grouping(grouping: Grouping) -> list[str]:
    if grouping == "patient":
        return []
    groups = UNITS[grouping]
    return [f"split by {grouping}, as the data set names no patients: {groups} of one patient may be in two parts"]


def _describe_official(train_val: Sequence[Record], test: Sequence[Record]) -> tuple[str, ...]:
    training, testing = (sum(bool(record.boxes) for record in part) for part in (train_val, test))
    if training or not testing:
        return ()
    return (f"all {testing} images with boxes are in the official test list: training sees image labels only",)


def deal(
    records: Sequence[Record], fractions: Sequence[float], seed: int, grouping: Grouping = "patient"
) -> list[list[str]]:
    """Image names of the three parts, in proportion to ``fractions``.

    Patients are ordered by stratum. Each one in turn is assigned to the part with the largest deficit relative to its
    share of the patients so far. So every stratum, and every sequence of small strata, is split in proportion. For
    example, 14 boxed images of eight classes reach all parts, although no single class has enough images for that.
    """
    images: dict[str, list[Record]] = {}
    for record in records:
        images.setdefault(record.patient, []).append(record)
    wanted = sum(fraction > 0 for fraction in fractions)
    if len(images) < wanted:
        groups = UNITS[grouping]
        of = "other images" if grouping == "image" else f"images of other {groups}"
        raise CxrfastError(f"{len(images)} {groups} cannot be split into {wanted} parts; add {of}")
    boxed = {name: of for name, of in images.items() if any(record.boxes for record in of)}
    others = {name: of for name, of in images.items() if name not in boxed}
    random = np.random.default_rng(seed)
    patients: list[list[str]] = [[], [], []]
    # First balance the number of patients with boxes, which are few; then the number of images of all patients.
    _fill(patients, _row(boxed, random, by_box=True), dict.fromkeys(boxed, 1), fractions)
    _fill(patients, _row(others, random, by_box=False), {name: len(of) for name, of in images.items()}, fractions)
    _leave_none_empty(patients, fractions, others)
    return [[record.image for name in part for record in images[name]] for part in patients]


def _row(images: dict[str, list[Record]], random: np.random.Generator, *, by_box: bool) -> list[str]:
    """The patients in random order, grouped by stratum."""
    classes = {
        name: {label for record in of for label in (record.boxes if by_box else record.labels)}
        for name, of in images.items()
    }
    patients_with = count_groups(list(classes.values()), list(classes))
    strata: dict[str, list[str]] = {}
    for name in sorted(images):
        rarest = rarity(classes[name], patients_with)[1] if classes[name] else ""
        strata.setdefault(rarest, []).append(name)
    order = random.permutation(sorted(strata)).tolist()
    row: list[str] = []
    for stratum in order:
        # Patients with many images first, so that patients with few images can compensate for the imbalance.
        shuffled = random.permutation(strata[stratum]).tolist()
        row += shuffled if by_box else sorted(shuffled, key=lambda name: -len(images[name]))
    return row


def _fill(patients: list[list[str]], row: Sequence[str], weights: dict[str, int], fractions: Sequence[float]) -> None:
    """Append each patient of ``row`` to the part with the largest deficit. ``weights`` includes patients already
    assigned."""
    dealt = [sum(weights[name] for name in part) for part in patients]
    for name in row:
        total = sum(dealt) + weights[name]
        lag = [
            fraction * total - done if fraction > 0 else -np.inf
            for fraction, done in zip(fractions, dealt, strict=True)
        ]
        part = int(np.argmax(lag))
        patients[part].append(name)
        dealt[part] += weights[name]


def _leave_none_empty(patients: list[list[str]], fractions: Sequence[float], others: dict[str, list[Record]]) -> None:
    """With very few patients a small part may be empty; move a patient, if possible without boxes, from the largest
    part."""
    for part, fraction in enumerate(fractions):
        if fraction > 0 and not patients[part]:
            largest = max(patients, key=len)
            moved = next((name for name in reversed(largest) if name in others), largest[-1])
            largest.remove(moved)
            patients[part].append(moved)


def read_splits_file(path: Path, keys: str) -> dict[str, Any]:
    """The JSON object of a splits file, which may have been edited by hand. `keys` names the expected keys in
    errors."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise CxrfastError(f"no splits file {path}; check the path") from None
    except json.JSONDecodeError as error:
        raise CxrfastError(f"{path}, line {error.lineno}: not JSON ({error.msg}); correct the line") from None
    except (OSError, ValueError) as error:
        raise CxrfastError(f"{path} cannot be read ({reason(error)})") from error
    if not isinstance(content, dict):
        raise CxrfastError(f"{path} holds a {type(content).__name__}, expected an object with {keys}")
    return content
