"""PadChest as released: labels as text of Python lists, identifiers of 39 digits, an index column without a name."""

import csv
import gzip
import io

import numpy as np
import pytest

from cxrfast.data import read_image
from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.padchest import read_padchest
from cxrfast.data.datasets.registry import read_data
from cxrfast.errors import CxrfastError
from tests.data.datasets.files import write_png

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
HEADER = next(
    csv.reader(
        [
            ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,"
            "Projection,MethodProjection,Pediatric,Modality_DICOM,BitsStored_DICOM,Rows_DICOM,Columns_DICOM,ReportID,"
            "Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS"
        ]
    )
)


def image_id(n):
    return f"20536686640136348236148679891455886468_k6ga2{n}.png"


def row(n, labels, **changes):
    values = {
        "": n,
        "ImageID": image_id(n),
        "ImageDir": n % 3,
        "StudyDate_DICOM": "20140915",
        "StudyID": f"2053668664013634823614867989145588646{n // 2}",
        "PatientID": f"83986048869429233163798823568146098{n // 2}",
        "PatientBirth": "1930.0",
        "PatientSex_DICOM": "F",
        "ViewPosition_DICOM": "POSTEROANTERIOR",
        "Projection": "PA",
        "MethodProjection": "Manual review of DICOM fields",
        "Pediatric": "No",
        "Modality_DICOM": "CR",
        "BitsStored_DICOM": "12",
        "Rows_DICOM": "3000",
        "Columns_DICOM": "2500",
        "ReportID": "4765777",
        "Report": "sin hallazg patolog edad pacient .",
        "MethodLabel": "Physician",
        "Labels": labels,
        "Localizations": "['loc basal', 'loc right']",
        "LabelsLocalizationsBySentence": "['pleural effusion', 'loc basal', 'loc right']",
        "labelCUIS": "['C0032227']",
        "LocalizationsCUIS": "['C1282378' 'C0444532']",
    }
    return [str({**values, **changes}[name]) for name in HEADER]


ROWS = [
    row(0, "['pleural effusion', 'cardiomegaly']"),
    row(1, "['cardiomegaly', 'loc right', ' aortic  elongation ']", Projection="L", MethodLabel="RNN_model"),
    row(2, "['normal']", Projection="AP_horizontal"),
    row(3, "['unchanged', 'pleural effusion']", Projection="COSTAL"),
    row(4, "['exclude']", Projection="EXCLUDE", PatientSex_DICOM="M"),
    row(5, "[]", PatientBirth=""),
    row(6, ""),
    row(7, "[\"stent's shadow\", 'mass']", PatientBirth="2015"),
    row(8, "['normal', 'pulmonary mass']"),
    row(9, "['suboptimal study', 'mass']"),
]


