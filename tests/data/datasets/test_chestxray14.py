"""The ChestX-ray14 reader: every trap of the released files, and every way to spoil them."""

import shutil
import time
from collections import Counter

import pytest

from cxrfast.data.datasets import chestxray14
from cxrfast.data.datasets.chestxray14 import read_chestxray14
from cxrfast.data.datasets.registry import read_data
from cxrfast.data.labels import BOXED_CLASSES, CLASSES
from cxrfast.errors import CxrfastError, UsageError
from tests.data.conftest import HEADER_2017, entry


def by_name(data):
    return {record.image: record for record in data.records}


def test_reads_labels_patients_boxes_and_lists(release):
    data = read_chestxray14(release.root)
    records = by_name(data)
    assert data.label_version == "2017"
    assert records["00000001_000.png"].labels == {"Cardiomegaly", "Effusion"}
    assert records["00000001_001.png"].labels == frozenset()
    assert records["00000001_000.png"].patient == records["00000001_001.png"].patient
    assert records["00000002_000.png"].boxes == {"Infiltration": ((0.25, 0.125, 0.75, 0.1875),)}
    assert [record.split for record in data.records] == ["train_val", "train_val", "train_val", "test"]
    first = records["00000001_000.png"]
    assert (first.age, first.sex, first.view, first.follow_up) == (58, "M", "PA", 0)
    assert (first.width, first.height) == (2682, 2749)


@pytest.mark.parametrize("layout", ["images_001/images", "images_012/images", "images_003", "."])
def test_finds_images_where_archives_put_them(release, layout):
    target = release.root / layout
    target.mkdir(parents=True, exist_ok=True)
    moved = release.root / "images" / "00000002_000.png"
    shutil.move(moved, target / moved.name)
    data = read_chestxray14(release.root)
    assert len(data.records) == 4
    assert by_name(data)["00000002_000.png"].path == target / moved.name


def test_finds_copies_saved_in_another_format(release):
    (release.root / "images" / "00000002_000.png").rename(release.root / "images" / "00000002_000.jpg")
    record = by_name(read_chestxray14(release.root))["00000002_000.png"]
    assert record.path.name == "00000002_000.jpg"


def test_partial_copy_is_read_and_said(release):
    (release.root / "images" / "00000003_000.png").unlink()
    data = read_chestxray14(release.root)
    assert len(data.records) == 3
    assert any("Data_Entry_2017.csv: 4; found under" in note and ": 3; the others" in note for note in data.notes)


def test_both_versions_name_the_same_patients(release):
    shutil.copy(release.root / "Data_Entry_2017.csv", release.root / "Data_Entry_2017_v2020.csv")
    text = (release.root / "Data_Entry_2017_v2020.csv").read_text()
    text = text.replace(HEADER_2017, HEADER_2017.rstrip(",")).replace(",058Y,", ",57,")
    for patient in ("1", "2", "3"):
        text = text.replace(f",0000000{patient},", f",{patient},")
    (release.root / "Data_Entry_2017_v2020.csv").write_text(text)
    old, new = read_chestxray14(release.root), read_chestxray14(release.root, labels="2020")
    assert new.label_version == "2020"
    assert [record.patient for record in old.records] == [record.patient for record in new.records]
    assert {record.age for record in new.records} == {57}
    (release.root / "Data_Entry_2017.csv").unlink()
    assert read_chestxray14(release.root).label_version == "2020"


@pytest.mark.parametrize(
    ("cell", "age"), [("058Y", 58), ("005M", 0), ("023M", 1), ("013D", 0), ("47", 47), ("414", None), ("", None)]
)
def test_ages(release, cell, age):
    release.entries[0] = entry("00000001_000.png", "Mass", age=cell)
    assert read_chestxray14(release.write()).records[0].age == age


def test_box_makes_its_class_positive_unless_told_otherwise(release):
    release.boxes.append("00000001_001.png,Mass,1,1,10,10")
    release.write()
    assert by_name(read_chestxray14(release.root))["00000001_001.png"].labels == {"Mass"}
    assert any("labels lack, taken as positive: 1 (" in note for note in read_chestxray14(release.root).notes)
    kept = by_name(read_chestxray14(release.root, boxes_imply_labels=False))["00000001_001.png"]
    assert kept.labels == frozenset()
    assert list(kept.boxes) == ["Mass"]


