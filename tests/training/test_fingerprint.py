"""A run does not resume with other data or settings than it began with."""

import dataclasses
import json
import shutil

import pytest

from cxrfast.errors import CxrfastError
from cxrfast.runs import RunDirectory
from cxrfast.training import build_config, resume, train
from cxrfast.training.fingerprint import PROPERTIES, SAMPLE, Fingerprint
from cxrfast.training.loop import Trainer
from cxrfast.training.preparation import prepare_data


@pytest.fixture
def settings(small_settings, phantoms, tmp_path):
    return {**small_settings, "data": shutil.copytree(phantoms, tmp_path / "data")}


def begin(settings, tmp_path, **options):
    """The fingerprint of a new run, read from its file, and the names of the training images."""
    config = build_config(settings)
    data = prepare_data(config)
    Fingerprint.of(config, data, **options).save(tmp_path / "fingerprint.json")
    return Fingerprint.load(tmp_path / "fingerprint.json"), data


def now(settings, before, **options):
    config = build_config(settings)
    return config, prepare_data(config, before.splits, before.class_names)


def edit(path, change):
    path.write_text("\n".join(change(path.read_text().split("\n"))))


def test_nothing_has_changed(settings, tmp_path):
    found, data = begin(settings, tmp_path)
    found.check(*now(settings, data))
    moved = shutil.move(settings["data"], tmp_path / "moved")
    free = {**settings, "data": moved, "workers": 2, "cache": False, "device": "auto"}
    found.check(*now(free, data), verify=True)
    # Neither the order of the rows nor further columns matter.
    edit(moved / "Data_Entry_2017.csv", lambda lines: [lines[0], *reversed(lines[1:])])
    found.check(*now(free, data))


def test_swapped_images(settings, tmp_path):
    found, data = begin(settings, tmp_path)
    a, b = (record.path for record in data.records["train"][:2])
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    with pytest.raises(
        CxrfastError, match=r"^resume: \S+png: (the size of the image file|the content of the image) ch"
    ):
        found.check(*now(settings, data))


def test_an_image_of_the_same_size(settings, tmp_path):
    found, data = begin(settings, tmp_path)
    path = data.records["val"][0].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CxrfastError, match=f"{path.name}: the content of the image changed since the run began"):
        found.check(*now(settings, data))


def test_only_all_hashes_find_a_change_outside_the_sample(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("cxrfast.training.fingerprint.SAMPLE", 3)
    sampled, data = begin(settings, tmp_path)
    assert len(sampled.contents) == 3
    assert not sampled.is_complete
    every, _ = begin(settings, tmp_path, verify=True)
    assert every.is_complete
    other = next(record for record in data.records["test"] if record.image not in list(every.contents)[:3])
    other = next(record for record in data.records["test"] if record.image not in sampled.contents and record is other)
    content = other.path.read_bytes()
    other.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    sampled.check(*now(settings, data))
    with pytest.raises(CxrfastError, match="the content of the image changed"):
        every.check(*now(settings, data), verify=True)


def test_a_changed_label_a_moved_box_and_a_missing_file(settings, tmp_path):
    found, data = begin(settings, tmp_path)
    table, boxes = settings["data"] / "Data_Entry_2017.csv", settings["data"] / "BBox_List_2017.csv"
    originals = table.read_text(), boxes.read_text()
    image = next(record.image for record in data.records["train"] if record.labels == frozenset())

    def label(lines):
        return [line.replace("No Finding", "Mass") if line.startswith(image) else line for line in lines]

    edit(table, label)
    with pytest.raises(CxrfastError, match=f"{image}: the labels changed since .*, see Data_Entry_2017.csv; r"):
        found.check(*now(settings, data))
    table.write_text(originals[0])

    def move(lines):
        cells = lines[1].split(",")
        return [lines[0], ",".join([*cells[:2], str(float(cells[2]) + 1), *cells[3:]]), *lines[2:]]

    boxed = boxes.read_text().split("\n")[1].split(",")[0]
    edit(boxes, move)
    with pytest.raises(CxrfastError, match=f"{boxed}: the boxes changed since .*, see BBox_List_2017.csv; r"):
        found.check(*now(settings, data))
    boxes.write_text(originals[1])
    found.check(*now(settings, data))


def test_another_patient_known_labels_and_a_removed_file(settings, tmp_path):
    found, data = begin(settings, tmp_path)
    config = build_config(settings)
    first, *others = data.records["val"]
    for change, name in (({"patient": "x"}, "the patient"), ({"known": frozenset()}, "the known labels")):
        changed = dataclasses.replace(
            data, records={**data.records, "val": [dataclasses.replace(first, **change), *others]}
        )
        with pytest.raises(CxrfastError, match=f"{first.image}: {name} changed"):
            found.check(config, changed)
    first.path.unlink()
    with pytest.raises(CxrfastError, match=f"{first.image}: the size of the image file changed"):
        found.check(config, data)
    assert set(found.values) == set(PROPERTIES)


def test_another_split(settings, tmp_path):
    found, data = begin(settings, tmp_path)
    moved = {**data.records, "val": data.records["val"][1:]}
    with pytest.raises(CxrfastError, match="splits.json has other val images than at the start"):
        found.check(build_config(settings), dataclasses.replace(data, records=moved))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, "the run began with lr 0.001, but config.yaml has 0.5"),
        ({"options": {"crf_epochs": 7}}, "the run began with options.crf_epochs 1, but config.yaml has 7"),
        ({"annotated": 0.5}, "the run began with annotated none, but config.yaml has 0.5"),
        ({"augment": False}, "the run began with augment True, but config.yaml has False"),
    ],
)
def test_another_setting(settings, tmp_path, change, message):
    found, data = begin({**settings, "lr": 0.001}, tmp_path)
    options = {**settings["options"], **change.get("options", {})}
    with pytest.raises(CxrfastError, match=message):
        found.check(*now({**settings, "lr": 0.001, **change, "options": options}, data))


