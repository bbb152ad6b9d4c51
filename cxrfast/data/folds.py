"""Folds of a cross-validation: the test, validation and training images of each."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from cxrfast._files import write_text
from cxrfast.data.datasets.interface import Grouping
from cxrfast.data.dealing import deal_stratified
from cxrfast.data.image_names import require_inside
from cxrfast.data.records import Record
from cxrfast.data.splits import Splits, deal, read_splits_file
from cxrfast.errors import CxrfastError, UsageError

FoldsBy = Literal["patient", "image"]
FoldsOf = Literal["boxes", "all"]  # which images are held out
VALIDATION = 1 / 8  # of the images that are not held out; with five folds 10 % of all annotated images


@dataclass(frozen=True)
class Fold:
    """Names of the test, validation and training images of one fold."""

    test: tuple[str, ...]  # held out
    val: tuple[str, ...]  # select epoch and thresholds; not held out


@dataclass(frozen=True)
class FoldSplits:
    """All folds of a cross-validation.

    The training images of a fold are the test images of the other folds and the unannotated images, without the fold's
    validation images. If folds are by patient, images of patients in the fold's test part are also excluded.
    """

    by: FoldsBy
    folds: tuple[Fold, ...]
    unannotated: tuple[str, ...]  # images without boxes that may be used for training
    seed: int
    label_version: str | None = None
    notes: tuple[str, ...] = ()
    of: FoldsOf = "boxes"  # "boxes": only images with boxes are held out; "all": all images, and `unannotated` is empty

    @property
    def hash(self) -> str:
        """SHA-256 of the assignment of images. Their order, the seed and the notes are not included."""
        folds = [{"test": sorted(fold.test), "val": sorted(fold.val)} for fold in self.folds]
        content = {"by": self.by, "folds": folds, "unannotated": sorted(self.unannotated)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def splits(self, fold: int, records: Sequence[Record]) -> Splits:
        """The train, validation and test parts of one fold."""
        held_out, val = set(self.folds[fold].test), set(self.folds[fold].val)
        pool = {image for other in self.folds for image in other.test} | set(self.unannotated)
        if self.by == "patient":
            patients = {record.patient for record in records if record.image in held_out}
            held_out |= {record.image for record in records if record.patient in patients}
        return Splits(
            train=tuple(sorted(pool - held_out - val)),
            val=tuple(sorted(val)),
            test=tuple(sorted(self.folds[fold].test)),
            seed=self.seed,
            strategy=self.by,
            label_version=self.label_version,
            notes=(f"fold {fold} of {len(self.folds)}, by {self.by}",),
        )

    def check(self, records: Sequence[Record]) -> None:
        """Raise :class:`CxrfastError` if an image is unknown or in two places, or if folds by patient share a
        patient."""
        by_name = {record.image: record for record in records}
        self._check_names(by_name)
        tested_in: dict[str, int] = {}
        for number, fold in enumerate(self.folds):
            for group in sorted({_group(by_name[image], self.by) for image in fold.test}):
                if tested_in.setdefault(group, number) != number:
                    raise CxrfastError(
                        f"the splits hold out patient {group} in fold {tested_in[group]} and in fold {number}; keep "
                        "all images of a patient in the 'test' of one fold"
                    )
        for number in range(len(self.folds)):
            try:
                self.splits(number, records).check(records)
            except CxrfastError as error:
                raise CxrfastError(f"fold {number}: {error}") from None

    def _check_names(self, by_name: Mapping[str, Record]) -> None:
        boxed = next((image for image in self.unannotated if image in by_name and by_name[image].boxes), None)
        if boxed is not None:
            raise CxrfastError(
                f"the splits have image {boxed}, which has a box, under 'unannotated'; put it into 'test' of a fold"
            )
        places: dict[str, str] = {}
        tests = [(f"'test' of fold {number}", fold.test) for number, fold in enumerate(self.folds)]
        for place, images in (("'unannotated'", self.unannotated), *tests):
            for image in images:
                if image not in by_name:
                    raise CxrfastError(
                        f"the splits name image {image} ({place}), which the data set lacks; use the data set they "
                        "were made for, or make new splits"
                    )
                if image in places:
                    raise CxrfastError(
                        f"the splits name image {image} twice ({places[image]} and {place}); remove one of the two"
                    )
                places[image] = place
        for number, fold in enumerate(self.folds):
            if not fold.test:
                raise CxrfastError(f"fold {number} of the splits holds out no image; add some to its 'test'")
            stranger = next((image for image in fold.val if image not in places), None)
            if stranger is not None:
                raise CxrfastError(
                    f"fold {number} of the splits: 'val' has image {stranger}, which no 'test' and not 'unannotated' "
                    "has; add it there, or remove it"
                )
            twice = next((image for image, count in Counter(fold.val).items() if count > 1), None)
            if twice is not None:
                raise CxrfastError(f"fold {number} of the splits: 'val' has image {twice} twice; remove one of the two")

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON with one image per line, so that it can be edited by hand."""
        content = {
            "by": self.by,
            "of": self.of,
            "seed": self.seed,
            "label_version": self.label_version,
            "notes": self.notes,
            "folds": [{"test": fold.test, "val": fold.val} for fold in self.folds],
            "unannotated": self.unannotated,
        }
        write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "FoldSplits":
        """Read a file written by :meth:`save`, possibly edited by hand. Raises :class:`CxrfastError` if it is
        invalid."""
        content = read_splits_file(Path(path), "'folds'")
        for name in ("by", "folds", "unannotated"):
            if name not in content:
                raise CxrfastError(f"{path} has no '{name}'; it is not the splits.json of a cross-validation")
        if content["by"] not in get_args(FoldsBy):
            raise CxrfastError(f'{path}: \'by\' is {content["by"]!r}; write "patient" or "image"')
        if content.get("of", "boxes") not in get_args(FoldsOf):
            raise CxrfastError(f'{path}: \'of\' is {content["of"]!r}; write "boxes" or "all"')
        folds = content["folds"]
        if not isinstance(folds, list) or len(folds) < 2 or not all(isinstance(fold, dict) for fold in folds):
            raise CxrfastError(f"{path}: 'folds' is not a list of two or more objects with 'test' and 'val'")
        seed, version = content.get("seed", 0), content.get("label_version")
        if not isinstance(seed, int):
            raise CxrfastError(f"{path}: 'seed' is {seed!r}; write a whole number")
        return cls(
            by=cast(FoldsBy, content["by"]),
            folds=tuple(
                Fold(*(_image_names(fold.get(part), path, f"'{part}' of fold {number}") for part in ("test", "val")))
                for number, fold in enumerate(folds)
            ),
            unannotated=_image_names(content["unannotated"], path, "'unannotated'"),
            seed=seed,
            label_version=None if version is None else str(version),
            notes=_names(content.get("notes", []), path, "'notes'"),
            of=cast(FoldsOf, content.get("of", "boxes")),
        )


