"""What installing and importing the package promises, and the build backend's choice of torch."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from types import ModuleType

import pytest
import setuptools
import torch

import cxrfast
from cxrfast import _build_info
from tests.interpreter import run_code

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("modules", ["cxrfast", "cxrfast.ops, cxrfast.nn"])
def test_import_needs_torch_and_nothing_else(modules):
    """Beside the standard library, nothing is imported that `import torch` has not imported already."""
    done = run_code(
        f"""if True:
        import sys
        import torch
        before = set(sys.modules)
        import {modules}
        print(*sorted({{name.split(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names))
        """
    )
    assert set(done.stdout.split()) <= {"cxrfast", "torch"}
    assert "cxrfast" in done.stdout


def test_version_is_the_installed_one():
    try:
        installed = importlib.metadata.version("cxrfast")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("cxrfast is built in place, not installed")
    assert cxrfast.__version__ == installed


def test_type_hints_are_marked_as_public_and_installed():
    assert (Path(cxrfast.__file__).parent / "py.typed").is_file()  # PEP 561
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["cxrfast"]


def test_build_info():
    assert tuple(int(part) for part in _build_info.torch_version.split(".")[:2]) >= (2, 11)
    assert _build_info.torch_target == "2.11"
    assert "-O3" in _build_info.compiler_flags
    # Binaries run on other machines, and results do not depend on the optimiser.
    assert not {"-march=native", "-ffast-math", "-Ofast"} & set(_build_info.compiler_flags.split())
    assert _build_info.compiler
    assert bool(_build_info.cuda_archs) == (Path(cxrfast.__file__).parent / "_cuda.so").exists()


def nvcc_fits_torch() -> bool:
    nvcc = shutil.which("nvcc")
    if nvcc is None or torch.version.cuda is None:
        return False
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    release = re.search(r"release (\d+)\.", said)
    return release is not None and release[1] == torch.version.cuda.split(".")[0]


@pytest.mark.skipif(not nvcc_fits_torch(), reason="no nvcc of torch's CUDA version")
@pytest.mark.skipif("CXRFAST_CUDA=0" in _build_info.cuda_missing, reason="built without CUDA operators on purpose")
def test_cuda_library_is_built_and_loads_without_a_gpu(monkeypatch):
    assert _build_info.cuda_missing == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run_code(
        """if True:
        import torch
        from cxrfast import _library
        from cxrfast.ops import _registration
        assert _library.cuda_error() is None, _library.cuda_error()
        for name in _registration.OPERATORS:
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"cxrfast::{name}", "CUDA"), name
        """
    )
    library = Path(cxrfast.__file__).parent / "_cuda.so"
    needed = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    assert "libtorch_cuda" in needed
    assert not {"libcudart", "libtorch_python", "libpython"} & set(re.findall(r"\[(\w+)\.so", needed))


def load_backend() -> ModuleType:
    spec = importlib.util.spec_from_file_location("backend", ROOT / "build_backend" / "backend.py")
    backend = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    return backend


@pytest.fixture
def backend(monkeypatch, tmp_path) -> ModuleType:
    """The backend as pip's build isolation runs it: nothing importable has torch; `tmp_path` is the user's folder."""
    backend = load_backend()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "build environment")])
    monkeypatch.setattr(backend, "target_folders", lambda: [str(tmp_path)])
    monkeypatch.setattr(backend.build_meta, "build_wheel", lambda *args: "a wheel")
    return backend


def install(folder: Path, version: str) -> None:
    """Make `folder` look as if this torch were installed in it."""
    info = folder / f"torch-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: torch\nVersion: {version}\n")


@pytest.mark.parametrize("version", ["2.11.0", "2.11.0+cpu", "2.15.1+cu132", "2.12.0a0+git1234567", "3.0.0"])
def test_backend_borrows_torch(backend, tmp_path, version):
    install(tmp_path, version)
    assert backend.get_requires_for_build_wheel() == []
    assert backend.get_requires_for_build_editable() == []
    assert backend.build_wheel("folder") == "a wheel"
    assert sys.path == [str(tmp_path / "build environment"), str(tmp_path)]  # behind the build environment's own


@pytest.mark.parametrize("version", ["2.10.1", "2.9.0+cpu", "1.13.1"])
def test_backend_requests_torch_where_it_is_too_old(backend, tmp_path, version):
    install(tmp_path, version)
    assert backend.get_requires_for_build_wheel() == ["torch>=2.11"]
    with pytest.raises(RuntimeError, match=r"building cxrfast needs torch>=2\.11"):
        backend.build_wheel("folder")


def test_backend_requests_torch_where_there_is_none(backend, tmp_path):
    assert backend.get_requires_for_build_wheel() == ["torch>=2.11"]
    assert backend.get_requires_for_build_editable() == ["torch>=2.11"]


def test_backend_uses_the_torch_it_requested(backend, tmp_path):
    install(tmp_path, "2.10.0")
    install(tmp_path / "build environment", "2.15.0")
    assert backend.build_wheel("folder") == "a wheel"
    assert sys.path == [str(tmp_path / "build environment")]


def test_backend_obeys_the_first_torch_found(backend, tmp_path, monkeypatch):
    # A virtual environment's old torch hides the system's new one from every import.
    install(tmp_path / "environment", "2.10.0")
    install(tmp_path / "system", "2.15.0")
    monkeypatch.setattr(backend, "target_folders", lambda: [str(tmp_path / name) for name in ("environment", "system")])
    assert backend.get_requires_for_build_wheel() == ["torch>=2.11"]


def test_backend_looks_where_torch_is_installed():
    folder = importlib.metadata.distribution("torch").locate_file("")
    assert str(folder) in load_backend().target_folders()


@pytest.mark.parametrize("system_site_packages", [False, True])
def test_backend_looks_into_the_system_only_if_the_environment_does(tmp_path, system_site_packages):
    venv.create(tmp_path / "environment", system_site_packages=system_site_packages, symlinks=True)
    # As in pip's build isolation: the interpreter is the environment's, its import path holds what the build needs.
    search = [str(ROOT / "build_backend"), str(Path(setuptools.__file__).parents[1])]
    folders = subprocess.run(
        [
            tmp_path / "environment" / "bin" / "python",
            "-c",
            "import backend; print(*backend.target_folders(), sep='\\n')",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTHONNOUSERSITE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert folders[0].startswith(str(tmp_path / "environment"))
    outside = [folder for folder in folders if not folder.startswith(str(tmp_path))]
    assert bool(outside) == system_site_packages
