"""Evaluating a run on other data than its own: what training has seen of them."""

import csv
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from cxrfast.data import Splits, write_phantoms
from cxrfast.data.labels import CLASSES
from cxrfast.errors import UsageError
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.runs import RunDirectory
from cxrfast.runs.provenance import DRAWN_IMAGES, OTHER_IMAGES
from cxrfast.runs.weights import read_weights


@pytest.fixture
def copy(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "copy")


def rewrite(data, change):
    """Replace every image's (name, patient) in a copy without lists and boxes; None drops the image."""
    for name in ("train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"):
        (data / name).unlink(missing_ok=True)
    path = data / "Data_Entry_2017.csv"
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    kept, at = [], header.index("Patient ID")
    for row in rows:
        new = change(row[0], row[at])
        if new is not None:
            (data / "images" / row[0]).rename(data / "images" / new[0])
            kept.append([new[0], *row[1:at], new[1], *row[at + 1 :]])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *kept])


def evaluate(trained, data, tmp_path, protocol):
    return evaluate_run(trained, data=data, protocol=protocol, out=tmp_path / "out", page=False).result


@pytest.mark.parametrize("own_data", ["there", "gone"])
def test_training_images_in_another_folder_are_refused_or_counted(trained, copy, tmp_path, own_data):
    if own_data == "gone":
        trained = shutil.copytree(trained, tmp_path / "run")
        text = (trained / "config.yaml").read_text()
        (trained / "config.yaml").write_text(
            "\n".join("data: /nowhere" if line.startswith("data:") else line for line in text.splitlines())
        )
    splits = Splits.load(RunDirectory(trained).splits)
    with pytest.raises(UsageError) as failure:
        evaluate(trained, copy, tmp_path, "strict")
    message = str(failure.value)
    assert f"with {len(splits.train) + len(splits.val)} of its training images" in message
    assert "data: expected no training patients under protocol strict, got " in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()
    result = evaluate(trained, copy, tmp_path, "own")
    images = result.predictions.images
    patient = dict(zip(images, result.predictions.patients, strict=True))
    assert len(images) == 40
    assert result.shared_patients == len({patient[image] for image in (*splits.train, *splits.val)})
    assert json.loads((tmp_path / "out" / "evaluation-all.json").read_text())["shared_patients"] > 0


def test_images_that_training_has_not_seen_are_not_refused(trained, copy, tmp_path):
    test = Splits.load(RunDirectory(trained).splits).test
    rewrite(copy, lambda image, patient: (image, patient) if image in test else None)
    result = evaluate(trained, copy, tmp_path, "strict")
    assert sorted(result.predictions.images) == sorted(test)
    assert result.shared_patients == 0


def test_other_images_of_a_training_patient_are_refused(trained, copy, tmp_path):
    """One image of the test part shows that the data set is of the same source; a training patient's image is new."""
    splits = Splits.load(RunDirectory(trained).splits)

    def change(image, patient):
        if image == splits.train[0]:
            return "new.png", patient
        return (image, patient) if image in splits.test else None

    rewrite(copy, change)
    with pytest.raises(
        UsageError, match="data: expected no training patients .*, got 1 patients .*, with 0 of its training images"
    ):
        evaluate(trained, copy, tmp_path, "strict")


def test_patients_of_another_source_may_have_the_same_numbers(trained, copy, tmp_path):
    rewrite(copy, lambda image, patient: (f"other-{image}", patient))
    result = evaluate(trained, copy, tmp_path, "strict")
    assert result.shared_patients is None
    (note,) = result.notes
    assert note.endswith("patient identifiers also occur in the training data; whether they are the same is unknown")
    rewrite(copy, lambda image, patient: (image, f"p{patient}"))
    result = evaluate(trained, copy, tmp_path, "strict")
    assert (result.shared_patients, result.notes) == (None, ())


def test_the_same_image_names_for_other_patients_are_other_images(trained, copy, tmp_path):
    rewrite(copy, lambda image, patient: (image, f"p{patient}"))
    assert evaluate(trained, copy, tmp_path, "strict").shared_patients is None


