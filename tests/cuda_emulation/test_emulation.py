"""The emulation itself: what it offers is right, and planted bugs are caught in every order of blocks and threads."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest

from tests.cuda_emulation import build

SEEDS = (0, 1, 2, 3, 4)  # ascending, descending, shuffled
Run = Callable[..., np.ndarray]


class LaunchFailed(Exception):
    pass


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(build.build("primitives", [build.HERE / "kernels" / "primitives.cu"])))


@pytest.fixture(params=SEEDS)
def run(library, request) -> Run:
    """Launches the kernel of a name on x; returns y, which holds `size` numbers and begins as `start`."""
    library.cxrfast_emulation_seed(ctypes.c_uint64(request.param))

    def launch(name, x, size, *, blocks=1, threads=32, shared_bytes=0, start=0):
        x, y = np.ascontiguousarray(x, np.int32), np.full(size, start, np.int32)
        kernel = getattr(library, name)
        kernel.restype = ctypes.c_char_p
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (x, y))
        error = kernel(*pointers, ctypes.c_uint(blocks), ctypes.c_uint(threads), ctypes.c_size_t(shared_bytes))
        if error is not None:
            raise LaunchFailed(error.decode())
        return y

    return launch


def numbers(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-99, 90, n, np.int32)


X = numbers(256)


@pytest.mark.parametrize("threads", [1, 31, 32, 33, 256, 1024])
def test_every_thread_of_every_block_runs_once(run, threads):
    expected = (np.arange(7)[:, None] * 1000 + np.arange(threads)).ravel()
    assert (run("indices", X, 7 * threads, blocks=7, threads=threads) == expected).all()


@pytest.mark.parametrize("threads", [32, 64, 256])
def test_block_sum(run, threads):
    x = numbers(5 * threads)
    assert (run("block_sum", x, 5, blocks=5, threads=threads) == x.reshape(5, -1).sum(1)).all()


def test_warp_functions(run):
    x, lanes = X[:32], np.arange(32)
    expected = []
    for width in (32, 8):
        start = lanes // width * width
        up, down, other = lanes - 3, lanes + 3, lanes ^ 6
        expected += [
            x[start + 5],
            x[np.where(up < start, lanes, up)],
            x[np.where(down >= start + width, lanes, down)],
            x[np.where(other >= start + width, lanes, other)],
        ]
    remainder = np.fmod(x, 3)
    match = ((remainder[:, None] == remainder) << lanes).sum(1)
    ballot = ((x > 0) << lanes).sum()
    alike = [ballot, (x > 90).any(), True, x.sum(), x.min(), x.max(), np.bitwise_or.reduce(x)]
    expected += [np.full(32, value) for value in alike]
    expected += [match, 2 * x[lanes ^ 1] + 1, np.where(lanes < 16, x[:16].sum(), 2 * x[16:].sum())]
    actual = run("warp_functions", x, 32 * len(expected)).reshape(-1, 32)
    assert (actual == np.stack(expected).astype(np.int64).astype(np.int32)).all()


def test_votes(run):
    actual = run("votes", X, 4 * 256, threads=256).reshape(4, 256)
    assert (actual == np.array([(X > 0).sum(), 1, 0, 0])[:, None]).all()


def test_atomics(run):
    x = numbers(3 * 64)
    y = run("atomics", x, 16, blocks=3, threads=64)
    bits = np.bitwise_or.reduce(1 << (x & 15))
    assert y[:7].tolist() == [
        *(x.sum(), min(0, x.min()), max(0, x.max())),
        *(bits, 0, np.bitwise_xor.reduce(x), -x.sum()),
    ]
    assert y[7:10].tolist() == [len(x) % 10, x.sum(), 7]
    assert y[10:11].view(np.float32)[0] == len(x) / 2
    assert y[12:14].view(np.float64)[0] == len(x) / 4
    assert y[14:16].view(np.uint64)[0] == len(x) << 32


def test_atomic_and(run):
    assert run("atomics", np.zeros(32, np.int32), 16, start=-1)[4] == ~1


def test_bits(run):
    x = np.array([0, 1, 2, 3, 255, -1, -(2**31), 2**31 - 1, *X[:24]], np.int32)
    text = [f"{value & 0xFFFFFFFF:032b}" for value in x.tolist()]
    wide = [f"{value & 0xFFFFFFFFFFFFFFFF:064b}" for value in x.tolist()]
    expected = [
        [t.count("1") for t in text],
        [t[::-1].find("1") + 1 for t in text],
        [(t + "1").find("1") for t in text],
        [int(t[::-1], 2) for t in text],
        [t.count("1") for t in wide],
        [(t + "1").find("1") for t in wide],
        [(v & 0xFFFF) + min(v, 3) + max(v, 5) for v in x.tolist()],
    ]
    actual = run("bits", x, 7 * 32).reshape(7, 32)
    assert (actual == np.array(expected, np.int64).astype(np.int32)).all()


def test_dynamic_shared_memory(run):
    x = numbers(3 * 64)
    actual = run("reverse", x, 3 * 64, blocks=3, threads=64, shared_bytes=256)
    assert (actual.reshape(3, 64) == x.reshape(3, 64)[:, ::-1]).all()


def test_the_last_block_reads_what_the_others_wrote(run):
    assert run("last_block", X, 2 + 40, blocks=40)[0] == X[:40].sum()


def test_shared_memory_begins_as_garbage(run):
    assert (run("uninitialised", X, 128, blocks=2, threads=64) != 0).all()


def test_threads_that_have_left_are_not_waited_for(run):
    assert run("early_exit", X, 64, threads=64).sum() == 40


SHIFTED = {n: np.roll(X, -n) for n in (1, 3)}
PLANTED = [
    # what it is, the bug, its repaired twin, what that one gives, how the bug is reported
    ("neighbour_without_barrier", "neighbour_with_barrier", SHIFTED[1], r"race: .* shared memory .*primitives\.cu:"),
    ("swap_lanes_without_sync", "swap_lanes_with_sync", X.reshape(-1, 2)[:, ::-1].ravel(), "race: .* shared memory"),
    ("rotate_without_second_barrier", "rotate_with_second_barrier", SHIFTED[3], "race: .* shared memory"),
    ("next_lane_out_of_range", "next_lane_in_range", np.roll(X.reshape(8, 32), -1, 1).ravel(), "lane out of range"),
    ("accumulate_without_atomics", "accumulate_with_atomics", X.sum(), "race: .* global memory that thread"),
]


@pytest.mark.parametrize(("bug", "twin", "expected", "message"), PLANTED, ids=[row[0] for row in PLANTED])
def test_planted_bug_is_caught_and_its_repaired_twin_passes(run, bug, twin, expected, message):
    size = np.size(expected)
    with pytest.raises(LaunchFailed, match=message) as caught:
        run(bug, X, size, threads=256)
    assert "_kernel" in str(caught.value)
    assert (run(twin, X, size, threads=256) == expected).all()


def test_accumulation_over_blocks_without_atomics_is_caught(run):
    """One thread a block, so that only the blocks race."""
    with pytest.raises(LaunchFailed, match="race: .* global memory that a thread of another block"):
        run("accumulate_without_atomics", X, 1, blocks=256, threads=1)
    assert run("accumulate_with_atomics", X, 1, blocks=256, threads=1)[0] == X.sum()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reverse_overrun", r"writes dynamic shared memory at byte 256, beyond the 256 bytes asked for"),
        ("half_a_barrier", r"arrives at another barrier: thread .* waits at __syncthreads \(.*primitives\.cu:\d+\)"),
        ("barrier_against_warp", "waits at __any_sync .* waits at __syncthreads"),
        ("lane_has_left", "has exited or does not exist|exits although thread"),
        ("reads_lane_outside_mask", "reads lane 9, which the mask lacks"),
    ],
)
def test_undefined_behaviour_is_refused_by_name(run, name, message):
    with pytest.raises(LaunchFailed, match=message) as caught:
        run(name, X, 64, threads=64, shared_bytes=256)
    assert f"{name.removesuffix('_overrun')}_kernel" in str(caught.value)
    assert run("early_exit", X, 64, threads=64).sum() == 40  # the next launch is as good as any


def test_a_block_that_is_no_multiple_of_a_warp_has_no_full_mask(run):
    with pytest.raises(LaunchFailed, match="names lane 20, which has exited or does not exist"):
        run("lane_has_left", X, 20, threads=20)


@pytest.mark.parametrize(
    "options", [{"blocks": 0}, {"threads": 0}, {"threads": 1025}, {"shared_bytes": (48 << 10) + 1}]
)
def test_impossible_launches_are_refused(run, options):
    with pytest.raises(LaunchFailed, match="invalid"):
        run("indices", X, 1, **options)