def make_folds(
    records: Sequence[Record],
    *,
    folds: int,
    by: FoldsBy = "patient",
    of: FoldsOf = "boxes",
    unannotated: float = 1.0,
    validation: float = VALIDATION,
    seed: int = 0,
    label_version: str | None = None,
    grouping: Grouping = "patient",
) -> FoldSplits:
    """Divide the images with boxes (with ``of="all"``, all images) into folds that are held out in turn.

    Folds are stratified by the rarest boxed class of an image (with ``of="all"``, by the rarest class of its labels);
    see :func:`cxrfast.data.dealing.deal_stratified`. The groups are patients. With ``by="image"`` every image is its
    own group, so a patient may be in both training and test, as in some papers. ``grouping`` says what
    ``Record.patient`` identifies; where that is not a patient, a note says so.

    With ``of="boxes"``, ``unannotated`` is the fraction of the images without boxes that is used for training. For the
    same seed, the images of a smaller fraction are a subset of those of a larger one. The share ``validation``
    (default: one eighth) of the images that are not held out is used for validation, selected as in
    :func:`cxrfast.data.make_splits`.

    The result depends on the records' content and the seed, not on their order. Raises :class:`UsageError` for
    fewer than two folds, more folds than patients (images) to hold out, or a fraction outside [0, 1].
    """
    records = sorted(records, key=lambda record: record.image)
    held = [record for record in records if record.boxes or of == "all"]
    _check_options(held, folds, by, of, unannotated, validation)
    tests = _hold_out(held, folds, by, of, seed)
    others = [record for record in records if not record.boxes and of == "boxes"]
    order = np.random.default_rng(seed).permutation(len(others))[: round(unannotated * len(others))]
    pool = [others[index] for index in sorted(order)]
    made = []
    for number, test in enumerate(tests):
        held_out = {_group(record, by) for record in test}
        rest = [record for record in [*held, *pool] if _group(record, by) not in held_out]
        if by == "image":
            rest = [replace(record, patient=record.image) for record in rest]
        val = deal(rest, (1 - validation, validation, 0.0), seed + number)[1] if validation else []
        made.append(Fold(tuple(record.image for record in test), tuple(sorted(val))))
    notes = [
        f"{len(pool)} of {len(others)} images without boxes are used for training" if of == "boxes" else "of all images"
    ]
    if by == "patient" and grouping != "patient":
        notes.append(f"folds are by {grouping}, as the data set names no patients")
    if not validation:
        notes.append("all images that a fold does not hold out are used for training, none for validation")
    names = tuple(record.image for record in pool)
    splits = FoldSplits(by, tuple(made), names, seed, label_version, tuple(notes), of)
    splits.check(records)
    return splits


