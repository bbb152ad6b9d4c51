"""The nearest or farthest 64-bit hashes by Hamming distance, among those whose labels a rule allows."""

import torch

from cxrfast._operator_results import HammingNeighbors
from cxrfast.ops._registration import call, register
from cxrfast.ops._validation import check_integer, check_shape, choose

LABEL_RULES = {"any": 0, "exact": 1, "partial": 2, "disjoint": 3, "shared": 4}


def hamming_topk(
    queries: torch.Tensor,  # [A] int64
    hashes: torch.Tensor,  # [N] int64
    k: int,
    *,
    query_labels: torch.Tensor | None = None,  # [A] int64
    labels: torch.Tensor | None = None,  # [N] int64
    rule: str = "any",
    farthest: bool = False,
    query_indices: torch.Tensor | None = None,  # [A] int64
) -> HammingNeighbors:
    """For every query, the k hashes at the smallest (or greatest) Hamming distance among those that are allowed.

    The distance of two hashes is the number of bits in which they differ, `popcount(a XOR b)`, 0 to 64. The search is
    exact and goes over all hashes. Of equally distant ones the lower index comes first, so the answer is unique.

    Labels are sets, written as an integer with a bit per class (63 classes fit; the sign bit is a 64th). With a the
    query's set and b the candidate's, a rule allows

    - "any": every candidate; labels are not needed;
    - "exact": a = b; two empty sets are equal;
    - "partial": a ∩ b ≠ ∅ and a ≠ b;
    - "disjoint": a ∩ b = ∅ and a ≠ b, so that two empty sets are not disjoint;
    - "shared": exact or partial.

    Exact, partial and disjoint exclude each other and leave no candidate out.

    Args:
        queries, hashes: any 64 bits each, as int64; on one device. Any strides.
        k: 1 or more; more than there are allowed candidates is filled up with −1.
        query_labels, labels: needed by every rule but "any".
        farthest: the greatest distances first.
        query_indices: each query's own place in `hashes`, which is never among its neighbours; −1 for a query that is
            not one of them.

    Returns:
        :class:`HammingNeighbors`. Deterministic; no gradient. Nothing of size A·N is ever held.

    Raises:
        TypeError: a tensor is not int64, k is not an integer, `farthest` is not a bool.
        ValueError: a shape or a device does not fit, an unknown rule, a rule without labels, k below 1.
    """
    check_integer("k", k, 1)
    number = choose("rule", rule, LABEL_RULES)
    if not isinstance(farthest, bool):
        raise TypeError(f"farthest: expected True or False, got {farthest!r}")
    _check_column("queries", queries, "[A]")
    _check_column("hashes", hashes, "[N]", device=queries.device)
    if number and (query_labels is None or labels is None):
        missing = "query_labels" if query_labels is None else "labels"
        raise ValueError(f"{missing}: expected a tensor, which rule {rule!r} needs, got None")
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
