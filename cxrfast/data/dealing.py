"""Assigns groups of items, such as the images of a patient, to folds so that every class is spread over the folds.

There are two rules, because published results depend on both. :func:`deal_stratified` makes the folds of a
cross-validation; runs on disk contain its folds. :func:`deal_in_turn` makes the folds on which a protocol chooses map
thresholds; every committed localisation result depends on them. For the same items and seed they give different folds,
so one cannot replace the other. Both, and :func:`cxrfast.data.splits.deal`, stratify by the rarest class.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch

Class = TypeVar("Class", int, str)


def count_groups(
    classes: Sequence[Collection[Class]],  # of every item
    groups: Sequence[str],  # of every item
) -> Counter[Class]:
    """For every class, the number of groups with an item of that class."""
    pairs = {(name, group) for names, group in zip(classes, groups, strict=True) for name in names}
    return Counter(name for name, _ in pairs)


def rarity(classes: Iterable[Class], groups_with: Counter[Class]) -> tuple[int, Class]:
    """The rarest of the given classes, as (number of groups, name). Ties are resolved by name."""
    return min((groups_with[name], name) for name in classes)


def deal_in_turn(
    classes: Sequence[Collection[Class]],  # [N], one or more for every item
    groups: Sequence[str],  # [N]: items of a group are in the same fold
    count: int,
    seed: int = 0,
) -> list[int]:  # [N] in 0..count-1
    """Groups are sorted by their rarest class, shuffled within a class, and assigned to the folds in turn."""
    groups_with = count_groups(classes, groups)
    of_group: dict[str, set[Class]] = {}
    for names, group in zip(classes, groups, strict=True):
        of_group.setdefault(group, set()).update(names)
    ordered = sorted(of_group)
    order = torch.randperm(len(ordered), generator=torch.Generator().manual_seed(seed)).tolist()
    row = sorted((ordered[index] for index in order), key=lambda group: rarity(of_group[group], groups_with))
    fold = {group: position % count for position, group in enumerate(row)}
    return [fold[group] for group in groups]


def deal_stratified(
    classes: Sequence[Collection[Class]],  # [N], one or more for every item
    groups: Sequence[str],  # [N]: items of a group are in the same fold
    count: int,
    seed: int = 0,
) -> list[int]:  # [N] in 0..count-1
    """scikit-learn's ``StratifiedGroupKFold`` with the rarest class of every item as its stratum."""
    from sklearn.model_selection import StratifiedGroupKFold  # here, because only cross-validation needs it

    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    fold = np.empty(len(groups), dtype=int)
    for number, (_, test) in enumerate(splitter.split(fold, _strata(classes, groups, count), groups)):
        fold[test] = number
    return fold.tolist()


def _strata(classes: Sequence[Collection[Class]], groups: Sequence[str], count: int) -> list[int]:
    """The stratum of every item: its rarest class. Strata with fewer items than folds are merged."""
    groups_with = count_groups(classes, groups)
    rarest = [rarity(names, groups_with)[1] for names in classes]
    items_with = Counter(rarest)
    stratum: dict[Class, int] = {}
    number = size = 0
    left = len(classes)
    for name in sorted(items_with, key=lambda name: (items_with[name], name)):
        stratum[name] = number
        size += items_with[name]
        left -= items_with[name]
        if size >= count and left >= count:
            number, size = number + 1, 0
    return [stratum[name] for name in rarest]
