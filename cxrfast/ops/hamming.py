"""Exact nearest- or farthest-neighbour search over 64-bit hashes by Hamming distance, with a rule on labels."""

from typing import Literal

import torch

from cxrfast._operator_results import HammingNeighbors
from cxrfast.ops._registration import call, register
from cxrfast.ops._validation import check_integer, check_shape, choose

LabelRule = Literal["any", "exact", "partial", "disjoint", "shared"]
LABEL_RULES: dict[LabelRule, int] = {"any": 0, "exact": 1, "partial": 2, "disjoint": 3, "shared": 4}


def hamming_topk(
    queries: torch.Tensor,  # [A] int64
    hashes: torch.Tensor,  # [N] int64
    k: int,
    *,
    query_labels: torch.Tensor | None = None,  # [A] int64
    labels: torch.Tensor | None = None,  # [N] int64
    rule: LabelRule = "any",
    farthest: bool = False,
    query_indices: torch.Tensor | None = None,  # [A] int64
) -> HammingNeighbors:
    """For every query, the k hashes with the smallest (or largest) Hamming distance among the allowed candidates.

    The distance of two hashes is the number of bits in which they differ, `popcount(a XOR b)`, 0 to 64. The search is
    exact: it compares with all hashes. Ties are ordered by index, so the result is unique.

    Labels are sets of classes, encoded as an integer with one bit per class (up to 64, including the sign bit). With
    the query's set a and the candidate's set b, a rule allows

    - "any": every candidate; labels are not needed;
    - "exact": a = b; two empty sets are equal;
    - "partial": a ∩ b ≠ ∅ and a ≠ b;
    - "disjoint": a ∩ b = ∅ and a ≠ b, so two empty sets are not disjoint;
    - "shared": exact or partial.

    Every candidate satisfies exactly one of exact, partial and disjoint.

    Args:
        queries, hashes: 64 bits each, as int64; on the same device. Any strides.
        k: 1 or more. If fewer candidates are allowed, the row is padded with −1.
        query_labels, labels: required by every rule except "any".
        farthest: return the largest distances, in descending order.
        query_indices: the index of each query in `hashes`, which is excluded from its neighbours; −1 for a query that
            is not in `hashes`.

    Returns:
        :class:`HammingNeighbors`. Deterministic; no gradient. No A×N matrix is allocated.

    Raises:
        TypeError: a tensor is not int64, k is not an integer, `farthest` is not a bool.
        ValueError: a shape or device does not match, an unknown rule, a rule that needs labels without them, k below 1.

    Example:
        >>> hashes = torch.tensor([0b0000, 0b0001, 0b0111])
        >>> found = hamming_topk(hashes, hashes, k=2, query_indices=torch.arange(3))
        >>> found.indices.tolist(), found.distances.tolist()
        ([[1, 2], [0, 2], [1, 0]], [[1, 3], [1, 2], [2, 3]])
    """
    check_integer("k", k, 1)
    number = choose("rule", rule, LABEL_RULES)
    if not isinstance(farthest, bool):
        raise TypeError(f"farthest: expected True or False, got {farthest!r}")
    _check_column("queries", queries, "[A]")
    _check_column("hashes", hashes, "[N]", device=queries.device)
    if number and (query_labels is None or labels is None):
        missing = "query_labels" if query_labels is None else "labels"
        raise ValueError(f"{missing}: expected a tensor, because rule {rule!r} needs labels, got None")
    for name, column, like in (
        ("query_labels", query_labels, queries),
        ("labels", labels, hashes),
        ("query_indices", query_indices, queries),
    ):
        if column is not None:
            _check_column(name, column, f"[{like.shape[0]}]", like.shape[0], queries.device)
    if hashes.shape[0] >= 2**31 - 1:
        raise ValueError(f"hashes: expected fewer than 2**31 - 1, got {hashes.shape[0]}")
    found = call(
        torch.ops.cxrfast.hamming_topk, queries, hashes, query_labels, labels, query_indices, k, number, farthest
    )
    return HammingNeighbors(*found)


def _check_column(
    name: str, x: torch.Tensor, expected: str, length: int | None = None, device: torch.device | None = None
) -> None:
    if not isinstance(x, torch.Tensor) or x.dtype != torch.int64:
        raise TypeError(f"{name}: expected an int64 tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    check_shape(name, x, expected, 1)
    if length is not None and x.shape[0] != length:
        raise ValueError(f"{name}: expected {expected}, got shape {tuple(x.shape)}")
    if device is not None and x.device != device:
        raise ValueError(f"{name}: expected queries' device {device}, got {x.device}")


def _fake(
    queries: torch.Tensor,
    hashes: torch.Tensor,
    query_labels: torch.Tensor | None,
    labels: torch.Tensor | None,
    query_indices: torch.Tensor | None,
    k: int,
    rule: int,
    farthest: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int32)


register("hamming_topk", fake=_fake)
