"""Perceptual hashes: what they are, and what their cache holds, keeps and computes again."""

import json
import shutil
from dataclasses import replace

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image

from cxrfast.data import hash_records, read_chestxray14, read_image
from cxrfast.data.similarity import hashes as module
from cxrfast.data.similarity.hashes import CACHE_NAME, perceptual_hash
from cxrfast.errors import CxrfastError, UsageError


@pytest.fixture
def records(release):
    return read_chestxray14(release.root).records


def smooth(seed, size):
    coarse = np.random.default_rng(seed).random((6, 6), dtype=np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def unsigned(value):
    return value & (2**64 - 1)


def test_hash_is_imagehash_s_of_the_image_in_the_fixed_size():
    image = smooth(1, 256)
    direct = imagehash.phash(Image.fromarray(np.rint(image * 255).astype(np.uint8)))
    assert f"{unsigned(perceptual_hash(image)):016x}" == str(direct)
    assert -(2**63) <= perceptual_hash(image) < 2**63


def test_hash_hardly_depends_on_the_size_of_the_file_and_tells_images_apart():
    def distance(a, b):
        return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count() if a is not b else 0

    for seed in range(5):
        assert distance(smooth(seed, 1024), smooth(seed, 300)) <= 4
        assert distance(smooth(seed, 512), smooth(seed + 50, 512)) >= 10


def test_hashes_are_computed_once(records, release, monkeypatch):
    first = hash_records(records, release.root, progress=False)
    assert first.hashes.dtype == np.int64
    assert first.hashes.tolist() == [perceptual_hash(read_image(record.path)) for record in records]
    assert (first.computed, first.failed, first.notes) == (4, {}, ())
    assert first.known.all()
    assert first.path == release.root / CACHE_NAME
    monkeypatch.setattr(module, "perceptual_hash", lambda image: pytest.fail("computed again"))
    again = hash_records(list(reversed(records)), release.root, progress=False)
    assert again.hashes.tolist() == first.hashes.tolist()[::-1]
    assert (again.computed, again.path) == (0, first.path)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_change_nothing(records, release, tmp_path, workers):
    found = hash_records(records, release.root, cache=tmp_path / "x" / "cache.npz", workers=workers, progress=False)
    assert found.hashes.tolist() == [perceptual_hash(read_image(record.path)) for record in records]
    assert found.path == tmp_path / "x" / "cache.npz"
    assert not (release.root / CACHE_NAME).exists()


def test_only_what_is_missing_or_changed_is_computed(records, release):
    part = hash_records(records[:2], release.root, progress=False)
    assert part.computed == 2
    assert hash_records(records, release.root, progress=False).computed == 2
    assert hash_records(records[3:], release.root, progress=False).computed == 0
    cv2.imwrite(str(records[1].path), np.zeros((80, 80), np.uint8))
    changed = hash_records(records[1:2], release.root, progress=False)
    assert changed.computed == 1
    assert changed.hashes[0] == perceptual_hash(np.zeros((80, 80), np.float32))
    assert hash_records(records, release.root, progress=False).computed == 0  # the others stayed


def test_other_parameters_are_computed_again(records, release, monkeypatch):
    hash_records(records, release.root, progress=False)
    with monkeypatch.context() as patch:
        patch.setitem(module.PARAMETERS, "input_size", 128)
        other = hash_records(records, release.root, progress=False)
        assert other.computed == 4
        assert "other parameters" in other.notes[0]
        with np.load(other.path) as file:
            assert json.loads(str(file["parameters"]))["input_size"] == 128
    assert hash_records(records, release.root, progress=False).computed == 4


def test_a_bad_image_is_named_and_left_out(records, release):
    records[1].path.write_bytes(records[1].path.read_bytes()[:200])
    gone = replace(records[2], image="gone.png", path=release.root / "gone.png")
    found = hash_records([*records, gone], release.root, workers=1, progress=False)
    assert found.known.tolist() == [True, False, True, True, False]
    assert found.computed == 3
    assert set(found.failed) == {records[1].image, "gone.png"}
    assert str(records[1].path) in found.failed[records[1].image]
    assert sorted(note.split(",")[0] for note in found.notes) == [
        f"no hash of {name}" for name in (records[1].image, "gone.png")
    ]
    assert hash_records([records[0], records[3]], release.root, progress=False).computed == 0


def test_interrupted_work_is_kept(records, release, monkeypatch):
    calls = iter([1, 2])
    real = perceptual_hash

    def interrupted(image):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return real(image)

    monkeypatch.setattr(module, "perceptual_hash", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hash_records(records, release.root, workers=0, progress=False)
    monkeypatch.undo()
    assert hash_records(records, release.root, progress=False).computed == 2


def test_a_damaged_cache_is_computed_again_and_a_foreign_file_is_kept(records, release, tmp_path):
    first = hash_records(records, release.root, progress=False)
    for content in (b"", b"no zip at all", first.path.read_bytes()[:-300]):
        first.path.write_bytes(content)
        again = hash_records(records, release.root, progress=False)
        assert again.computed == 4
        assert "is damaged" in again.notes[0]
    np.savez(first.path, parameters=np.array("{}"), images=np.array([{}], dtype=object), sizes=[1], hashes=[1])
    assert "is damaged" in hash_records(records, release.root, progress=False).notes[0]  # never unpickled
    mine = tmp_path / "thesis.npz"
    np.savez(mine, results=np.ones(3))
    before = mine.read_bytes()
    with pytest.raises(CxrfastError, match=r"thesis\.npz is not a file of image hashes .*name another file"):
        hash_records(records, release.root, cache=mine, progress=False)
    assert mine.read_bytes() == before


def test_a_folder_that_cannot_be_written_to(records, release, tmp_path, monkeypatch):
    """As root everything can be written to; a file in the folder's place cannot."""
    (tmp_path / "file").write_text("")
    elsewhere = tmp_path / "home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(elsewhere))
    found = hash_records(records, tmp_path / "file", progress=False)
    assert found.path.parent == elsewhere / "cxrfast"
    assert (found.computed, found.notes) == (4, ())
    again = hash_records(records, tmp_path / "file", progress=False)
    assert (again.computed, again.path) == (0, found.path)
    shutil.rmtree(elsewhere)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    nowhere = hash_records(records, tmp_path / "file", progress=False)
    assert nowhere.path is None
    assert nowhere.known.all()
    assert "were not saved" in nowhere.notes[0]
    with pytest.raises(CxrfastError, match="cannot be written"):
        hash_records(records, release.root, cache=tmp_path / "file" / "x.npz", progress=False)


def test_nothing_to_hash_and_wrong_usage(release):
    found = hash_records([], release.root)
    assert (len(found.hashes), found.computed, found.path) == (0, 0, None)
    with pytest.raises(UsageError, match="workers is -1"):
        hash_records([], release.root, workers=-1)
