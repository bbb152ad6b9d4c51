"""The VinDr-CXR reader on the layouts of PhysioNet and Kaggle."""

import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import read_data
from cxrfast.data.datasets.vindr_cxr import LAYOUT, read_vindr_cxr
from cxrfast.errors import CxrfastError, UsageError
from tests.data.datasets.files import write_dicom, write_png, write_table

A, B, C, T = (letter * 32 for letter in "abc0")
COLUMNS = "Aortic enlargement,Cardiomegaly,Lung Opacity,Nodule/Mass,Other lesion,Pneumonia,Other diseases,No finding"
CLASSES = tuple(COLUMNS.split(","))[:-1]


@pytest.fixture
def release(tmp_path):
    """Three training images of three readers, one test image with a consensus."""
    tables = tmp_path / "annotations"
    write_table(
        tables / "image_labels_train.csv",
        f"""image_id,rad_id,{COLUMNS}
        {A},R1,1,1,0,0,0,0,0,0
        {A},R2,0,1,0,0,0,1,0,0
        {A},R3,0,1,0,1,0,1,0,0
        {B},R4,0,0,0,0,0,0,0,1
        {B},R5,0,0,0,0,0,0,0,1
        {B},R6,0,0,1,0,0,0,0,0
        {C},R1,0,0,0,0,0,0,0,1
        {C},R2,0,0,0,0,0,0,0,1
        {C},R3,0,0,0,0,0,0,0,1""",
    )
    write_table(
        tables / "annotations_train.csv",
        f"""image_id,rad_id,class_name,x_min,y_min,x_max,y_max
        {A},R1,Aortic enlargement,10.0,10.0,20.0,20.0
        {A},R1,Cardiomegaly,100.0,100.0,300.0,200.0
        {A},R2,Cardiomegaly,100.0,100.0,300.0,210.0
        {A},R3,Cardiomegaly,100.0,100.0,300.0,220.0
        {A},R3,Nodule/Mass,1.0,1.0,9.0,9.0
        {B},R4,No finding,,,,
        {B},R5,No finding,,,,
        {B},R6,Lung Opacity,0.0,0.0,64.0,64.0
        {C},R1,No finding,,,,
        {C},R2,No finding,,,,
        {C},R3,No finding,,,,""",
    )
    write_table(
        tables / "image_labels_test.csv",
        f"""image_id,{COLUMNS.replace("diseases", "disease")}
        {T},1,0,0,0,0,0,1,0""",
    )
    write_table(
        tables / "annotations_test.csv",
        f"""image_id,class_name,x_min,y_min,x_max,y_max
        {T},Aortic enlargement,16.0,32.0,48.0,64.0""",
    )
    for image in (A, B, C):
        write_dicom(tmp_path / "train" / f"{image}.dicom", 400, 320)
    write_dicom(tmp_path / "test" / f"{T}.dicom", 64, 64)
    return tmp_path


def by_stem(source):
    return {record.image.rpartition("/")[2][:32]: record for record in source.records}


def test_majority(release):
    source = read_data(release)
    assert (source.layout, source.grouping) == ("vindr-cxr", "image")
    assert source.class_names == CLASSES
    assert source.label_version == "majority of 3 readers, consensus in test"
    assert [record.image for record in source.records] == [f"train/{x}.dicom" for x in (A, B, C)] + [f"test/{T}.dicom"]
    assert [record.split for record in source.records] == ["train"] * 3 + ["test"]
    records = by_stem(source)
    assert records[A].labels == {"Cardiomegaly", "Pneumonia"}
    assert records[A].boxes == {"Cardiomegaly": ((100 / 400, 100 / 320, 300 / 400, 210 / 320),)}
    assert (records[A].width, records[A].height) == (400, 320)
    assert records[B].labels == records[C].labels == frozenset()
    assert records[T].labels == {"Aortic enlargement", "Other diseases"}
    assert records[T].boxes == {"Aortic enlargement": ((0.25, 0.5, 0.75, 1.0),)}
    assert all(record.known == set(CLASSES) for record in source.records)
    assert len({id(record.known) for record in source.records}) == 1
    assert len({record.patient for record in source.records}) == 4
    assert any("Aortic enlargement 1, Lung Opacity 1, Nodule/Mass 1" in note for note in source.notes)
    assert any("no patients" in note for note in source.notes)
    assert source.class_notes == ["class names matched: Other disease = Other diseases"]


