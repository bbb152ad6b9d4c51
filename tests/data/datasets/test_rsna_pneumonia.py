"""The reader of the RSNA pneumonia challenge."""

import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import read_data
from cxrfast.data.datasets.rsna_pneumonia import LAYOUT, read_rsna_pneumonia
from cxrfast.errors import CxrfastError
from tests.data.datasets.files import write_dicom, write_png, write_table

HEALTHY, OTHER, TWO, ONE = (
    "0004cfab-14fd-4e49-80ba-63a80b6bddd6",
    "003d8fa0-6bf1-40ed-b54c-ac657f8495c5",
    "00436515-870c-4b36-a041-de91049b9ab4",
    "00704310-78a8-4b38-8475-49f4573b2dbb",
)
LABELS = f"""patientId,x,y,width,height,Target
    {HEALTHY},,,,,0
    {OTHER},,,,,0
    {TWO},264.0,152.0,213.0,379.0,1
    {TWO},562.0,152.0,256.0,453.0,1
    {ONE},695.0,575.0,162.0,137.0,1"""
CLASSES = f"""patientId,class
    {HEALTHY},Normal
    {OTHER},No Lung Opacity / Not Normal
    {TWO},Lung Opacity
    {TWO},Lung Opacity
    {ONE},Lung Opacity"""


@pytest.fixture
def challenge(tmp_path):
    write_table(tmp_path / "stage_2_train_labels.csv", LABELS)
    write_table(tmp_path / "stage_2_detailed_class_info.csv", CLASSES)
    for name in (HEALTHY, OTHER, TWO, ONE):
        write_dicom(tmp_path / "stage_2_train_images" / f"{name}.dcm", 1024, 1024)
    write_dicom(tmp_path / "stage_2_test_images" / "0000a175-0e68-4ca4-b1af-167204a7e0bc.dcm")
    return tmp_path


def boxes(x, y, width, height, frame=1024):
    return (x / frame, y / frame, (x + width) / frame, (y + height) / frame)


TWO_BOXES = (boxes(264, 152, 213, 379), boxes(562, 152, 256, 453))


def test_challenge(challenge):
    source = read_data(challenge)
    assert (source.layout, source.class_names, source.grouping) == ("rsna-pneumonia", ("Pneumonia",), "image")
    assert [record.image for record in source.records] == [
        f"stage_2_train_images/{name}.dcm" for name in (HEALTHY, OTHER, TWO, ONE)
    ]
    assert [sorted(record.labels) for record in source.records] == [[], [], ["Pneumonia"], ["Pneumonia"]]
    assert [record.label("Pneumonia") for record in source.records] == [0, 0, 1, 1]
    assert source.records[2].boxes == {"Pneumonia": TWO_BOXES}
    assert source.records[3].boxes == {"Pneumonia": (boxes(695, 575, 162, 137),)}
    assert {record.split for record in source.records} == {None}
    assert any("images with 'No Lung Opacity / Not Normal': 1." in note for note in source.notes)
    assert any("image files that are not in stage_2_train_labels.csv, left out: 1" in note for note in source.notes)
    assert any("splits are by image" in note for note in source.notes)


def test_the_class_can_be_named_lung_opacity(challenge):
    source = read_data(challenge, DataOptions(class_map={"pneumonia": "Lung Opacity"}))
    assert source.class_names == ("Lung Opacity",)
    assert list(source.records[2].boxes) == ["Lung Opacity"]


def test_copies_in_another_format_keep_the_frame(challenge):
    for path in challenge.glob("stage_2_train_images/*.dcm"):
        write_png(challenge / "png" / f"{path.stem}.PNG", 32, 32)
        path.unlink()
    assert read_rsna_pneumonia(challenge).records[2].boxes == {"Pneumonia": TWO_BOXES}


def test_processed_copy_with_one_table(tmp_path):
    rows = LABELS.splitlines()
    more = ["class,age,sex,modality,position", *["Normal,51,F,CR,PA"], "No Lung Opacity / Not Normal,58.0,M,CR,AP"]
    more += ["Lung Opacity,,M,CR,"] * 3
    text = "\n".join(f"{row},{extra}" for row, extra in zip(rows, more, strict=True))
    write_table(tmp_path / "stage2_train_metadata.csv", text)
    for name in (HEALTHY, OTHER, TWO, ONE):
        write_png(tmp_path / "Training" / "Images" / f"{name}.png")
    source = read_data(tmp_path)
    assert source.layout == "rsna-pneumonia"
    assert [(record.age, record.sex, record.view) for record in source.records[:3]] == [
        (51, "F", "PA"),
        (58, "M", "AP"),
        (None, "M", None),
    ]
    assert source.records[2].boxes == {"Pneumonia": TWO_BOXES}


