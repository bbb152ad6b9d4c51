"""From a configuration to records, splits, classes and data sets."""

import copy
import dataclasses
import hashlib
from collections.abc import Sequence

from cxrfast.data import Record, Splits, XrayDataset, fractions_with, make_splits, read_data
from cxrfast.data.class_names import ClassMatcher, describe_matches
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.methods import get_method
from cxrfast.training.config import RunConfig

_CACHE_LIMIT = 2e9  # bytes


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """The data of a run, split, with the remarks that a user should see."""

    records: dict[str, list[Record]]  # "train", "val", "test"
    splits: Splits
    class_names: tuple[str, ...]
    label_version: str
    notes: tuple[str, ...]


def prepare_data(config: RunConfig, splits: Splits | None = None, classes: Sequence[str] | None = None) -> PreparedData:
    """Read the data set and split it; `splits` and `classes` of an existing run are kept and checked."""
    if splits is None and config.split == "folds":
        raise UsageError(
            "split: folds belong to a cross-validation; add --folds, or choose --split patient or official"
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
        raise CxrfastError(f"data: no training image in {config.data} under split {config.split!r}")
    notes = [*source.notes, *source.class_notes, *splits.notes]
    if not records["val"]:
        check_without_validation(config)
        notes.append("no image validates: the last epoch is kept, and every class is called present from 0.5 on")
    if config.annotated is not None:
        for part in ("train", "val"):
            records[part] = limit_annotation(records[part], config.annotated, config.seed)
    if classes is None:
        classes = choose_classes(config, source.class_names, records["train"], notes)
    notes.append(_describe(records, classes))
    return PreparedData(records, splits, tuple(classes), source.label_version, tuple(notes))


def check_without_validation(config: RunConfig) -> None:
    """Raise UsageError for settings that nothing can follow where no image validates."""
    if config.lr_schedule in ("plateau", "search"):
        raise UsageError(
            f"lr_schedule: {config.lr_schedule} divides the learning rate by validation, and no image validates; give "
            "its epoch (--lr-milestones 10), or a validation part (--val-share 0.1)"
        )


def limit_annotation(records: Sequence[Record], share: float, seed: int) -> list[Record]:
    """The same images, of which at most `share` keep their boxes; the others count as unannotated.

    Which keep them depends on `seed` and on their names, and a larger share keeps those of a smaller one.
    """

    def chance(record: Record) -> str:
        return hashlib.sha256(f"{seed}/{record.image}".encode()).hexdigest()

    boxed = sorted((record for record in records if record.boxes), key=chance)
    kept = {record.image for record in boxed[: round(share * len(records))]}
    return [record if record.image in kept else dataclasses.replace(record, boxes={}) for record in records]


def choose_classes(config: RunConfig, known: Sequence[str], train: Sequence[Record], notes: list[str]) -> list[str]:
    """The classes that are asked for, or all of `known` that a training image shows. What is left out goes to
    `notes`."""
    present = {name for record in train for name in record.labels}
    if config.classes is not None:
        asked = matched_classes(config.classes, known, notes)
        for name in asked:
            if name not in present:
                raise UsageError(f"classes: no training image shows {name}; leave it out")
        if len(set(asked)) < len(asked):
            raise UsageError(f"classes: expected each once, got {', '.join(config.classes)}")
        return asked
    absent = [name for name in known if name not in present]
    if absent:
        notes.append(f"left out, no training image shows them: {', '.join(absent)}")
    chosen = [name for name in known if name in present]
    if not chosen:
        raise CxrfastError(f"data: no training image in {config.data} has a finding; there is nothing to learn")
    return chosen


def matched_classes(asked: Sequence[str], known: Sequence[str], notes: list[str]) -> list[str]:
    """The data set's own spelling of the classes that are asked for. Other spellings go to `notes`."""
    matches = ClassMatcher(known).matches(asked)
    for name in asked:
        if name not in matches:
            raise UsageError(f"classes: unknown class {name!r}; known: {', '.join(known)}")
    notes.extend(text for text in (describe_matches(matches),) if text)
    return [matches[name] for name in asked]


def _describe(records: dict[str, list[Record]], classes: Sequence[str]) -> str:
    def part(name: str) -> str:
        boxed = sum(1 for record in records[name] if any(record.boxes.get(c) for c in classes))
        return f"{name} {len(records[name])} images ({boxed} with boxes)"

    return f"{len(classes)} classes; " + ", ".join(part(name) for name in ("train", "val", "test"))


def make_dataset(config: RunConfig, data: PreparedData, part: str, *, augment: bool = False) -> XrayDataset:
    """The data set of one part of the split."""
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
    """The same images as they are, from the same cache."""
    plain = copy.copy(dataset)
    plain.augment = None
    return plain
