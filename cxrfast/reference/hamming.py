"""hamming_topk in plain PyTorch: all distances, all rules, one stable sort."""

import torch

from cxrfast._operator_results import HammingNeighbors


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
    """The specification of :func:`cxrfast.ops.hamming_topk`."""
    differing = queries[:, None] ^ hashes
    bits = torch.arange(64, device=queries.device)
    distances = (differing[..., None] >> bits & 1).sum(-1)
    allowed = torch.ones_like(distances, dtype=torch.bool)
    if rule != "any" and query_labels is not None and labels is not None:
        a, b = query_labels[:, None], labels
        same, meet = a == b, a & b != 0
        allowed = {"exact": same, "partial": meet & ~same, "disjoint": ~meet & ~same, "shared": meet | same}[rule]
    if query_indices is not None:
        allowed = allowed & (query_indices[:, None] != torch.arange(len(hashes), device=queries.device))
    rank = torch.where(allowed, -distances if farthest else distances, 65)
    order = rank.argsort(dim=1, stable=True)[:, :k]
    found = allowed.gather(1, order)
    missing = k - order.shape[1]
    indices = torch.nn.functional.pad(torch.where(found, order, -1), (0, missing), value=-1)
    nearest = torch.nn.functional.pad(torch.where(found, distances.gather(1, order), -1), (0, missing), value=-1)
    return HammingNeighbors(indices, nearest.int())
