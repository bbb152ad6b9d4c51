"""Reads and splits the data that a configuration names, chooses the classes, and builds the data sets."""

import copy
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from cxrfast.data import Record, Splits, XrayDataset, fractions_with, make_splits, read_data
from cxrfast.data.class_names import ClassMatcher, describe_matches
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.methods import get_method
from cxrfast.training.config import RunConfig

_CACHE_LIMIT = 2e9  # bytes


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """The data of a run, split into parts, with notes for the user."""

    records: dict[str, list[Record]]  # "train", "val", "test"
    splits: Splits
    class_names: tuple[str, ...]
    label_version: str
    notes: tuple[str, ...]
    layout: str
    synthetic: bool
    tables: tuple[Path, ...] = ()  # files of the data set that the records were read from


def prepare_data(config: RunConfig, splits: Splits | None = None, classes: Sequence[str] | None = None) -> PreparedData:
    """Read and split the data set. `splits` and `classes` of an existing run are reused; the splits are checked."""
    if splits is None and config.split == "folds":
        raise UsageError(
            "split: expected patient or official for a single run, got folds; choose one, or add --folds 5"
        )
    source = read_data(config.data, config.data_options)
    if splits is None:
        splits = make_splits(
            source.records,
            seed=config.seed,
            fractions=fractions_with(config.val_share),
            strategy="official" if config.split == "official" else "patient",
            label_version=source.label_version,
            grouping=source.grouping,
        )
    splits.check(source.records)
    records = {part: splits.part(part, source.records) for part in ("train", "val", "test")}
    if not records["train"]:
        raise CxrfastError(f"data: expected training images under split {config.split!r}, got none in {config.data}")
    notes = [*source.notes, *source.class_notes, *splits.notes]
    if not records["val"]:
        check_without_validation(config)
        notes.append("no validation images: the last epoch is kept, and the score threshold of every class is 0.5")
    if config.annotated is not None:
        for part in ("train", "val"):
            records[part] = limit_annotation(records[part], config.annotated, config.seed)
    if classes is None:
        classes = choose_classes(config, source.class_names, records["train"], notes)
    notes.append(_describe(records, classes))
    return PreparedData(
        records,
        splits,
        tuple(classes),
        source.label_version,
        tuple(notes),
        source.layout,
        source.synthetic,
        source.tables,
    )


def check_without_validation(config: RunConfig) -> None:
    """Raise UsageError if the learning-rate schedule needs validation images."""
    if config.lr_schedule in ("plateau", "search"):
        raise UsageError(
            f"lr_schedule: expected steps or milestones without validation images, got {config.lr_schedule}; add "
            "--lr-milestones 10, or validation images with --val-share 0.1"
        )


def limit_annotation(records: Sequence[Record], share: float, seed: int) -> list[Record]:
    """All images, with boxes on at most the fraction `share` of them; the others become unannotated.

    The choice depends only on `seed` and the names of the images. A larger share contains the images of a smaller one.
    """

    def chance(record: Record) -> str:
        return hashlib.sha256(f"{seed}/{record.image}".encode()).hexdigest()

    boxed = sorted((record for record in records if record.boxes), key=chance)
    kept = {record.image for record in boxed[: round(share * len(records))]}
    return [record if record.image in kept else dataclasses.replace(record, boxes={}) for record in records]


def choose_classes(config: RunConfig, known: Sequence[str], train: Sequence[Record], notes: list[str]) -> list[str]:
    """The requested classes, or all of `known` with a positive training image. A note lists those left out."""
    present = {name for record in train for name in record.labels}
    if config.classes is not None:
        asked = matched_classes(config.classes, known, notes)
        for name in asked:
            if name not in present:
                raise UsageError(f"classes: expected classes with positive training images, got {name}; leave it out")
        if len(set(asked)) < len(asked):
            raise UsageError(f"classes: expected each class once, got {', '.join(config.classes)}")
        return asked
    absent = [name for name in known if name not in present]
    if absent:
        notes.append(f"classes without a positive training image are left out: {', '.join(absent)}")
    chosen = [name for name in known if name in present]
    if not chosen:
        raise CxrfastError(f"data: expected training images with findings, got none in {config.data}")
    return chosen


def matched_classes(asked: Sequence[str], known: Sequence[str], notes: list[str]) -> list[str]:
    """The requested classes in the spelling of the data set. A note lists other spellings."""
    matches = ClassMatcher(known).matches(asked)
    for name in asked:
        if name not in matches:
            raise UsageError(f"classes: expected some of {', '.join(known)}, got {name!r}")
    notes.extend(text for text in (describe_matches(matches),) if text)
    return [matches[name] for name in asked]


def _describe(records: dict[str, list[Record]], classes: Sequence[str]) -> str:
    def part(name: str) -> str:
        boxed = sum(1 for record in records[name] if any(record.boxes.get(c) for c in classes))
        return f"{name} {len(records[name])} images ({boxed} with boxes)"

    return f"{len(classes)} classes; " + ", ".join(part(name) for name in ("train", "val", "test"))


def make_dataset(config: RunConfig, data: PreparedData, part: str, *, augment: bool = False) -> XrayDataset:
    """The data set of one part of the split: train, val or test."""
    records = data.records[part]
    needed = 2 * config.image_size**2 * sum(len(group) for group in data.records.values())
    cache = needed < _CACHE_LIMIT if config.cache is None else config.cache
    return XrayDataset(
        records,
        data.class_names,
        config.image_size,
        augment=get_method(config.method).augmentation if augment else None,
        cache=cache,
    )


def without_augmentation(dataset: XrayDataset) -> XrayDataset:
    """The same data set without augmentation; both share one cache."""
    plain = copy.copy(dataset)
    plain.augment = None
    return plain
