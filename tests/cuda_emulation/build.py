"""Compiles csrc/cuda with g++ against the emulation header, and loads the kernels as operators `cxrfast_emulated::*`.

    python -m tests.cuda_emulation.build

compiles and prints the library's path. With CXRFAST_EMULATION_SANITIZE=address,undefined in the environment it is
compiled for those sanitizers, and races are not looked for.
"""

import ctypes
import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
TORCH = Path(torch.__file__).parent
CACHE = ROOT / "build" / "cuda_emulation"

FLAGS = [
    *("-std=c++20", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique"),
    *("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unknown-pragmas"),
    "-DTORCH_TARGET_VERSION=0x020b000000000000",
]


def _compiler() -> list[str]:
    names = os.environ.get("CXRFAST_EMULATION_SANITIZE")
    sanitizers = [f"-fsanitize={names}", "-fno-sanitize-recover=undefined"] if names else []
    includes = [f"-I{HERE}", f"-I{CSRC}", f"-isystem{TORCH}/include"]
    return [os.environ.get("CXX", "g++"), *FLAGS, *sanitizers, *includes]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _make(path: Path, *command: str) -> Path:
    """Run `command -o path` unless path exists: its name says everything that it was made of."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        for older in path.parent.glob(f"{path.name.rsplit('-', 1)[0]}-*{path.suffix}"):
            older.unlink(missing_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}{path.suffix}")
        _run([*command, "-o", str(unfinished)])
        unfinished.replace(path)
    return path


def _with_includes(path: Path, seen: dict[Path, bytes]) -> dict[Path, bytes]:
    """The text of a source and of every file that it includes in quotes, directly or not."""
    path = path.resolve()
    if path not in seen and path.exists():
        seen[path] = path.read_bytes()
        for name in re.findall(rb'^#include "(.*)"', seen[path], re.MULTILINE):
            for folder in (path.parent, CSRC):
                _with_includes(folder / name.decode(), seen)
    return seen


def _schema() -> Path:
    """The product's operators under another namespace."""
    text = (CSRC / "schema.cpp").read_text()
    renamed = text.replace("STABLE_TORCH_LIBRARY(cxrfast,", "STABLE_TORCH_LIBRARY(cxrfast_emulated,")
    assert renamed != text
    path = CACHE / "schema.cpp"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != renamed:
        path.write_text(renamed)
    return path


def build(name: str, sources: Sequence[Path]) -> Path:
    """Compile sources and the emulation into one shared library, what has not changed excepted."""
    compiler = _compiler()
    common = [" ".join(compiler), torch.__version__, *(path.read_text() for path in sorted(HERE.glob("*.h")))]

    def compiled(source: Path) -> Path:
        parts = [*(part.encode() for part in common), *_with_includes(source, {}).values()]
        to = CACHE / name / f"{source.stem}-{_digest(*parts)}.o"
        # races.cpp is what this option calls.
        watched = source.suffix == ".cu" and "CXRFAST_EMULATION_SANITIZE" not in os.environ
        return _make(to, *compiler, *(["-fsanitize=thread"] if watched else []), "-x", "c++", "-c", str(source))

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        objects = [str(path) for path in pool.map(compiled, [*sorted(HERE.glob("*.cpp")), *sources])]
    libraries = [f"-L{TORCH}/lib", f"-Wl,-rpath,{TORCH}/lib", "-lc10", "-ltorch", "-ltorch_cpu", "-ldl"]
    to = CACHE / f"lib{name}-{_digest(' '.join(objects).encode())}.so"
    return _make(to, *compiler, "-shared", *objects, *libraries)


@cache
def load() -> ctypes.CDLL:
    """The emulated kernels, as operators `torch.ops.cxrfast_emulated.*` on the CPU."""
    path = build("cxrfast_emulated", [_schema(), *sorted((CSRC / "cuda").glob("*/*.cu"))])
    torch.ops.load_library(str(path))
    return ctypes.CDLL(str(path))


def set_seed(seed: int) -> None:
    """The order in which blocks and threads run: 0 ascending, 1 descending, any other number shuffled by it."""
    load().cxrfast_emulation_seed(ctypes.c_uint64(seed))


if __name__ == "__main__":
    load()
    print(*(path for path in torch.ops.loaded_libraries if "emulated" in path))
