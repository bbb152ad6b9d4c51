"""The CheXpert reader: blank and uncertain labels, views, parts."""

import time

import pytest

from cxrfast.data.datasets.chexpert import LAYOUT, read_chexpert
from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import read_data
from cxrfast.errors import CxrfastError
from tests.data.datasets.files import write_png, write_table

LISTED = (
    "Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,"
    "Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
CLASSES = LISTED.split(",")
HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding," + LISTED
V = "CheXpert-v1.0-small"
TRAIN = f"""{HEADER}
    {V}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0
    {V}/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,
    {V}/train/patient00002/study1/view1_frontal.jpg,Female,83,Frontal,AP,,,,1.0,,,-1.0,,,,,,1.0,
    {V}/train/patient00002/study1/view2_lateral.jpg,Unknown,83,Lateral,,,,,1.0,,,-1.0,,,,,,1.0,"""
VALID = f"""{HEADER}
    {V}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,0.0,1.0,0,0,0,0,0,0,0,0,0,0"""
NAMES = [line.split(",")[0].strip() for text in (TRAIN, VALID) for line in text.splitlines()[1:]]


@pytest.fixture(params=["", V])
def release(tmp_path, request):
    """The folder with the tables, and the folder above."""
    folder = tmp_path / request.param
    write_table(folder / "train.csv", TRAIN)
    write_table(folder / "valid.csv", VALID)
    for name in NAMES:
        write_png((folder / name.partition("/")[2]).with_suffix(".jpg"))
    return tmp_path


def test_release(release):
    source = read_data(release)
    prefix = V + "/" if (release / V).is_dir() else ""
    assert (source.layout, source.grouping, source.label_version) == ("chexpert", "patient", "uncertain: ignore")
    assert source.class_names == tuple(CLASSES)
    assert len(source.records) == 4
    assert any("lateral images left out: 1" in note for note in source.notes)
    first, second, third, valid = source.records
    assert first.image == f"{prefix}train/patient00001/study1/view1_frontal.jpg"
    assert first.path.is_file()
    assert (first.patient, first.study, first.split) == ("patient00001", "patient00001/study1", "train")
    assert (first.age, first.sex, first.view, second.view) == (68, "F", "AP", "PA")
    assert (first.labels, first.known) == ({"Support Devices"}, set(CLASSES))
    assert second.labels == {"Lung Opacity", "Fracture"}
    uncertain = {"Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion"}
    assert second.known == set(CLASSES) - uncertain
    assert third.known == set(CLASSES) - {"Consolidation"}
    assert (valid.split, valid.labels, valid.known) == (
        "val",
        {"Enlarged Cardiomediastinum", "Lung Opacity"},
        set(CLASSES),
    )
    assert any(note.startswith("blank labels") and note.endswith(": 37") for note in source.notes)  # 11 + 6 + 10 + 10
    assert any(note.startswith("uncertain labels") and note.endswith(": 7") for note in source.notes)


def test_lateral_images_can_be_kept(release):
    source = read_data(release, DataOptions(views="all"))
    assert [record.view for record in source.records] == ["AP", "PA", "AP", "lateral", "AP"]
    assert source.records[3].sex is None


@pytest.mark.parametrize(("uncertain", "present"), [("zero", 2), ("one", 7)])
def test_uncertain_labels(release, uncertain, present):
    source = read_data(release, DataOptions(uncertain=uncertain))
    assert source.label_version == f"uncertain: {uncertain}"
    assert len(source.records[1].labels) == present
    assert source.records[1].known == set(CLASSES)
    assert any("present" in note or "absent" in note for note in source.notes if "uncertain" in note)


def write(folder, rows, names=(), header=HEADER, table="train.csv"):
    write_table(folder / table, "\n".join([header, *rows]))
    for name in names:
        write_png(folder / name)
    return folder


A = "train/patient00001/study1/view1_frontal.jpg"
BLANK = "," * 12


def row(name=A, nothing="", first="1.0", rest=BLANK, age="50"):
    return f"{V}/{name},Male,{age},Frontal,AP,{nothing},{first}{rest}"


@pytest.mark.parametrize(
    ("change", "encoding"),
    [
        (lambda text: "\ufeff" + text.replace("\n", "\r\n"), "utf-8"),
        (lambda text: text.replace(",", ";").replace("Path", "PATH").replace("Edema", " edema "), "utf-8"),
        (lambda text: text.replace(",", "\t"), "utf-16"),
        (lambda text: text.replace("1.0,", "1,").replace("v1,-small", "v1.0-small"), "utf-8"),
        (lambda text: "\n".join(f"{n or ''},{line}" for n, line in enumerate(text.splitlines())), "utf-8"),
    ],
)
def test_messy_tables(tmp_path, change, encoding):
    write(tmp_path, [row(), row(A.replace("00001", "00007"), first="-1.0", age="58.0")], [A.replace(".jpg", ".JPG")])
    write_png(tmp_path / A.replace("00001", "00007").replace(".jpg", ".png"))
    path = tmp_path / "train.csv"
    path.write_bytes(change(path.read_text()).encode(encoding))
    source = read_data(tmp_path)
    assert source.layout == "chexpert"
    assert [sorted(record.labels) for record in source.records] == [["Enlarged Cardiomediastinum"], []]
    assert source.records[1].known is not None
    assert len(source.records[1].known) == 12
    assert source.records[1].age == 58
    assert source.records[0].image.endswith(".JPG")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(first="2.0")], "line 2: 'Enlarged Cardiomediastinum' is '2.0'"),
        ([row(first="yes")], "line 2: .*'yes'"),
        ([row(), row(first="0.0")], "line 3: .*other labels in a row above"),
        ([row("train/study1/view1_frontal.jpg")], "line 2: 'Path' is"),
        ([row(age="old")], "line 2: age is 'old'"),
        ([row(rest="")], "line 2: 7 fields"),
        ([row("../../patient00001/study1/view1_frontal.jpg")], "expected a path inside"),
    ],
)
def test_bad_rows(tmp_path, rows, message):
    with pytest.raises(CxrfastError, match=message) as error:
        read_chexpert(write(tmp_path, rows, [A]))
    assert "\n" not in str(error.value)