def test_other_classes(settings, tmp_path):
    found, data = begin(settings, tmp_path)
    turned = dataclasses.replace(data, class_names=data.class_names[::-1])
    with pytest.raises(CxrfastError, match="the run began with the classes "):
        found.check(build_config(settings), turned)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 2, "settings": 3}'])
def test_a_damaged_file(tmp_path, content):
    path = tmp_path / "fingerprint.json"
    path.write_text(content)
    with pytest.raises(CxrfastError, match=r"^\S+fingerprint.json is damaged \(.*\); restore it, or delete it"):
        Fingerprint.load(path)


def test_the_file_is_small_and_plain(settings, tmp_path):
    begin(settings, tmp_path)
    content = json.loads((tmp_path / "fingerprint.json").read_text())
    assert content["settings"]["method"] == "rozenberg"
    assert set(content["tables"]) >= {"Data_Entry_2017.csv", "BBox_List_2017.csv"}
    assert SAMPLE == 100


def test_a_run_is_refused_and_goes_on_when_the_data_are_restored(settings, tmp_path, monkeypatch, logged):
    epoch = Trainer._epoch

    def first_only(trainer, number, stage, at, optimizer):
        if at > 1:
            raise KeyboardInterrupt
        return epoch(trainer, number, stage, at, optimizer)

    monkeypatch.setattr(Trainer, "_epoch", first_only)
    with pytest.raises(KeyboardInterrupt):
        train(build_config(settings), tmp_path / "run")
    monkeypatch.undo()
    run = RunDirectory(tmp_path / "run")
    boxes = settings["data"] / "BBox_List_2017.csv"
    before = boxes.read_text()
    edit(boxes, lambda lines: [lines[0], *lines[2:]])
    with pytest.raises(CxrfastError, match="the boxes changed since the run began, see BBox_List_2017.csv; restore it"):
        resume(run.path)
    assert len(run.read_metrics()) == 1
    boxes.write_text(before)
    resume(run.path, verify=True)
    assert not any("verify: the run knows" in line for line in logged.messages)  # the sample is all 40 images
    assert len(run.read_metrics()) == 3


def test_a_folder_without_splits_starts_again(trained, tmp_path, logged):
    """As earlier versions left it, when they were killed after config.yaml."""
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    shutil.copy(trained / "config.yaml", run.config)
    resume(run.path)
    assert run.splits.read_text() == (trained / "splits.json").read_text()
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in RunDirectory(p).read_metrics()]
        for p in (run.path, trained)
    ]
    assert rows[0] == rows[1]
