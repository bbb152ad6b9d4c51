"""Folders of classes, with and without parts, and folders that are none."""

import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import choose_layout, read_data
from cxrfast.errors import CxrfastError


def labels(source):
    return {r.image: [r.label(name) for name in source.class_names] for r in source.records}


@pytest.mark.parametrize("above", ["", "chest_xray/"])
def test_kaggle_chest_xray(tmp_path, make_image, above):
    names = {
        "train/NORMAL/IM-0115-0001.jpeg": "train",
        "train/PNEUMONIA/person1_bacteria_1.jpeg": "train",
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg": "val",
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg": "val",
        "test/NORMAL/IM-0001-0001.JPEG": "test",
        "test/PNEUMONIA/person100_bacteria_475.jpeg": "test",
    }
    for name in names:
        make_image(above + name)
    (tmp_path / f"{above}train/PNEUMONIA/.DS_Store").write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    source = read_data(tmp_path)
    assert source.layout == "folders"
    assert source.class_names == ("PNEUMONIA",)
    assert source.grouping == "image"
    assert {record.image: record.split for record in source.records} == {above + n: part for n, part in names.items()}
    assert labels(source) == {above + name: [float("PNEUMONIA" in name)] for name in names}
    assert any("all other classes count as absent" in note for note in source.notes)
    assert any("images: 6 (no finding 3, PNEUMONIA 3)" in note for note in source.notes)


def test_several_classes_without_parts(tmp_path, make_image):
    for name in ("Mass/1.png", "Mass/2.png", "Lung_Opacity/1.png", "Normal/1.png"):
        make_image(name)
    make_image("stray.png")
    source = read_data(tmp_path)
    assert source.class_names == ("Lung_Opacity", "Mass")
    expected = {"Lung_Opacity/1.png": [1, 0], "Mass/1.png": [0, 1], "Mass/2.png": [0, 1], "Normal/1.png": [0, 0]}
    assert labels(source) == expected
    assert all(record.split is None for record in source.records)
    assert any("images outside the folders of classes, left out: 1 (first: stray.png)" in note for note in source.notes)


def test_spellings_of_one_class_in_two_parts(tmp_path, make_image):
    for name in ("train/Effusion/1.png", "train/normal/2.png", "test/pleural effusion/3.png", "test/Mass/4.png"):
        make_image(name)
    source = read_data(tmp_path)
    assert len(source.class_names) == 2
    assert sum(len(record.labels) for record in source.records) == 3
    assert len(source.class_notes) == 1


def test_covid_radiography_database(tmp_path, make_image):
    for name in ("COVID/images/COVID-1.png", "COVID/masks/COVID-1.png", "Normal/images/Normal-1.png"):
        make_image(name)
    source = read_data(tmp_path)
    assert labels(source) == {"COVID/images/COVID-1.png": [1], "Normal/images/Normal-1.png": [0]}
    assert any("outside the folders of classes, left out: 1" in note and "masks" in note for note in source.notes)


@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "b.png"),
        ("Mass/1.png",),
        ("images_001/images/1.png", "images_002/images/2.png"),
        ("images/1.png", "masks/1.png"),
        ("train/1.png", "test/2.png"),
        ("p10/1.png", "p11/1.png"),
        ("patient00001/1.png", "patient00002/1.png"),
        ("Mass/1.png", "Edema/deep/2.png"),
        ("train/Mass/1.png", "train/Normal/2.png", "other/3.png"),
    ],
)
def test_folders_of_another_kind_are_not_taken(tmp_path, make_image, names):
    for name in names:
        make_image(name)
    with pytest.raises(CxrfastError, match="no layout that is known"):
        choose_layout(tmp_path)
    with pytest.raises(CxrfastError, match="has no two folders of images"):
        read_data(tmp_path, DataOptions(dataset="folders"))
