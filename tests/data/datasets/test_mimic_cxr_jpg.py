"""The MIMIC-CXR-JPG reader: labels of studies, compressed tables, projections."""

import gzip

import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.mimic_cxr_jpg import LAYOUT, read_mimic_cxr_jpg
from cxrfast.data.datasets.registry import read_data
from cxrfast.errors import CxrfastError
from tests.data.datasets.files import write_png, write_table

LISTED = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
CLASSES = LISTED.split(",")
LABELS = f"""subject_id,study_id,{LISTED.replace("Pleural Effusion", "No Finding,Pleural Effusion")}
    10000032,50414267,,,,,,,,,1.0,,,,,
    10000764,57375967,-1.0,1.0,0.0,,,,,1.0,,-1.0,,,0.0,1.0"""
COLUMNS = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime"
METADATA = f"""{COLUMNS}
    02aa804e-bde0afdd,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531
    174413ec-4ec4c1f7,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531
    096052b7-d256dc40,10000764,57375967,CHEST (PORTABLE AP),AP,2544,3056,21321015,093047.0
    b79e55c3-735ce5ac,10000764,57375967,CHEST (PORTABLE AP),,2544,3056,21321015,093047.0
    dcfeeac4-1597e318,10000898,50771383,CHEST (PA AND LAT),LAO,2544,3056,21321015,093047.0
    2a280266-c8bae121,10000898,50771383,CHEST (PA AND LAT),AP AXIAL,2544,3056,21321015,093047.0"""
SPLIT = """dicom_id,study_id,subject_id,split
    02aa804e-bde0afdd,50414267,10000032,train
    174413ec-4ec4c1f7,50414267,10000032,train
    096052b7-d256dc40,57375967,10000764,validate
    b79e55c3-735ce5ac,57375967,10000764,validate
    dcfeeac4-1597e318,50771383,10000898,test
    2a280266-c8bae121,50771383,10000898,test"""
PLACES = [
    f"files/p10/p{subject}/s{study}/{name}.jpg"
    for name, subject, study in (line.strip().split(",")[:3] for line in METADATA.splitlines()[1:])
]
TABLES = {"chexpert": LABELS, "metadata": METADATA, "split": SPLIT}


def path_of(root, kind):
    return root / f"mimic-cxr-2.0.0-{kind}.csv"


@pytest.fixture
def release(tmp_path):
    for kind, text in TABLES.items():
        write_table(path_of(tmp_path, kind), text)
    for place in PLACES:
        write_png(tmp_path / place)
    return tmp_path


def test_release(release):
    source = read_data(release)
    assert (source.layout, source.grouping) == ("mimic-cxr-jpg", "patient")
    assert source.label_version == "chexpert, uncertain: ignore"
    assert source.class_names == tuple(CLASSES)
    assert [record.image for record in source.records] == [PLACES[0], *PLACES[2:4], PLACES[5]]
    first, second, third, last = source.records
    assert (first.patient, first.study, first.split, first.view) == ("10000032", "50414267", "train", "PA")
    assert (first.width, first.height) == (2544, 3056)
    assert (first.labels, first.known) == (frozenset(), set(CLASSES))
    assert second.labels == third.labels == {"Cardiomegaly", "Lung Opacity", "Support Devices"}
    assert second.known == set(CLASSES) - {"Atelectasis", "Pleural Effusion"}
    assert second.known is third.known
    assert (second.split, second.view, third.view) == ("val", "AP", None)
    assert (last.split, last.view, last.labels, last.known) == ("test", "ap axial", frozenset(), frozenset())
    for text in (
        "images of studies without a row in mimic-cxr-2.0.0-chexpert.csv, whose classes are unknown: 2",
        "lateral or oblique (lateral 1, lao 1) images left out: 2",
        "images without a ViewPosition, kept as frontal: 1",
        "absent as the authors count them: 38",  # 13 of each of two images, 6 of each of two images
        "uncertain labels (-1), taken as unknown (--uncertain ignore, zero or one): 4",
    ):
        assert any(text in note for note in source.notes), (text, source.notes)