def test_phantoms_of_another_seed_share_names_and_are_other_people(trained, tmp_path):
    other = write_phantoms(tmp_path / "other", images=40, image_size=64, seed=4, progress=False)
    result = evaluate(trained, other, tmp_path, "strict")
    assert result.shared_patients is None
    assert len(result.notes) == 1


def test_weights_that_learnt_from_drawings_warn_of_every_result(trained, copy, tmp_path):
    """On phantoms, and on X-rays: here the same images under tables without a trace of the phantoms."""
    own = evaluate_run(trained, out=tmp_path / "own")
    assert own.result.warnings[0].startswith("weights learnt from drawings, not from people")
    assert own.result.warnings[-1] == DRAWN_IMAGES
    assert json.loads(own.report.read_text())["learnt_from"]["data"] == "phantoms"
    page = own.page.read_text().replace("<wbr>", "")
    assert "<title>Warning · " in page
    assert page.count("weights learnt from drawings, not from people") == 2  # at the top and at the end
    assert "At the operating point" in page
    for name in ("phantoms.json", "README.txt"):
        (copy / name).unlink()
    table = copy / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("5.625,5.625", "0.143,0.143"))
    elsewhere = evaluate(trained, copy, tmp_path, "own")
    assert elsewhere.warnings[-1] == OTHER_IMAGES
    assert DRAWN_IMAGES not in elsewhere.warnings


def renamed_weights(run, path, names):
    """The best weights of a run with other names of classes."""
    metadata, state = read_weights(RunDirectory(run).best)
    classes = [names.get(name, name) for name in json.loads(metadata["class_names"])]
    save_file(state, str(path), {**metadata, "class_names": json.dumps(classes)})
    return path


def test_classes_have_the_names_of_the_data_set_and_unlabelled_ones_no_numbers(trained, copy, tmp_path):
    """torchxrayvision#172: numbers of a class that the data set does not label would come from invented negatives."""
    own = renamed_weights(trained, tmp_path / "own.safetensors", {})
    expected = evaluate_run(own, data=copy, protocol="own", out=tmp_path / "a", page=False)
    *_, unknown, left_out = (name for name in expected.result.class_names if name != "Effusion")
    names = {"Effusion": "Pleural Effusion", left_out: "No finding", unknown: "Fracture"}
    theirs = renamed_weights(trained, tmp_path / "theirs.safetensors", names)
    assessment = evaluate_run(theirs, data=copy, protocol="own", out=tmp_path / "b", page=True)
    result = assessment.result
    others = [name for name in expected.result.class_names if name != left_out]
    assert result.class_names == tuple("Fracture" if name == unknown else name for name in others)
    notes = [
        "class names matched: Pleural Effusion = Effusion",
        "the model's output No finding is not a class of findings: not evaluated",
        f"not labelled in {copy}, so unknown: Fracture",
    ]
    assert [note for note in result.notes if note in notes] == notes
    common = [name for name in result.class_names if name != "Fracture"]
    ours, other = result.predictions.of_classes(common), expected.result.predictions.of_classes(common)
    for name in ("prob", "labels", "n_boxes", "iou", "ior"):
        torch.testing.assert_close(getattr(ours, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)
    record, whole = (json.loads(path.read_text())["classes"] for path in (assessment.report, expected.report))
    assert {name: record[name] for name in common} == {name: whole[name] for name in common}
    fracture = record["Fracture"]
    assert (fracture["n_positive"], fracture["n_negative"], fracture["n_annotated"]) == (0, 0, 0)
    assert [fracture[name] for name in ("auroc", "average_precision", "ece")] == [None] * 3
    with assessment.predictions.open(newline="") as file:
        assert {row["label"] for row in csv.DictReader(file) if row["class"] == "Fracture"} == {""}
    assert "not labelled in" in assessment.page.read_text()


def test_a_model_without_a_class_of_the_data_is_refused(trained, copy, tmp_path):
    strange = renamed_weights(trained, tmp_path / "strange.safetensors", {name: f"{name} sign" for name in CLASSES})
    with pytest.raises(UsageError, match="labels none of the model's classes .Atelectasis sign.*match them with --map"):
        evaluate_run(strange, data=copy, protocol="own", out=tmp_path / "out", page=False)