def test_dicom_of_another_size(challenge):
    """Its own frame where the boxes fit, else a resized copy of the released image."""
    write_dicom(challenge / "stage_2_train_images" / f"{ONE}.dcm", 2048, 1024)
    record = read_rsna_pneumonia(challenge).records[3]
    assert record.boxes["Pneumonia"] == ((695 / 2048, 575 / 1024, 857 / 2048, 712 / 1024),)
    write_dicom(challenge / "stage_2_train_images" / f"{ONE}.dcm", 512, 512)
    source = read_rsna_pneumonia(challenge)
    assert source.records[3].boxes["Pneumonia"] == (boxes(695, 575, 162, 137),)
    assert any("boxes are of 1024×1024" in note for note in source.notes)


def test_missing_images(challenge):
    (challenge / "stage_2_train_images" / f"{ONE}.dcm").unlink()
    source = read_rsna_pneumonia(challenge)
    assert len(source.records) == 3
    assert any(f"labels.csv without a file, left out: 1 (first: {ONE})" in note for note in source.notes)
    every = read_rsna_pneumonia(challenge, DataOptions(images_required=False))
    assert [len(record.boxes) for record in every.records] == [0, 0, 1, 1]
    for path in challenge.glob("*/*.dcm"):
        path.unlink()
    with pytest.raises(CxrfastError, match="none of the 4 images"):
        read_rsna_pneumonia(challenge)


def test_without_detailed_classes(challenge):
    (challenge / "stage_2_detailed_class_info.csv").unlink()
    assert any("which images are healthy is not known" in note for note in read_rsna_pneumonia(challenge).notes)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(",", ";").replace("patientId", "PATIENTID").encode(),
        lambda text: text.replace(",0\n", ",0.0\n").replace(",1\n", ", 1.0 \n").encode("utf-16"),
        lambda text: "\n".join(f"{n or ''},{line}" for n, line in enumerate(text.splitlines())).encode(),
    ],
)
def test_messy_tables(challenge, change):
    path = challenge / "stage_2_train_labels.csv"
    path.write_bytes(change(path.read_text()))
    source = read_data(challenge)
    assert [len(record.labels) for record in source.records] == [0, 0, 1, 1]
    assert source.records[2].boxes == {"Pneumonia": TWO_BOXES}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{ONE},,,,,0", "line 7: .*Target 0 here and 1"),
        (f"{HEALTHY},1,1,5,5,0", "line 7: .*a box and Target 0"),
        (f"{ONE},1,1,0,5,1", "line 7: .*no area"),
        (f"{ONE},1000,1000,200,200,1", "line 7: .*outside"),
        (f"{ONE},1,1,,5,1", "line 7: .*width empty"),
        (f"{ONE},1,1,5,5,2", "line 7: 'Target' is '2'"),
        (f"{ONE},1,1,5,5,", "line 7: 'Target' is ''"),
        (",1,1,5,5,1", "line 7: 'patientId' is empty"),
    ],
)
def test_bad_rows(challenge, row, message):
    write_table(challenge / "stage_2_train_labels.csv", f"{LABELS}\n{row}")
    with pytest.raises(CxrfastError, match=message) as error:
        read_rsna_pneumonia(challenge)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{ONE},Normal", "line 7: .*'Normal' here and 'Lung Opacity'"),
        (f"{ONE},Healthy", "line 7: class is 'Healthy'"),
    ],
)
def test_bad_classes(challenge, row, message):
    write_table(challenge / "stage_2_detailed_class_info.csv", f"{CLASSES}\n{row}")
    with pytest.raises(CxrfastError, match=message):
        read_rsna_pneumonia(challenge)
    write_table(challenge / "stage_2_detailed_class_info.csv", f"patientId,class\n{HEALTHY},Lung Opacity")
    with pytest.raises(CxrfastError, match="line 2: .*'Lung Opacity' and has Target 0"):
        read_rsna_pneumonia(challenge)


def test_rows_listed_twice_clipped_boxes_and_positives_without_a_box(challenge):
    extra = f"{ONE},695.0,575.0,162.0,137.0,1\n{HEALTHY},,,,,0\nnew,,,,,1\nedge,1000,1000,30,24,1"
    write_table(challenge / "stage_2_train_labels.csv", f"{LABELS}\n{extra}")
    for name in ("new", "edge"):
        write_png(challenge / "stage_2_train_images" / f"{name}.png")
    source = read_rsna_pneumonia(challenge)
    assert len(source.records) == 6
    assert len(source.records[3].boxes["Pneumonia"]) == 1
    assert (source.records[4].labels, source.records[4].boxes) == ({"Pneumonia"}, {})
    assert source.records[5].boxes["Pneumonia"] == ((1000 / 1024, 1000 / 1024, 1.0, 1.0),)
    for text in (
        "rows listed twice, taken once: 2",
        "positives without an annotation: 1",
        "beyond their image, clipped: 1",
    ):
        assert any(text in note for note in source.notes)


def test_other_folders_are_not_taken(tmp_path):
    write_table(tmp_path / "stage_2_train_labels.csv", "a,b\n1,2")
    assert LAYOUT.recognise(tmp_path) is None
    with pytest.raises(CxrfastError, match=r"no stage_2_train_labels\.csv"):
        read_rsna_pneumonia(tmp_path / "x")