def test_missing_and_extra_images_and_rows_listed_twice(tmp_path):
    other = A.replace("00001", "00002")
    write(tmp_path, [row(), row(), row(other)], [A, "preview.png"])
    source = read_chexpert(tmp_path)
    assert [record.image for record in source.records] == [A]
    for text in (
        "images of train.csv without a file, left out: 1",
        "image files that are not in",
        "rows listed twice, taken once: 1",
    ):
        assert any(text in note for note in source.notes)
    every = read_chexpert(tmp_path, DataOptions(images_required=False))
    assert [record.image for record in every.records] == [A, f"{V}/{other}"]
    (tmp_path / A).unlink()
    with pytest.raises(CxrfastError, match="none of the 2 images"):
        read_chexpert(tmp_path)


def test_batches_of_the_full_release(tmp_path):
    write(tmp_path, [row()], ["CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg"])
    assert read_chexpert(tmp_path).records[0].image.startswith("CheXpert-v1.0 batch 2 (train 1)/")


def test_a_table_without_labels_is_unknown_and_tables_may_lack_columns(tmp_path):
    write(tmp_path, [row()], [A])
    other = A.replace("train", "test")
    write(tmp_path, [f"{other},{','.join([''] * 13)}"], [other], "Path," + LISTED, "test.csv")
    source = read_chexpert(tmp_path)
    assert [record.split for record in source.records] == ["train", "test"]
    assert source.records[1].known == frozenset()
    assert source.records[1].view == "frontal"
    assert any("test.csv holds no label" in note for note in source.notes)
    assert any("test.csv has no column Sex, Age, Frontal/Lateral, AP/PA" in note for note in source.notes)
    assert any(note.startswith("blank labels") and note.endswith(": 12") for note in source.notes)


def test_an_image_in_two_tables_is_an_error(tmp_path):
    write(tmp_path, [row()], [A])
    write(tmp_path, [row()], table="valid.csv")
    with pytest.raises(CxrfastError, match=r"valid.csv, line 2: .* is in train.csv too"):
        read_chexpert(tmp_path)


def test_no_finding_beside_a_finding_is_said(tmp_path):
    source = read_chexpert(write(tmp_path, [row(nothing="1.0")], [A]))
    assert source.records[0].labels == {"Enlarged Cardiomediastinum"}
    assert any("beside a finding, of which the finding is taken: 1" in note for note in source.notes)


def test_other_folders_are_not_taken(tmp_path):
    write_table(tmp_path / "train.csv", "path,label\na.png,1")
    assert LAYOUT.recognise(tmp_path) is None
    with pytest.raises(CxrfastError, match=r"no train\.csv"):
        read_chexpert(tmp_path)


def test_time_does_not_grow_with_the_square_of_the_rows(tmp_path):
    """Thousands of files have one name; a search among them for each row would take minutes."""
    names = [f"train/patient{number:05d}/study1/view1_frontal.jpg" for number in range(4000)]
    write(tmp_path, [row(name) for name in names])
    for name in names[::2]:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    begin = time.process_time()
    source = read_chexpert(tmp_path)
    assert time.process_time() - begin < 5
    assert len(source.records) == 2000
    assert len({id(record.known) for record in source.records}) == 1
