"""Folds keep groups together and spread the classes; each rule keeps the folds that it has always made."""

import pytest
import torch

from cxrfast.data.dealing import count_groups, deal_in_turn, deal_stratified, rarity


def test_rarity_counts_groups_not_items():
    classes = [["a"], ["a"], ["a", "b"], ["b"], ["c"]]
    groups = ["p", "p", "p", "q", "r"]
    counts = count_groups(classes, groups)
    assert counts == {"a": 1, "b": 2, "c": 1}
    assert rarity(["b", "a"], counts) == (1, "a")
    assert rarity(["c", "a"], counts) == (1, "a")  # equally rare: the first name


def test_the_folds_of_committed_results_do_not_change():
    """Thresholds are chosen on these folds whenever a prediction is scored; those of a cross-validation are stored."""
    classes = [["ABCD"[min(n % 7, 3)], *(["E"] if n % 5 == 0 else [])] for n in range(40)]
    groups = [f"p{n * n % 23}" for n in range(40)]
    folds = deal_in_turn(classes, groups, 4, seed=3)
    assert "".join(map(str, folds)) == "2132312031000013021323121323120310000130"


@pytest.mark.parametrize("deal", [deal_in_turn, deal_stratified])
def test_items_of_a_group_are_in_one_fold_and_no_fold_is_empty(deal):
    generator = torch.Generator().manual_seed(1)
    groups = [f"p{n}" for n in torch.randint(12, (60,), generator=generator).tolist()]
    classes = [["AB"[n % 2]] for n in range(60)]
    folds = deal(classes, groups, 4)
    assert set(folds) == {0, 1, 2, 3}
    assert len(set(zip(groups, folds, strict=True))) == len(set(groups))


def test_folds_in_turn_keep_groups_together_and_spread_the_classes():
    generator = torch.Generator().manual_seed(0)
    groups = [f"p{int(n)}" for n in torch.randint(200, (400,), generator=generator)]
    class_index = (torch.rand(400, generator=generator) * 3).pow(2).long()  # from frequent to rare
    fold = deal_in_turn([[k] for k in class_index.tolist()], groups, 5)
    assert all(len({f for f, g in zip(fold, groups, strict=True) if g == name}) == 1 for name in groups)
    rarest = min(range(9), key=lambda k: len({g for g, c in zip(groups, class_index.tolist(), strict=True) if c == k}))
    for k in range(9):
        of_class = {g for g, c in zip(groups, class_index.tolist(), strict=True) if c == k}
        count = [len({g for g in of_class if fold[groups.index(g)] == f}) for f in range(5)]
        # The rarest class is dealt first, evenly; of the others, patients with a rarer class are dealt with that.
        assert max(count) - min(count) <= (1 if k == rarest else len(of_class) / 5)
    assert fold == deal_in_turn([[k] for k in class_index.tolist()], groups, 5)