def test_options(release):
    one = read_data(release, DataOptions(uncertain="one", views="all"))
    assert len(one.records) == 6
    assert [record.view for record in one.records] == ["PA", "lateral", "AP", None, "lao", "ap axial"]
    assert one.records[2].labels == {
        "Atelectasis",
        "Cardiomegaly",
        "Lung Opacity",
        "Pleural Effusion",
        "Support Devices",
    }
    zero = read_data(release, DataOptions(uncertain="zero"))
    assert zero.records[1].labels == {"Cardiomegaly", "Lung Opacity", "Support Devices"}
    assert zero.records[1].known == set(CLASSES)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(",", ";").replace("subject_id", "SUBJECT_ID").encode(),
        lambda text: text.replace("10000764,", "10000764.0,").replace("3056", "3056.0").encode("utf-16"),
        lambda text: "\n".join(f"{n or ''},{line}" for n, line in enumerate(text.splitlines())).encode(),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_messy_and_compressed_tables(release, change, compressed):
    for kind in TABLES:
        path = path_of(release, kind)
        data = change(path.read_text())
        path.unlink()
        (path.with_name(path.name + ".gz") if compressed else path).write_bytes(
            gzip.compress(data) if compressed else data
        )
    source = read_data(release)
    assert [record.split for record in source.records] == ["train", "val", "val", "test"]
    assert [len(record.labels) for record in source.records] == [0, 3, 3, 0]
    assert [record.patient for record in source.records] == ["10000032", "10000764", "10000764", "10000898"]


def test_only_images_that_exist(release):
    (release / PLACES[0]).unlink()
    write_png(release / "files" / "thumbnail.png")
    source = read_mimic_cxr_jpg(release)
    assert len(source.records) == 5
    assert any("metadata.csv without a file, left out: 1 (first: 02aa804e" in note for note in source.notes)
    assert any("image files that are not in mimic-cxr-2.0.0-metadata.csv, left out: 1" in note for note in source.notes)
    every = read_mimic_cxr_jpg(release, DataOptions(images_required=False))
    assert every.records[0].image == PLACES[0]
    for place in PLACES[1:]:
        (release / place).unlink()
    with pytest.raises(CxrfastError, match="none of the 6 images"):
        read_mimic_cxr_jpg(release)


def test_copies_in_another_place_and_format(release):
    for place in PLACES:
        (release / place).unlink()
        write_png(release / place.replace("files/p10", "resized").replace(".jpg", ".PNG"))
    assert len(read_mimic_cxr_jpg(release).records) == 6


def test_without_metadata_or_split(release):
    path_of(release, "metadata").unlink()
    source = read_data(release)
    assert len(source.records) == 6
    assert any("views are unknown" in note for note in source.notes)
    write_table(path_of(release, "metadata"), METADATA)
    path_of(release, "split").unlink()
    source = read_data(release)
    assert {record.split for record in source.records} == {None}
    assert any("the official split cannot be used" in note for note in source.notes)
    path_of(release, "metadata").unlink()
    with pytest.raises(CxrfastError, match="metadata"):
        read_mimic_cxr_jpg(release)
    path_of(release, "chexpert").unlink()
    assert LAYOUT.recognise(release) is None
    with pytest.raises(CxrfastError, match=r"no mimic-cxr-2\.0\.0-chexpert\.csv"):
        read_mimic_cxr_jpg(release)


def test_rows_listed_twice(release):
    for kind in ("chexpert", "metadata"):
        path = path_of(release, kind)
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines, lines[1]]) + "\n")
    notes = read_mimic_cxr_jpg(release).notes
    assert any("studies listed twice, taken once: 1" in note for note in notes)
    assert any("rows of mimic-cxr-2.0.0-metadata.csv listed twice, taken once: 1" in note for note in notes)


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("chexpert", "10000032,50414267,1.0,,,,,,,,1.0,,,,,", "line 4: study 50414267 has other labels"),
        ("chexpert", "10000033,50414268,5.0,,,,,,,,1.0,,,,,", "line 4: 'Atelectasis' is '5.0'"),
        ("chexpert", ",50414268,1.0,,,,,,,,1.0,,,,,", "line 4: 'subject_id' or 'study_id' is empty"),
        ("chexpert", "10000033,50414268,1.0", "line 4: 3 fields"),
        ("split", "02aa804e-bde0afdd,50414267,10000032,test", "line 8: .*another part"),
        ("split", "x,50414267,10000032,fold 3", "line 8: part of the split is 'fold 3'"),
        ("metadata", "02aa804e-bde0afdd,10000032,50414268,,PA,1,1,,", "line 8: .*another study in line 2"),
        ("metadata", "x,10000032,50414268,,PA,many,1,,", "line 8: 'Rows' or 'Columns'"),
        ("metadata", ",10000032,50414268,,PA,1,1,,", "line 8: 'dicom_id' is empty"),
    ],
)
def test_bad_rows(release, kind, row, message):
    write_table(path_of(release, kind), f"{TABLES[kind]}\n{row}")
    with pytest.raises(CxrfastError, match=message) as error:
        read_mimic_cxr_jpg(release)
    assert "\n" not in str(error.value)
