"""csrc/cpu/common/vector_math.h, compiled here into loops: they are vectorised, and accurate everywhere."""

import ctypes
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
VECTORISE = re.search(r"^VECTORISE = .*", (ROOT / "setup.py").read_text(), re.MULTILINE)[0]
FLAGS = re.findall(r'"(.*?)"', VECTORISE)  # what the package is compiled with
FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sigmoid": lambda x: np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "log_sigmoid": lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))),
}
# Within fewer digits, and only between these ends.
CHEAP = {
    "exp_normal": (np.exp, -87.0, 88.0),
    "log1p_unit": (np.log1p, 0.0, 1.0),
    "reciprocal_one_plus": (lambda x: 1 / (1 + x), 0.0, 1.0),
}
# The C type, and a type with more digits to compare with.
TYPES = {np.float32: ("float", np.float64), np.float64: ("double", np.longdouble)}
FORMULAS = {"sigmoid", "softplus", "log_sigmoid"}  # of csrc/math, in these functions
LOOP = """extern "C" void {name}_{type}(const {type}* __restrict__ x, {type}* __restrict__ y, int64_t n) {{
    for (int64_t i = 0; i < n; ++i) y[i] = {function}(x[i]);
}}
"""
# What CXRFAST_CPU_CLONES makes, and the flag of a processor that can run it.
ARCHITECTURES = {"x86-64": "sse2", "x86-64-v3": "avx2", "x86-64-v4": "avx512vl"}

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("g++") is None or not Path("/proc/cpuinfo").exists(),
    reason="needs g++ on x86-64",
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("vector_math")
    source, binary = folder / "loops.cpp", folder / "loops.so"
    loops = [
        LOOP.format(
            name=name,
            type=c,
            function=f"cxrfast::{name}<cxrfast::VectorFunctions>" if name in FORMULAS else f"cxrfast::simd::{name}",
        )
        for name in [*FUNCTIONS, *CHEAP]
        for c, _ in TYPES.values()
    ]
    source.write_text('#include "math/sigmoid.h"\n#include "cpu/common/vector_functions.h"\n' + "".join(loops))
    flags = ["-std=c++17", *FLAGS, "-shared", "-fPIC", f"-march={request.param}", "-fopt-info-vec-optimized"]
    command = ["g++", *flags, f"-I{ROOT}/csrc", str(source), "-o", str(binary)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    vectorised = {int(line) for line in re.findall(r"loops\.cpp:(\d+):\d+: optimized: loop vectorized", done.stderr)}
    assert vectorised == {4 + 3 * i for i in range(len(loops))}
    if ARCHITECTURES[request.param] not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip("this processor cannot run it")
    return ctypes.CDLL(str(binary))


def evaluate(library: ctypes.CDLL, name: str, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    function = getattr(library, f"{name}_{TYPES[x.dtype.type][0]}")
    function(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_int64(x.size))
    return y


def samples(dtype: type[np.floating]) -> np.ndarray:
    """Numbers of every size, dense where the functions bend or end, and the special ones."""
    generator, info = np.random.default_rng(0), np.finfo(dtype)
    bits = np.uint32 if dtype is np.float32 else np.uint64
    any_bits = generator.integers(0, np.iinfo(bits).max, 60_000, bits, endpoint=True).view(dtype)
    spans = [generator.uniform(-span, span, 30_000) for span in (1e-3, 1, 3, 20, 110, 760)]
    near_one = 1 + generator.normal(0, 1, 30_000) * 2.0 ** generator.integers(-30, 0, 30_000)
    ends = [info.max, info.tiny, info.smallest_subnormal, 88.72283, 103.97, 709.782712893384, 745.13]
    special = np.array([0, 1, 2, 0.5, np.inf, np.nan, *ends])
    with np.errstate(over="ignore"):
        return np.concatenate([a.astype(dtype) for a in (any_bits, *spans, near_one, special, -special)])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_within_a_few_units_in_the_last_place(library, name, dtype):
    x = samples(dtype)
    actual = evaluate(library, name, x)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name](x.astype(TYPES[dtype][1]))
        rounded = exact.astype(dtype)
        unit = np.spacing(np.abs(rounded)).astype(exact.dtype)
    finite = np.isfinite(rounded)
    assert np.array_equal(np.isfinite(actual), finite)
    assert np.array_equal(actual[~finite], rounded[~finite], equal_nan=True)
    error = np.abs(actual[finite] - exact[finite]) / unit[finite]
    worst = error.argmax()
    assert error[worst] <= 2.5, f"{name}({x[finite][worst]!r}) is {error[worst]:.2f} units off"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", CHEAP)
def test_cheap_forms(library, name, dtype):
    function, low, high = CHEAP[name]
    x = np.random.default_rng(0).uniform(low, high, 100_000).astype(dtype)
    exact = function(x.astype(TYPES[dtype][1]))
    error = np.abs(evaluate(library, name, x) - exact) / np.spacing(exact.astype(dtype)).astype(exact.dtype)
    assert error.max() <= 4
    assert np.isnan(evaluate(library, name, np.array([np.nan], dtype)))


@pytest.mark.parametrize("dtype", TYPES)
def test_exp_of_sums_ends_in_zero_and_infinity(library, dtype):
    x = np.array([-np.inf, -1000, 1000, np.inf], dtype)
    assert evaluate(library, "exp_normal", x).tolist() == [0, 0, np.inf, np.inf]
