"""Files of YAML, JSON, npz and safetensors that were made to take memory or time, or to run something."""

import io
import json
import pickle
import time
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy

from cxrfast._json import parse_json, read_json
from cxrfast._npz import read_npz
from cxrfast._tensors import load_archive, read_safetensors
from cxrfast._yaml import LIMIT, dump_yaml, parse_yaml, read_yaml


@contextmanager
def within(seconds: float = 10.0, megabytes: float = 100.0):
    """Bounds the time and the memory of the block."""
    tracemalloc.start()
    started = time.perf_counter()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < megabytes, f"{peak:.0f} MiB"
    assert time.perf_counter() - started < seconds


BILLION_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BILLION_LAUGHS, "an alias"),
        ("a: &a [*a]", "an alias"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "an alias"),
        ("[" * 100_000, "more than 32 levels"),
        ("{a: " * 100_000, "more than 32 levels"),
        ("\n".join(" " * n + "- a:" for n in range(0, 400, 2)), "more than 32 levels"),
        ("lr: " + "9" * 100_000, "a number of 100000 characters"),
        ("lr: 0x" + "f" * 100_000, "a number of 100002 characters"),
        ("lr: " + "1:" * 40_000 + "1", "a number of 80001 characters"),
        ("lr: 1\nlr: 2", "'lr' stands twice"),
        ("when: !!timestamp 2024-01-01", "could not determine a constructor"),
        ("x: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("x: !!binary aGVsbG8=", "could not determine a constructor"),
        ("x: !!int ''", "."),
        ("x: !!float one", "could not convert"),
        ("? [a]\n: b", "unhashable"),
        ("a: b\n---\nc: d", "expected a single document"),
        ("a: \x07", "special characters are not allowed"),
        ("x" * (LIMIT + 1), f"more than {LIMIT}"),
    ],
)
def test_hostile_yaml_is_one_line(text, problem):
    with within(), pytest.raises(ValueError, match=problem) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_dates_and_other_plain_words_stay_text():
    assert parse_yaml("data: 2024-01-01\nversion: 2017-12-31T23:59:60Z\nmore: 9999-99-99") == {
        "data": "2024-01-01",
        "version": "2017-12-31T23:59:60Z",
        "more": "9999-99-99",
    }


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_what_is_dumped_is_read_again(value):
    assert parse_yaml(dump_yaml([value, value])) == [value, value]


@given(PLAIN)
def test_plain_values_are_read_as_by_the_safe_loader(value):
    text = yaml.safe_dump(value, default_flow_style=False)
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 1_000_000, "nested too deeply"),
        ('{"a":' * 1_000_000, "nested too deeply"),
        ("1" * 5000, "4300"),
        ('{"train": [], "train": []}', "'train' stands twice"),
        ("{", "line 1"),
        ("", "Expecting value"),
    ],
)
def test_hostile_json_is_one_line(text, problem):
    with within(), pytest.raises(ValueError, match=problem) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_json, read_yaml, read_npz, read_safetensors, load_archive])
def test_a_sparse_file_of_a_terabyte_takes_no_memory(tmp_path, read):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**40)
    with within(), pytest.raises((OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError)):
        read(path)


def npz_member(shape: str, descr: str = "'<f4'", *, data: bytes = bytes(64)) -> bytes:
    """An npy file with any text as header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return npy.magic(1, 0) + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    ("shape", "descr", "problem"),
    [
        ("(1000000000000,)", "'<f4'", "needs 4000000000000 bytes, but it has 64"),
        ("(1, 2**62)", "'<f4'", "."),
        ("(4611686018427387904, 4611686018427387904)", "'<f4'", "impossible"),
        ("(-1,)", "'<f4'", "impossible"),
        ("(1,)", "'<U500000000'", "needs 2000000000 bytes"),
        ("(2,)", "'|O'", "objects"),
        ("(8,)", "'<f4'", "needs 32 bytes, but it has 64"),
        ("(16,)", "[('a', '<f4'", "."),
        ("(" * 50, "'<f4'", "."),
        ("__import__('os')", "'<f4'", "."),
        (f"({'1,' * 40})", "'<f4'", "impossible"),
    ],
)
def test_hostile_npz_headers(tmp_path, shape, descr, problem):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("maps.npy", npz_member(shape, descr))
    with within(), pytest.raises(ValueError, match=problem) as caught:
        read_npz(path)
    assert str(caught.value).startswith("maps: ")
    assert "\n" not in str(caught.value)


def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, maps=np.zeros(2**25, np.uint8))
    assert path.stat().st_size < 2**16
    with (
        within(megabytes=5),
        pytest.raises(ValueError, match="maps: it declares 33554560 bytes; expected at most 1000000"),
    ):
        read_npz(path, limit=1000000)
    assert read_npz(path)["maps"].shape == (2**25,)
    # A declared size that deflate cannot reach
    data = path.read_bytes()
    directory = data.rindex(b"PK\x01\x02")
    changed = bytearray(data)
    changed[directory + 20 : directory + 24] = (1).to_bytes(4, "little")  # compressed size
    path.write_bytes(changed)
    with within(megabytes=5), pytest.raises(ValueError, match="more than the archive can hold|truncated|maps: "):
        read_npz(path)


@given(st.integers(0, 2**16), st.integers(1, 255))
def test_a_changed_byte_of_an_npz_is_an_error_or_harmless(tmp_path_factory, place, change):
    stream = io.BytesIO()
    np.savez_compressed(stream, maps=np.arange(60, dtype=np.float32).reshape(3, 4, 5), names=np.array(["a", "bc"]))
    data = bytearray(stream.getvalue())
    data[place % len(data)] ^= change
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(data)
    try:
        found = read_npz(path)
    except ValueError:
        return
    if "maps" in found:
        np.testing.assert_array_equal(found["maps"].ravel(), np.arange(60))


def test_npz_arrays_are_those_of_numpy(tmp_path):
    arrays = {
        "none": np.zeros((0, 3)),
        "one": np.array(5),
        "by_column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "names": np.array(["ä", "bcd"]),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    found["by_column"][0, 0] = 1  # writable, as numpy's
    assert read_npz(tmp_path / "a.npz", ["one"]).keys() == {"one"}


def safetensors_file(header: str | bytes, data: bytes = bytes(16), size: int | None = None) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10",
        safetensors_file("{}", size=2**63),
        safetensors_file("{}", size=99_999_999),
        safetensors_file("[" * 100_000),
        safetensors_file('{"a":' * 100_000),
        safetensors_file(json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})),
        safetensors_file(json.dumps({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 16]}})),
        safetensors_file(json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}})),
        safetensors_file(json.dumps({"a": {"dtype": "X9", "shape": [4], "data_offsets": [0, 16]}})),
        safetensors_file(b"\xff\xfe{}"),
    ],
)
def test_hostile_safetensors(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with within(), pytest.raises(ValueError, match="header declares|not a safetensors file, or damaged") as caught:
        read_safetensors(path)
    assert "\n" not in str(caught.value)


def test_a_deflated_archive_of_torch_is_not_opened(tmp_path):
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as source, zipfile.ZipFile(tmp_path / "b.pt", "w") as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member), zipfile.ZIP_DEFLATED)
    assert load_archive(tmp_path / "a.pt")["a"].shape == (2**20,)
    with pytest.raises(ValueError, match="declare more bytes than it has"):
        load_archive(tmp_path / "b.pt")