def test_several_boxes_of_one_class_are_kept(release):
    release.boxes.append("00000002_000.png,Infiltrate,10,10,20,20")
    assert len(by_name(read_chestxray14(release.write()))["00000002_000.png"].boxes["Infiltration"]) == 2


def test_box_that_overshoots_by_rounding_is_clipped_and_said(release):
    release.boxes.append("00000001_000.png,Effusion,-0.4,1000,100.4,24.9")
    data = read_chestxray14(release.write())
    assert by_name(data)["00000001_000.png"].boxes["Effusion"][0] == (0.0, 1000 / 1024, 100 / 1024, 1.0)
    assert any("boxes of BBox_List_2017.csv" in note and "clipped: 1" in note for note in data.notes)


def test_works_without_lists_and_boxes_and_says_so(release):
    for name in ("BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"):
        (release.root / name).unlink()
    data = read_chestxray14(release.root)
    assert all(not record.boxes and record.split is None for record in data.records)
    assert any("BBox_List_2017.csv" in note for note in data.notes)
    assert any("train_val_list.txt" in note for note in data.notes)


def test_boxes_of_unknown_images_are_said(release):
    release.boxes.append("00000099_000.png,Mass,1,1,10,10")
    assert any("not in Data_Entry_2017.csv" in note for note in read_chestxray14(release.write()).notes)


BAD_BOXES = {
    "outside": ("Mass,900,900,200,200", "outside its image of 1024×1024 pixels"),
    "far left": ("Mass,-50,0,100,100", "outside its image of 1024×1024 pixels"),
    "beyond": ("Mass,1024.5,0,0.4,10", "outside its image of 1024×1024 pixels"),
    "text": ("Mass,ten,0,100,100", "expected four finite numbers"),
    "nan": ("Mass,nan,0,100,100", "finite"),
    "infinite": ("Mass,0,0,inf,100", "finite"),
    "zero": ("Mass,10,10,0,100", "has no area, expected x1 < x2 and y1 < y2"),
    "negative": ("Mass,10,10,100,-5", "has no area, expected x1 < x2 and y1 < y2"),
    "class": ("Masses,10,10,10,10", "unknown class 'Masses'"),
    "short": ("Mass,10,10", "fields"),
    "again": ("Infiltration,256.0,128.0,512.0,64.0", "listed twice"),
}


@pytest.mark.parametrize("case", BAD_BOXES)
def test_bad_box_names_file_and_line(release, case):
    fields, message = BAD_BOXES[case]
    release.boxes.append(f"00000002_000.png,{fields}")
    with pytest.raises(CxrfastError, match=message) as error:
        read_chestxray14(release.write())
    assert "BBox_List_2017.csv, line 3" in str(error.value)
    assert "\n" not in str(error.value)


