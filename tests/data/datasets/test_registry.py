"""Which layout is read, and what all layouts have in common."""

import dataclasses

import pytest

from cxrfast.data import DataOptions, read_chestxray14, read_data
from cxrfast.data.datasets import registry
from cxrfast.errors import CxrfastError, UsageError


def test_a_known_layout_is_recognised_and_said(release):
    root = release.write()
    source = read_data(root)
    assert source.layout == "chestxray14"
    assert source.notes[0] == "data set of layout chestxray14 (NIH ChestX-ray14), by Data_Entry_2017.csv"
    assert source.records == read_chestxray14(root).records


def test_an_unknown_layout_lists_what_was_looked_for(tmp_path):
    with pytest.raises(CxrfastError) as error:
        read_data(tmp_path)
    for layout in registry.LAYOUTS:
        assert f"{layout.name}: {layout.looks_for}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(CxrfastError, match="data: no folder or file .*nowhere; check the path"):
        read_data(tmp_path / "nowhere")


def test_an_unknown_name(release):
    with pytest.raises(UsageError, match="dataset: expected one of .*chestxray14.*, got 'chestxray15'"):
        read_data(release.write(), DataOptions(dataset="chestxray15"))


@pytest.mark.parametrize("option", [{"uncertain": "one"}, {"readers": "union"}])
def test_an_option_that_the_layout_does_not_understand(release, option):
    with pytest.raises(UsageError, match=f"{next(iter(option))}: goes with .*got data of layout chestxray14"):
        read_data(release.write(), DataOptions(**option))


def test_a_class_is_renamed_by_any_of_its_names(release):
    source = read_data(release.write(), DataOptions(class_map={"pleural effusion": "Fluid"}))
    assert "Fluid" in source.class_names
    assert "Effusion" not in source.class_names
    assert source.class_notes == ["classes renamed by --map: Effusion → Fluid"]


def test_a_class_that_is_not_there_cannot_be_renamed(release):
    with pytest.raises(UsageError, match="map: .* has no class 'Tuberculosis'; expected one of Atelectasis, "):
        read_data(release.write(), DataOptions(class_map={"Tuberculosis": "TB"}))


def test_lateral_images_are_left_out(release, monkeypatch):
    root = release.write()
    plain = registry.LAYOUTS[0]

    def read(path, options):
        source = plain.read(path, options)
        first, *others = source.records
        return dataclasses.replace(source, records=(dataclasses.replace(first, view="lateral"), *others))

    monkeypatch.setattr(registry, "LAYOUTS", (dataclasses.replace(plain, read=read),))
    frontal, everything = read_data(root), read_data(root, DataOptions(views="all"))
    assert len(everything.records) == len(frontal.records) + 1
    assert "lateral images left out: 1 (--views all keeps them)" in frontal.notes


def test_names_are_unique_and_every_layout_says_what_identifies_it():
    names = [layout.name for layout in registry.LAYOUTS]
    assert len(set(names)) == len(names)
    assert all(layout.looks_for and layout.title for layout in registry.LAYOUTS)
    known = {"labels", "uncertain", "readers"}
    assert all(layout.options <= known for layout in registry.LAYOUTS)