def text(rows, delimiter=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows([HEADER, *rows])
    return stream.getvalue()


def write(root, rows=ROWS, *, images=True, flat=False):
    root.mkdir(parents=True, exist_ok=True)
    (root / TABLE).write_text(text(rows))
    for cells in rows if images else ():
        write_png(root / (cells[1] if flat else f"{cells[2]}/{cells[1]}"))
    return root


def test_labels_from_the_network_alone(tmp_path):
    source = read_data(write(tmp_path, [row(n, "['normal']", MethodLabel="RNN_model") for n in range(2)]))
    assert source.label_version == "a network"
    assert "images with labels from a network: 2" in source.notes


def test_the_released_layout(tmp_path):
    source = read_data(write(tmp_path), DataOptions(views="all"))
    assert (source.layout, source.grouping, len(source.records)) == ("padchest", "patient", 10)
    assert source.class_names == ("mass", "cardiomegaly", "pleural effusion", "aortic elongation", "stent's shadow")
    assert source.class_notes == ["labels with one meaning are one class: pulmonary mass = mass"]
    labels = np.array([[record.label(name) for name in source.class_names] for record in source.records])
    nan = np.nan
    expected = [
        [0, 1, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 0, 0, 0, 0],
        [nan, nan, 1, nan, nan],
        [nan] * 5,
        [nan] * 5,
        [nan] * 5,
        [1, 0, 0, 0, 1],
        [1, 0, 0, 0, 0],
        [1, nan, nan, nan, nan],
    ]
    np.testing.assert_array_equal(labels, expected)
    assert [record.view for record in source.records[:5]] == ["PA", "lateral", "AP", "costal", None]
    assert [record.age for record in source.records[4:8]] == [84, None, 84, None]
    first = source.records[0]
    assert (first.sex, first.width, first.height) == ("F", 2500, 3000)
    assert first.image == f"0/{image_id(0)}"
    assert first.path.is_file()
    assert [r.patient for r in source.records[:3]] == [ROWS[0][5], ROWS[0][5], ROWS[2][5]]
    assert (first.study, source.label_version) == (ROWS[0][4], "physicians and a network")
    for note in (
        f"images read from {TABLE}: 10",
        "images without labels, whose classes are unknown: 2",
        "labels that a report or image is incomplete (exclude 1, suboptimal study 1, unchanged 1), so findings that "
        "are not listed are unknown: 3",
        "images labelled normal beside findings, of which the findings are taken: 1",
        "images with labels from a network, the others from physicians: 1",
        "ages below 0 or over 120 years, taken as unknown: 1",
    ):
        assert note in source.notes, note
    frontal = read_data(tmp_path)
    left_out = ("lateral", "costal")
    assert [record.image for record in frontal.records] == [r.image for r in source.records if r.view not in left_out]


def test_other_forms_of_the_table(tmp_path):
    """Compressed; saved again by pandas; semicolons, CRLF, byte order mark; images in one folder."""
    expected = read_padchest(write(tmp_path / "a", flat=True)).records
    again = [[*cells[:2], f"{cells[2]}.0", f"{cells[3]}.0", *cells[4:]] for cells in ROWS]
    for form, content in (
        ("gz", gzip.compress(text(ROWS).encode())),
        ("pandas", text([["0", *cells[1:]] for cells in again]).encode()),
        ("semicolons", b"\xef\xbb\xbf" + text(ROWS, ";").replace("\n", "\r\n").encode()),
        ("utf16", text(ROWS).encode("utf-16")),
        ("case", text(ROWS).replace("ImageID", "imageid").replace("Labels,", " LABELS,", 1).encode()),
    ):
        root = write(tmp_path / form, flat=True)
        (root / TABLE).unlink()
        (root / (f"{TABLE}.gz" if form == "gz" else TABLE)).write_bytes(content)
        found = read_data(root, DataOptions(views="all")).records
        assert [(r.image, r.labels, r.known, r.patient, r.age, r.view) for r in found] == [
            (r.image, r.labels, r.known, r.patient, r.age, r.view) for r in expected
        ], form


def test_sixteen_bit_images(tmp_path):
    import cv2

    root = write(tmp_path, ROWS[:1])
    cv2.imwrite(str(root / "0" / image_id(0)), np.array([[0, 65535], [4096, 32768]], np.uint16))
    (record,) = read_data(root).records
    assert read_image(record.path) == pytest.approx(np.array([[0, 1], [4096 / 65535, 32768 / 65535]]), abs=1e-6)


def test_missing_and_further_images(tmp_path):
    root = write(tmp_path, [*ROWS, ROWS[0]])
    (root / "0" / image_id(3)).unlink()
    write_png(root / "7" / "other.png")
    source = read_data(root, DataOptions(views="all"))
    assert len(source.records) == 9
    for note in (
        f"images of {TABLE} without a file, left out: 1 (first: {image_id(3)})",
        f"image files that are not in {TABLE}, left out: 1 (first: 7/other.png)",
        "rows listed twice, taken once: 1",
    ):
        assert note in source.notes, note
    everything = read_data(root, DataOptions(views="all", images_required=False))
    assert len(everything.records) == 10
    assert everything.class_names == source.class_names  # of the table, not of the images that are there
    assert everything.records[3].image == image_id(3)


def test_images_without_a_patient(tmp_path):
    rows = [row(0, "['normal']", PatientID=""), row(1, "['normal']", PatientID="", StudyID="")]
    source = read_data(write(tmp_path, rows))
    assert [record.patient for record in source.records] == [f"study {rows[0][4]}", f"image {image_id(1)}"]
    assert "images without a patient, whose study, else the image, is taken as the patient: 2" in source.notes


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0, "['a' 'b']")], "line 2: 'Labels' is .*, expected a list of texts as in"),
        ([row(0, "['a', __import__('os')]")], "line 2: 'Labels' is .*, expected a list of texts"),
        ([row(0, "a|b")], "line 2: 'Labels' is 'a|b', expected a list of texts"),
        ([row(0, "['a"), row(1, "[]")], "line 2: 'Labels' is"),
        ([row(0, "[]"), row(0, "['a']")], "line 3: image .* is listed twice, with different values"),
        ([row(0, "[]", ImageID="")], "line 2: 'ImageID' is empty"),
        (
            [row(0, "[]", PatientID="8.39860488694292e+35")],
            "line 2: 'PatientID' is '8.39.*', rounded by another program",
        ),
        ([row(0, "[]", StudyDate_DICOM="15.9")], "line 2: '15.9' is not a whole number"),
        ([row(0, "[]", StudyDate_DICOM="15")], "line 2: 'StudyDate_DICOM' is '15', expected a date"),
        ([], "has no rows"),
    ],
)
def test_damaged_tables(rows, message, tmp_path):
    with pytest.raises(CxrfastError, match=message) as caught:
        read_data(write(tmp_path, rows))
    assert "\n" not in str(caught.value)


def test_nothing_to_read(tmp_path):
    with pytest.raises(CxrfastError, match="no PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv in"):
        read_padchest(tmp_path)
    with pytest.raises(CxrfastError, match="none of the 10 images of .* was found in"):
        read_data(write(tmp_path, images=False))
    (tmp_path / TABLE).write_text("a,b\n1,2\n")
    with pytest.raises(CxrfastError, match="has no layout that is known"):
        read_data(tmp_path)