BAD_ENTRIES = {
    "nan": (entry("00000004_000.png", "nan"), "'Finding Labels' is 'nan'"),
    "empty": (entry("00000004_000.png", ""), "'Finding Labels' is ''"),
    "unknown": (entry("00000004_000.png", "Massive"), "unknown label 'Massive'"),
    "contradiction": (entry("00000004_000.png", "No Finding|Mass"), "beside a finding"),
    "duplicate": (entry("00000001_000.png", "Mass"), "listed twice"),
    "patient": ("00000004_000.png,Mass,000,,058Y,M,PA,2682,2749,0.143,0.143", "'Patient ID'"),
    "short": ("00000004_000.png,Mass", "fields"),
    "age": (entry("00000003_000.jpg", "Mass", age="old"), "'Patient Age' is 'old'"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_bad_entry_names_file_and_line(release, case):
    row, message = BAD_ENTRIES[case]
    release.entries.append(row)
    with pytest.raises(CxrfastError, match=message) as error:
        read_chestxray14(release.write())
    assert "Data_Entry_2017.csv, line 6" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", ["Image Index", "Finding Labels", "Patient ID"])
def test_missing_column_is_named(release, column):
    path = release.root / "Data_Entry_2017.csv"
    path.write_text(path.read_text().replace(column, "Something", 1))
    with pytest.raises(CxrfastError, match=f"Data_Entry_2017.csv has no column '{column}'.*Something"):
        read_chestxray14(release.root)


def test_missing_optional_column_is_said(release):
    path = release.root / "Data_Entry_2017.csv"
    path.write_text(path.read_text().replace("View Position", "Other", 1))
    data = read_chestxray14(release.root)
    assert data.records[0].view is None
    assert any("View Position" in note for note in data.notes)


def test_missing_things_are_named(release):
    with pytest.raises(CxrfastError, match="no folder"):
        read_chestxray14(release.root / "nowhere")
    with pytest.raises(UsageError, match="2018"):
        read_chestxray14(release.root, labels="2018")
    with pytest.raises(CxrfastError, match=r"no Data_Entry_2017_v2020\.csv"):
        read_chestxray14(release.root, labels="2020")
    shutil.rmtree(release.root / "images")
    with pytest.raises(CxrfastError, match="none of the 4 images"):
        read_chestxray14(release.root)
    (release.root / "Data_Entry_2017.csv").unlink()
    with pytest.raises(CxrfastError, match=r"no Data_Entry_2017\.csv or .*BBox_List_2017\.csv"):
        read_chestxray14(release.root)


def test_image_in_both_lists_is_an_error(release):
    (release.root / "test_list.txt").write_text("00000001_000.png")
    with pytest.raises(CxrfastError, match=r"00000001_000\.png is in"):
        read_chestxray14(release.root)


def test_binary_table_is_an_error(release):
    (release.root / "Data_Entry_2017.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(CxrfastError, match="cannot be read as a text table"):
        read_chestxray14(release.root)


@pytest.mark.parametrize("labels", ["2017", "2020"])
def test_real_partial_copy(real_data, labels):
    begin = time.process_time()
    data = read_chestxray14(real_data / "nih", labels=labels)
    assert time.process_time() - begin < 10  # about half a second; the bound only catches a quadratic reader
    assert len(data.records) == 515
    assert len({record.patient for record in data.records}) == 399
    assert sum(bool(record.boxes) for record in data.records) == 14
    assert all(record.boxes.keys() <= record.labels for record in data.records)
    assert {record.split for record in data.records} == {"train_val", "test"}
    assert all(record.split == "test" for record in data.records if record.boxes)


def test_real_tables_hold_what_is_published(real_data, tmp_path):
    """All 112,120 rows, with an empty file standing in for each boxed image (the reader does not open images)."""
    for name in ("Data_Entry_2017.csv", "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"):
        shutil.copy(real_data / "nih" / name, tmp_path)
    images = {line.split(",")[0] for line in (tmp_path / "BBox_List_2017.csv").read_text().splitlines()[1:]}
    for name in images:
        (tmp_path / name).touch()
    data = read_chestxray14(tmp_path)
    counts = Counter(name for record in data.records for name in record.boxes)
    assert len(data.records) == 880
    assert len({record.patient for record in data.records}) == 726
    assert counts.total() == 984
    assert set(counts) == set(BOXED_CLASSES)
    assert counts["Infiltration"] == 123
    assert {record.split for record in data.records} == {"test"}
    assert any("labels lack, taken as positive: 188 (" in note for note in data.notes)
    assert all(0 <= value <= 1 for record in data.records for of in record.boxes.values() for b in of for value in b)


def test_classes_are_the_official_ones():
    assert len(set(CLASSES)) == 14
    assert BOXED_CLASSES[0] == "Atelectasis"
    assert BOXED_CLASSES[-1] == "Pneumothorax"
    assert len(BOXED_CLASSES) == 8


HEADER_SAMPLE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
)


def as_sample(release):
    """The layout of Kaggle's sample: other names of table and columns, images in sample/images."""
    rows = [line.replace(",058Y,", ",060Y,") for line in release.entries]
    (release.root / "sample_labels.csv").write_text("\n".join([HEADER_SAMPLE, *rows]) + "\n")
    for name in ("Data_Entry_2017.csv", "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"):
        (release.root / name).unlink()
    (release.root / "sample").mkdir()
    shutil.move(release.root / "images", release.root / "sample" / "images")
    return release.root


def test_kaggle_sample(release):
    data = read_data(as_sample(release))
    assert data.layout == "chestxray14"
    assert data.label_version == "2017"
    assert [record.image for record in data.records] == [line.split(",")[0] for line in release.entries]
    first = data.records[0]
    assert (first.age, first.width, first.height, first.patient) == (60, 2682, 2749, "1")
    assert first.path == release.root / "sample" / "images" / "00000001_000.png"
    assert any("images found in sample/images" in note for note in data.notes)


def test_sample_table_of_another_data_set_is_not_taken(tmp_path):
    (tmp_path / "sample_labels.csv").write_text("file,label\na.png,cat\n")
    assert chestxray14.LAYOUT.recognise(tmp_path) is None


@pytest.mark.parametrize("folder", ["images-224/images-224", "images/images", "archive/images_001/images", "resized"])
def test_searches_sub_folders_when_the_usual_ones_have_no_image_of_the_table(release, folder):
    shutil.move(release.root / "images", release.root / "moved")
    (release.root / folder).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(release.root / "moved", release.root / folder)
    (release.root / "logo.png").write_bytes(b"not an image of the table")
    data = read_chestxray14(release.root)
    assert [record.image for record in data.records] == [line.split(",")[0] for line in release.entries]
    assert {record.path.parent for record in data.records} == {release.root / folder}
    assert any(f"images found in {folder}" in note for note in data.notes)


def test_two_copies_of_an_image_in_other_folders(release):
    shutil.move(release.root / "images", release.root / "a")
    shutil.copytree(release.root / "a", release.root / "b")
    data = read_chestxray14(release.root)
    assert len(data.records) == 4
    assert any("image files in two folders, of which one is read: 4" in note for note in data.notes)
    (release.root / "b" / "00000002_000.png").write_bytes(b"smaller")
    with pytest.raises(CxrfastError, match="two different files may be image 00000002_000"):
        read_chestxray14(release.root)


def test_a_renamed_table_is_refused_before_images_are_searched(tmp_path):
    (tmp_path / "Data_Entry_2017.csv").write_text("Path,Sex\ntrain/patient1/study1/view1_frontal.jpg,Male\n")
    for folder, content in (("patient1", b"1"), ("patient2", b"22")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "view1_frontal.jpg").write_bytes(content)
    with pytest.raises(CxrfastError, match="no column 'Image Index'"):
        read_chestxray14(tmp_path)


def test_table_saved_again_by_pandas(release):
    """An index column, whole numbers as floats, the empty column of the header with a name, unknown columns."""
    rows = [HEADER_2017.rstrip(",").replace("Image", ",Image", 1) + ",Unnamed: 11,fold"]
    for number, line in enumerate(release.entries):
        fields = line.split(",")
        fields[2:5] = ["0.0", f"{int(fields[3])}.0", "58.0" if number else ""]
        rows.append(f"{number}," + ",".join(fields) + ",,3")
    (release.root / "Data_Entry_2017.csv").write_text("\n".join(rows) + "\n")
    data = read_chestxray14(release.root)
    assert [record.patient for record in data.records] == ["1", "1", "2", "3"]
    assert [record.age for record in data.records] == [None, 58, 58, 58]
    assert {record.follow_up for record in data.records} == {0}
    assert data.records[0].width == 2682


def test_other_spellings_of_labels_are_matched_and_said(release):
    release.entries[0] = entry("00000001_000.png", "pleural effusion|Infiltrate")
    release.entries[1] = entry("00000001_001.png", "No finding")
    data = read_chestxray14(release.write())
    assert data.records[0].labels == {"Effusion", "Infiltration"}
    assert data.records[1].labels == frozenset()
    assert "pleural effusion = Effusion" in data.class_notes[0]


def test_names_of_files_in_the_resized_copy_on_kaggle(release):
    plain = read_chestxray14(release.root)
    for name, other in (
        ("BBox_List_2017.csv", "BBox_List_2017_Official_NIH.csv"),
        ("train_val_list.txt", "train_val_list_NIH.txt"),
        ("test_list.txt", "test_list_NIH.txt"),
    ):
        (release.root / name).rename(release.root / other)
    data = read_chestxray14(release.root)
    assert data.records == plain.records
    assert data.notes == plain.notes
