"""hamming_topk compared with NumPy: the nearest negatives among all training images of ChestX-ray14, 86,524 of them.

As many anchors as a few batches have; what an epoch's 86,524 take is in proportion. NumPy works on blocks of anchors,
which keep its distances in the cache, and is asked for the distances alone: of equals it gives any.
"""

from typing import Any

import numpy as np
import torch

from cxrfast import ops, reference
from cxrfast.benchmarks.case import FORWARD, BenchmarkCase, Function, Goal, Peer, Problem, Work

IMAGES = 86_524
_ANCHORS_AT_ONCE = 8


def training_images(count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Hashes and labels `[N]`: over half of the images have no finding, the others one to three of 14 or so."""
    generator = torch.Generator().manual_seed(count)
    hashes = torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator)
    classes = torch.randint(0, 14, (3, count), generator=generator)
    findings = torch.rand(3, count, generator=generator) < torch.tensor([0.45, 0.4, 0.2])[:, None]
    findings[1:] &= findings[0]
    labels = torch.where(findings, 1 << classes, 0)
    return hashes.to(device), (labels[0] | labels[1] | labels[2]).to(device)


def _allowed(rule: str, a: Any, b: Any) -> Any:
    same, meet = a == b, (a & b) != 0
    return {"exact": same, "disjoint": ~(meet | same)}[rule]


def _numpy(rule: str, k: int, farthest: bool) -> Any:
    def make(problem: Problem) -> Function:
        def call(*inputs: torch.Tensor) -> torch.Tensor:  # [A, k] distances, -1 where there are no more
            queries, hashes, query_labels, labels = (x.numpy() for x in inputs)
            # Of signed numbers bitwise_count counts the absolute values.
            queries, hashes = queries.view(np.uint64), hashes.view(np.uint64)
            size = min(k, len(hashes))
            result = np.full((len(queries), k), -1, dtype=np.int32)
            for at in range(0, len(queries), _ANCHORS_AT_ONCE):
                block = slice(at, at + _ANCHORS_AT_ONCE)
                key = np.bitwise_count(queries[block, None] ^ hashes)
                if farthest:
                    key = 64 - key
                key[~_allowed(rule, query_labels[block, None], labels)] = 127
                key[np.arange(len(key)), np.arange(at, at + len(key))] = 127
                indices = np.argpartition(key, size - 1)[:, :size]
                nearest = np.take_along_axis(key, indices, 1)
                order = nearest.argsort(axis=1)
                nearest = np.take_along_axis(nearest, order, 1).astype(np.int32)
                found = nearest <= 64
                result[block, :size] = np.where(found, 64 - nearest if farthest else nearest, -1)
            return torch.from_numpy(result)

        return call

    return make


def _difference(ours: ops.HammingNeighbors, distances: torch.Tensor) -> float:
    return float((ours.distances.cpu() - distances).abs().max())


def _case(anchors: int, images: int, k: int, rule: str, farthest: bool) -> BenchmarkCase:
    def make(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Problem:
        hashes, labels = training_images(shape[1], device)
        own = torch.arange(shape[0], device=device)

        def call(function: Function) -> Function:
            return lambda queries, hashes, query_labels, labels: function(
                queries,
                hashes,
                k,
                query_labels=query_labels,
                labels=labels,
                rule=rule,
                farthest=farthest,
                query_indices=own,
            )

        inputs = (hashes[: shape[0]], hashes, labels[: shape[0]], labels)
        return Problem(inputs, call(ops.hamming_topk), call(reference.hamming_topk))

    return BenchmarkCase(
        name=f"hamming_topk/{rule}/{'farthest' if farthest else 'nearest'}/{anchors}x{images}/k{k}",
        operator="hamming_topk",
        shape=(anchors, images),
        small_shape=(8, 1000),
        make=make,
        work={FORWARD: Work(other_bytes=16 * images + 12 * anchors * k, operations=anchors * images)},
        peers=(Peer("numpy", _numpy(rule, k, farthest), "bitwise_count", compare=_difference, devices=("cpu",)),),
        goals={FORWARD: Goal({"*": 10.0})},
    )


CASES = [
    _case(256, IMAGES, 1000, "disjoint", farthest=False),
    _case(256, IMAGES, 500, "exact", farthest=True),
    _case(16, IMAGES, 1000, "disjoint", farthest=False),
]