def test_union_and_fusion(release):
    union = read_data(release, DataOptions(readers="union"))
    assert union.label_version.startswith("union of 3 readers")
    records = by_stem(union)
    assert records[A].labels == {"Aortic enlargement", "Cardiomegaly", "Nodule/Mass", "Pneumonia"}
    assert len(records[A].boxes["Cardiomegaly"]) == 3
    assert records[B].labels == {"Lung Opacity"}
    fusion = by_stem(read_data(release, DataOptions(readers="fusion")))
    assert fusion[A].boxes["Cardiomegaly"] == ((100 / 400, 100 / 320, 300 / 400, 210 / 320),)
    assert fusion[B].boxes == {"Lung Opacity": ((0.0, 0.0, 64 / 400, 64 / 320),)}


def test_options_of_other_layouts_are_refused(release):
    with pytest.raises(UsageError, match="uncertain"):
        read_data(release, DataOptions(uncertain="one"))


def test_missing_and_extra_images(release):
    (release / "train" / f"{B}.dicom").unlink()
    write_png(release / "train" / "stranger.png")
    source = read_vindr_cxr(release)
    assert len(source.records) == 3
    assert any("without a file, left out: 1" in note and B in note for note in source.notes)
    assert any("left out: 1" in note for note in source.notes)
    every = read_vindr_cxr(release, DataOptions(images_required=False))
    assert len(every.records) == 4
    assert by_stem(every)[B].image == B
    for path in release.glob("*/*.dicom"):
        path.unlink()
    (release / "train" / "stranger.png").unlink()
    with pytest.raises(CxrfastError, match="none of the 4 images"):
        read_vindr_cxr(release)


def test_box_without_the_label(release):
    write_table(
        release / "annotations" / "annotations_test.csv",
        f"""image_id,class_name,x_min,y_min,x_max,y_max
        {T},Cardiomegaly,0,0,32,32""",
    )
    assert by_stem(read_vindr_cxr(release))[T].labels == {"Aortic enlargement", "Other diseases", "Cardiomegaly"}
    assert any("with a box but not the label" in note for note in read_vindr_cxr(release).notes)
    kept = by_stem(read_vindr_cxr(release, DataOptions(boxes_imply_labels=False)))[T]
    assert kept.labels == {"Aortic enlargement", "Other diseases"}
    assert kept.boxes == {"Cardiomegaly": ((0.0, 0.0, 0.5, 0.5),)}


def test_copies_need_the_original_size(release):
    for path in release.glob("*/*.dicom"):
        write_png(path.with_suffix(".PNG"))
        path.unlink()
    with pytest.raises(CxrfastError, match=r"annotations_train\.csv, line 2: .*original size.*train_meta\.csv"):
        read_vindr_cxr(release)
    write_table(
        release / "train_meta.csv",
        f"""image_id,dim0,dim1
        {A},320,400
        {B},"1,320",400
        {C},320,400""",
    )
    write_table(release / "test_meta.csv", f"image_id,dim0,dim1\n{T},64,64")
    records = by_stem(read_vindr_cxr(release))
    assert records[A].image == f"train/{A}.PNG"
    assert records[A].boxes["Cardiomegaly"] == ((100 / 400, 100 / 320, 300 / 400, 210 / 320),)
    assert (records[B].width, records[B].height) == (400, 1320)


def test_without_image_labels_the_boxes_are_the_labels(release):
    for path in release.glob("annotations/image_labels_*.csv"):
        path.unlink()
    source = read_vindr_cxr(release)
    assert len(source.class_names) == 22
    assert by_stem(source)[A].labels == {"Cardiomegaly"}
    assert by_stem(source)[C].known == set(source.class_names)


def test_an_image_without_a_row_of_labels_is_unknown_for_classes_without_boxes(release):
    path = release / "annotations" / "image_labels_train.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith(C)) + "\n")
    assert by_stem(read_vindr_cxr(release))[C].known == set(CLASSES) - {"Pneumonia", "Other diseases"}


def test_blank_labels_are_unknown(release):
    path = release / "annotations" / "image_labels_test.csv"
    path.write_text(f"image_id,{COLUMNS}\n{T},1,,0,0,0,0,,0\n")
    record = by_stem(read_vindr_cxr(release))[T]
    assert record.known == set(CLASSES) - {"Cardiomegaly", "Other diseases"}
    assert any("blank labels, unknown for that reader: 2" in note for note in read_vindr_cxr(release).notes)


