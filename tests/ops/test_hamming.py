"""hamming_topk against its reference, a search over Python's integers, and the promises every operator makes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast import reference
from cxrfast.ops import hamming_topk
from tests.ops.inputs import laid_out, random

RULES = ("any", "exact", "partial", "disjoint", "shared")


def hashes(count, seed=0, bits=64):
    """Random in so many of their bits: the fewer, the more are equally far."""
    words = random(torch.randint, -(2**63), 2**63 - 1, (count,), seed=seed)
    return words if bits == 64 else words & (2**bits - 1)


def label_sets(count, classes=4, seed=1):
    return random(torch.randint, 0, 2**classes, (count,), seed=seed)


def mine(function, count, queries, k, *, rule, farthest, bits=64, classes=4, layout="sliced", seed=0):
    """The neighbours of the first hashes among all of them."""
    all_hashes = laid_out(hashes(count, seed, bits), layout)
    all_labels = laid_out(label_sets(count, classes, seed + 1), layout)
    return function(
        all_hashes[:queries],
        all_hashes,
        k,
        query_labels=all_labels[:queries],
        labels=all_labels,
        rule=rule,
        farthest=farthest,
        query_indices=torch.arange(min(queries, count)),
    )


def compare(*args, **options):
    actual, expected = (mine(f, *args, **options) for f in (hamming_topk, reference.hamming_topk))
    assert actual.indices.dtype == torch.int64
    assert actual.distances.dtype == torch.int32
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("farthest", [False, True])
def test_equals_reference(rule, farthest):
    compare(700, 30, 20, rule=rule, farthest=farthest)
    compare(3001, 5, 7, rule=rule, farthest=farthest, bits=6)


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(0, 400),
    queries=st.integers(0, 12),
    k=st.integers(1, 450),
    rule=st.sampled_from(RULES),
    farthest=st.booleans(),
    bits=st.sampled_from((0, 1, 3, 64)),
    classes=st.sampled_from((0, 1, 3, 14)),
    layout=st.sampled_from(("sliced", "contiguous")),
    seed=st.integers(0, 1000),
)
def test_equals_reference_for_any_shape_and_rule(count, queries, k, rule, farthest, bits, classes, layout, seed):
    compare(count, queries, k, rule=rule, farthest=farthest, bits=bits, classes=classes, layout=layout, seed=seed)


@pytest.mark.not_emulated("many candidates")
@pytest.mark.parametrize("k", [1, 3, 300])
@pytest.mark.parametrize("bits", [2, 64])
def test_many_candidates(k, bits):
    compare(20_000, 5, k, rule="disjoint", farthest=False, bits=bits)
    compare(20_000, 5, k, rule="exact", farthest=True, bits=bits)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), rule=st.sampled_from(RULES), farthest=st.booleans())
def test_equals_a_search_over_integers(seed, rule, farthest):
    count, k = 40, 6
    found = mine(hamming_topk, count, count, k, rule=rule, farthest=farthest, bits=10, seed=seed)
    words, labels = hashes(count, seed, 10).tolist(), label_sets(count, seed=seed + 1).tolist()
    sets = [{c for c in range(4) if label >> c & 1} for label in labels]
    allow = {
        "any": lambda a, b: True,
        "exact": lambda a, b: a == b,
        "partial": lambda a, b: bool(a & b) and a != b,
        "disjoint": lambda a, b: not a & b and a != b,
        "shared": lambda a, b: a == b or bool(a & b),
    }[rule]
    for i in range(count):
        candidates = [
            ((-1) ** farthest * bin(words[i] ^ words[j]).count("1"), j)
            for j in range(count)
            if j != i and allow(sets[i], sets[j])
        ]
        best = sorted(candidates)[:k]
        best += [None] * (k - len(best))
        assert found.indices[i].tolist() == [-1 if c is None else c[1] for c in best]
        assert found.distances[i].tolist() == [-1 if c is None else abs(c[0]) for c in best]


@pytest.mark.parametrize("farthest", [False, True])
def test_candidates_that_keep_getting_better(farthest):
    """The worst order for a search that forgets what has fallen behind: every candidate beats those before it."""
    words = torch.tensor([(1 << n) - 1 for n in (range(63) if farthest else range(62, -1, -1)) for _ in range(40)])
    for k in (1, 7, 100):
        query = torch.zeros(1, dtype=torch.int64)
        actual = hamming_topk(query, words, k, farthest=farthest)
        for ours, theirs in zip(actual, reference.hamming_topk(query, words, k, farthest=farthest), strict=True):
            assert torch.equal(ours, theirs)


def test_all_64_bits_count():
    everything = torch.tensor([0, -1, -(2**63), 1])
    found = hamming_topk(everything, everything, 4)
    assert found.distances[0].tolist() == [0, 1, 1, 64]
    assert found.indices[0].tolist() == [0, 2, 3, 1]
    farthest = hamming_topk(everything, everything, 4, farthest=True)
    assert farthest.distances[0].tolist() == [64, 1, 1, 0]
    assert farthest.indices[0].tolist() == [1, 2, 3, 0]
    sign = torch.tensor([-(2**63)])  # a 64th class
    assert hamming_topk(sign, sign, 1, query_labels=sign, labels=sign - 1, rule="shared").indices.item() == -1
    assert hamming_topk(sign, sign, 1, query_labels=sign, labels=sign + 1, rule="partial").indices.item() == 0


def test_images_without_a_finding_match_each_other():
    words, none = torch.tensor([1, 2, 3]), torch.zeros(3, dtype=torch.int64)
    labels = torch.tensor([0, 0, 5])
    options = {"query_labels": none, "labels": labels, "query_indices": torch.arange(3)}
    assert hamming_topk(words, words, 2, rule="exact", **options).indices[0].tolist() == [1, -1]
    assert hamming_topk(words, words, 2, rule="disjoint", **options).indices[0].tolist() == [2, -1]
    assert hamming_topk(words, words, 2, rule="partial", **options).indices.eq(-1).all()


def test_a_query_from_elsewhere_may_find_its_like():
    words = hashes(50)
    strangers = torch.full((50,), -1)
    found = hamming_topk(words, words, 1, query_indices=strangers)
    assert found.indices[:, 0].tolist() == list(range(50))
    assert hamming_topk(words, words, 1, query_indices=torch.arange(50)).distances.min() > 0


def test_deterministic():
    options = {"rule": "disjoint", "farthest": False, "bits": 8}
    first = mine(hamming_topk, 5000, 40, 50, **options)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again = mine(hamming_topk, 5000, 40, 50, **options)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first.indices, again.indices)
    assert torch.equal(first.distances, again.distances)


def test_opcheck():
    words, labels = hashes(30), label_sets(30)
    operator = torch.ops.cxrfast.hamming_topk.default
    torch.library.opcheck(operator, (words[:5], words, None, None, None, 3, 0, False))
    torch.library.opcheck(operator, (words[:5], words, labels[:5], labels, torch.arange(5), 40, 3, True))


def test_compiles():
    words, labels = hashes(30), label_sets(30)

    def nearest(words, labels):
        return hamming_topk(words, words, 4, query_labels=labels, labels=labels, rule="partial")

    compiled = torch.compile(nearest, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(compiled(words, labels), nearest(words, labels), strict=True):
        assert torch.equal(ours, theirs)


W, L = torch.zeros(3, dtype=torch.int64), torch.ones(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "queries: expected an int64 tensor, got torch.float32", lambda: hamming_topk(W.float(), W, 1)),
        (TypeError, "hashes: expected an int64 tensor, got list", lambda: hamming_topk(W, [1], 1)),
        (ValueError, r"hashes: expected \[N\], got shape \(1, 3\)", lambda: hamming_topk(W, W[None], 1)),
        (ValueError, "k: expected at least 1, got 0", lambda: hamming_topk(W, W, 0)),
        (TypeError, "k: expected an integer, got 1.0", lambda: hamming_topk(W, W, 1.0)),
        (TypeError, "farthest: expected True or False, got 1", lambda: hamming_topk(W, W, 1, farthest=1)),
        (ValueError, "rule: expected one of any, exact, partial", lambda: hamming_topk(W, W, 1, rule="same")),
        (ValueError, "query_labels: .* rule 'exact' needs", lambda: hamming_topk(W, W, 1, labels=W, rule="exact")),
        (ValueError, "^labels: .* got None", lambda: hamming_topk(W, W, 1, query_labels=W, rule="exact")),
        (
            ValueError,
            r"query_labels: expected \[3\], got shape \(2,\)",
            lambda: hamming_topk(W, W, 1, query_labels=L, labels=W, rule="exact"),
        ),
        (ValueError, r"query_indices: expected \[3\]", lambda: hamming_topk(W, W, 1, query_indices=L)),
        (TypeError, "labels: expected an int64 tensor", lambda: hamming_topk(W, W, 1, labels=W.int())),
    ],
)
def test_wrong_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
