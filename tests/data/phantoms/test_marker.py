"""Phantoms are told from X-rays of people."""

import json
import shutil

import pytest

import cxrfast
from cxrfast.data import read_data
from cxrfast.data.phantoms.marker import MARKER, is_phantom_image, is_phantoms

# A head and two rows in the form of the released table
RELEASED = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],
00000001_000.png,Cardiomegaly,000,00000001,058Y,M,PA,{0},{1},{2},{2},
00000002_000.png,No Finding,000,00000002,081Y,M,PA,2500,2048,0.171,0.171,
"""


@pytest.fixture
def copy(phantoms, tmp_path):
    """A copy of the phantoms that may be changed."""
    return shutil.copytree(phantoms, tmp_path / "copy")


def test_synth_leaves_a_marker_with_version_and_parameters(phantoms):
    assert json.loads((phantoms / MARKER).read_text()) == {
        "synthetic": True,
        "cxrfast": cxrfast.__version__,
        "images": 40,
        "image_size": 64,
        "seed": 3,
        "boxed_fraction": 0.6,
        "patients": None,
    }
    assert is_phantoms(phantoms)
    assert read_data(phantoms).synthetic


@pytest.mark.parametrize(
    "lost", [[MARKER], [MARKER, "README.txt"], ["README.txt"], ["README.txt", "Data_Entry_2017.csv"]]
)
def test_phantoms_of_earlier_versions_and_in_part_are_known(copy, lost):
    for name in lost:
        (copy / name).unlink()
    assert is_phantoms(copy)
    assert is_phantom_image(next((copy / "images").iterdir()))


def test_without_every_trace_nothing_is_claimed(copy):
    for name in (MARKER, "README.txt", "Data_Entry_2017.csv"):
        (copy / name).unlink()
    assert not is_phantoms(copy)


@pytest.mark.parametrize(
    ("width", "height", "spacing"), [(2682, 2749, 0.143), (2500, 2500, 0.144), (2048, 2048, 0.168)]
)
def test_an_xray_of_the_release_is_no_phantom(tmp_path, width, height, spacing):
    """Also beside squares whose side is 360 mm: the other rows tell."""
    (tmp_path / "Data_Entry_2017.csv").write_text(RELEASED.format(width, height, spacing))
    (tmp_path / "README.txt").write_text("Images of the release.")
    assert not is_phantoms(tmp_path)
    assert not is_phantom_image(tmp_path / "images" / "00000001_000.png")


@pytest.mark.parametrize("content", ["", "Image Index\n", "a,b\n1,2\n", RELEASED.splitlines()[0]])
def test_a_table_without_sizes_is_no_phantom(tmp_path, content):
    (tmp_path / "Data_Entry_2017.csv").write_text(content)
    assert not is_phantoms(tmp_path)


def test_a_damaged_marker_still_marks_and_an_image_elsewhere_is_none(tmp_path, phantoms):
    (tmp_path / MARKER).write_text("{")
    assert is_phantoms(tmp_path)
    (tmp_path / MARKER).write_text('{"synthetic": false}')
    assert not is_phantoms(tmp_path)
    image = shutil.copy(next((phantoms / "images").iterdir()), tmp_path)
    assert not is_phantom_image(image)


def test_public_chest_xrays_are_not_synthetic(real_data):
    assert not read_data(real_data / "nih").synthetic