KAGGLE = f"""image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max,width,height
    {A},Cardiomegaly,3,R1,100,100,300,200,1000,500
    {A},Cardiomegaly,3,R2,100,100,300,200,1000,500
    {A},No finding,14,R3,,,,,1000,500
    {B},No finding,14,R1,,,,,1000,500
    {B},Pleural effusion,10,R2,0,0,500,250,1000,500
    {B},No finding,14,R3,,,,,1000,500"""


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode(),
        lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(",", ";").replace("image_id", "IMAGE_ID").encode(),
        lambda text: text.replace(",", "\t").replace("No finding", " No Finding ").encode("utf-16"),
        lambda text: text.replace("1000", '"1,000"').encode(),
        lambda text: "\n".join(f"{n or ''},{line}" for n, line in enumerate(text.splitlines())).encode(),
    ],
)
def test_kaggle(tmp_path, change):
    table = write_table(tmp_path / "train.csv", KAGGLE)
    table.write_bytes(change(table.read_text()))
    for image in (A, B):
        write_png(tmp_path / "train" / f"{image}.png", 32, 16)
    write_png(tmp_path / "test" / f"{C}.png")
    source = read_data(tmp_path)
    assert source.layout == "vindr-cxr"
    assert source.label_version == "majority of 3 readers"
    assert len(source.class_names) == 14
    records = by_stem(source)
    assert records[A].boxes == {"Cardiomegaly": ((0.1, 0.2, 0.3, 0.4),)}
    assert (records[B].labels, records[B].boxes) == (frozenset(), {})
    assert [record.split for record in source.records] == [None, None]
    assert any("image files that are not in train.csv, left out: 1" in note for note in source.notes)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{A},Cardiomegaly,3,R1,900,400,1100,450,1000,500", "line 8: .*outside"),
        (f"{A},Cardiomegaly,3,R1,9,4,9,45,1000,500", "line 8: .*no area"),
        (f"{A},Cardiomegaly,3,R1,9,4,,45,1000,500", "line 8: .*x_max empty"),
        (f"{A},Cardiomegaly,3,R1,9,ten,10,45,1000,500", "line 8: .*y_min ten"),
        (f"{A},Cardiomegalie,3,R1,9,4,10,45,1000,500", "line 8: unknown class 'Cardiomegalie'"),
        (f"{A},Cardiomegaly,3,,9,4,10,45,1000,500", "line 8: 'rad_id'"),
        (f"{C},Cardiomegaly,3,R1,9,4,10,45,0,500", "line 8: size"),
        (",Cardiomegaly,3,R1,9,4,10,45,1000,500", "line 8: 'image_id' is empty"),
        ("../x,Cardiomegaly,3,R1,9,4,10,45,1000,500", "inside"),
    ],
)
def test_bad_rows(tmp_path, row, message):
    write_table(tmp_path / "train.csv", f"{KAGGLE}\n{row}")
    for image in (A, B, C):
        write_png(tmp_path / "train" / f"{image}.png")
    with pytest.raises(CxrfastError, match=message) as error:
        read_vindr_cxr(tmp_path)
    assert "\n" not in str(error.value)


def test_boxes_that_leave_the_image_a_little_and_rows_listed_twice(tmp_path):
    rows = f"{B},Cardiomegaly,3,R1,-4,0,500,505,1000,500\n{B},Cardiomegaly,3,R1,-4,0,500,505,1000,500"
    write_table(tmp_path / "train.csv", f"{KAGGLE}\n{rows}")
    for image in (A, B):
        write_png(tmp_path / "train" / f"{image}.png")
    source = read_vindr_cxr(tmp_path, DataOptions(readers="union"))
    assert by_stem(source)[B].boxes["Cardiomegaly"] == ((0.0, 0.0, 0.5, 1.0),)
    assert any("boxes that extend a little beyond their image, clipped: 1" in note for note in source.notes)
    assert any("rows listed twice, taken once: 1" in note for note in source.notes)
    assert any("beside a finding, of which the finding is taken: 1" in note for note in source.notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{A},R1,0,1,0,0,0,0,0,0", "line 11: .*other labels"),
        (f"{A},R9,2,1,0,0,0,0,0,0", "line 11: 'Aortic enlargement' is '2'"),
        (f"{A},R9,0,1", "line 11: 4 fields"),
    ],
)
def test_bad_image_labels(release, line, message):
    with (release / "annotations" / "image_labels_train.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CxrfastError, match=message):
        read_vindr_cxr(release)


def test_other_tables_are_not_taken(tmp_path):
    write_table(tmp_path / "train.csv", "image,label\na,b")
    assert LAYOUT.recognise(tmp_path) is None
    with pytest.raises(CxrfastError, match="copy the tables"):
        read_vindr_cxr(tmp_path)