def _check_options(held: Sequence[Record], folds: int, by: str, of: str, unannotated: float, validation: float) -> None:
    for name, value, known in (("folds-by", by, get_args(FoldsBy)), ("folds-of", of, get_args(FoldsOf))):
        if value not in known:
            raise UsageError(f"{name} is {value!r}; expected {' or '.join(known)}")
    if folds < 2:
        raise UsageError(f"folds: expected 2 or more, got {folds}")
    if not 0 <= unannotated <= 1:
        raise UsageError(f"unannotated: expected a fraction from 0 to 1, got {unannotated:g}")
    if of == "all" and unannotated < 1:
        raise UsageError(f"unannotated: folds of all images have none beside them; leave out {unannotated:g}")
    if not 0 <= validation < 1:
        raise UsageError(f"validation: expected a share from 0 to below 1, got {validation:g}")
    if not held:
        raise UsageError(
            "folds: no image of the data set has a box, and annotated images are what folds hold out; hold out all "
            "with --folds-of all"
        )
    groups = len({_group(record, by) for record in held})
    if groups < folds:
        what = f"{by}s with boxes" if of == "boxes" else f"{by}s"
        raise UsageError(f"folds: {folds} are more than the {groups} {what}; choose {groups} or fewer")


def _hold_out(held: Sequence[Record], folds: int, by: str, of: str, seed: int) -> list[list[Record]]:
    """The images of every fold's test part."""
    groups = [_group(record, by) for record in held]
    classes = [tuple(record.boxes) if of == "boxes" else tuple(record.labels) or ("",) for record in held]
    dealt = deal_stratified(classes, groups, folds, seed)
    return [[record for record, fold in zip(held, dealt, strict=True) if fold == number] for number in range(folds)]


def _group(record: Record, by: str) -> str:
    """The group of images that are in the same fold."""
    return record.patient if by == "patient" else record.image


def _image_names(value: Any, path: str | os.PathLike, what: str) -> tuple[str, ...]:
    return tuple(require_inside(name, f"{path}, {what}") for name in _names(value, path, what))


def _names(value: Any, path: str | os.PathLike, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise CxrfastError(f'{path}: {what} is not a list of strings; write it as ["00000001_000.png", …]')
    return tuple(value)
