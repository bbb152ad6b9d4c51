"""Tables of predictions as other programs write them."""

from pathlib import Path

import pytest

from cxrfast.errors import CxrfastError
from cxrfast.predictions.files import read_files

CLASSES = ("Mass", "Effusion", "Pleural_Thickening", "Rib Fracture", "Fracture")
LINES = (
    "image,class,score,x_min,y_min,x_max,y_max",
    "a.png,Mass,0.9,512,256,1024,768",
    "b.png,Effusion,0.8,0,0,256,512",
)


def read(path: Path, content: str | bytes):
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_bytes(content)
    return read_files([path], CLASSES)


def test_delimiters_encodings_and_line_ends(tmp_path):
    plain = "\n".join(LINES) + "\n"
    expected = [("a.png", "Mass", (0.5, 0.25, 1.0, 0.75), 0.9), ("b.png", "Effusion", (0.0, 0.0, 0.25, 0.5), 0.8)]
    for text in (
        plain,
        plain.replace(",", ";"),
        plain.replace(",", "\t"),
        plain.replace(",", ";").replace("0.", "0,"),
        plain.replace("\n", "\r\n"),
        "\ufeff" + plain,
        plain.encode("utf-16"),
        plain.replace("image", "Image ID").replace("class", "class_name").replace("x_min", " X_MIN "),
        plain.replace("1024", '"1,024"'),
        "Unnamed: 0," + "\n".join(f"{n},{line}" if n else line for n, line in enumerate(plain.splitlines())),
    ):
        found = read(tmp_path / "boxes.csv", text)
        assert [(r.image, r.class_name, r.xyxy, r.score) for r in found.regions] == expected, text


def test_rows_without_a_box_name_their_image(tmp_path):
    """RSNA and VinDr have a row for each image without a finding."""
    text = (
        "image,class,score,x,y,width,height\na.png,Mass,0.5,0,0,512,512\nb.png,No finding,,,,,\nc.png,Effusion,,,,,\n"
    )
    found = read(tmp_path / "boxes.csv", text)
    assert list(found.images) == ["a.png", "b.png", "c.png"]
    assert list(found.region_classes) == ["Mass", "Effusion"]
    assert [r.xyxy for r in found.regions] == [(0, 0, 0.5, 0.5)]
    assert found.notes == ["rows of boxes.csv without a box, no region on their images: 2"]


def test_columns_of_boxes_are_never_dropped_in_silence(tmp_path):
    found = read(tmp_path / "boxes.csv", "image,class,x1,y1,x2,y2,w,h\na.png,Mass,0,0,512,512,512,512\n")
    assert found.notes == ["boxes of boxes.csv are read from x1, y1, x2, y2; not read: w, h"]
    for header, message in (
        ("image,class,score,x1,y1", r"boxes.csv: columns x1, y1 of a box, but not x2, y2; add them"),
        ("image,class,score,bbox", "boxes.csv: column 'bbox' holds whole boxes"),
        ("image,x1,y1,x2,y2,Mass", r"has boxes \(x1, y1, x2, y2\) but no column 'class'"),
    ):
        with pytest.raises(CxrfastError, match=message):
            read(tmp_path / "boxes.csv", f"{header}\na.png,Mass,0.5,1,2,3\n")


def test_sides_are_not_taken_for_the_size_of_the_image(tmp_path):
    text = "image,class,xmin,ymin,xmax,ymax,width,height\na.png,Mass,9,9,29,39,20,30\nb.png,Mass,0,0,50,50,50,50\n"
    with pytest.raises(CxrfastError, match="width and height are the sides of every box, not of the image; remove"):
        read(tmp_path / "boxes.csv", text)
    whole = "image,class,xmin,ymin,xmax,ymax,width,height\na.png,Mass,0,0,20,30,20,30\n"
    assert read(tmp_path / "boxes.csv", whole).regions[0].xyxy == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,class,x,y,w,h\na.png,Mass,1,1,,5\n",
            "line 2: box is x 1, y 1, w empty, h 5, expected four finite numbers",
        ),
        (
            "image,class,x,y,w,h,width,height\na.png,Mass,1,1,5,5,,9\n",
            "line 2: the width or height of the image is empty",
        ),
        ("image,class,score\na.png,Mass,0.5,7\n", "line 2: 4 fields, expected 3 as in the header; quote"),
        ("image,class,score\na.png,Mass,high\n", "line 2: 'high' is no number"),
        ("image,Mass,mass\na.png,0.5,0.1\n", "column 'Mass' or 'mass'. Call the one with the scores prob_Mass"),
        ("image,Effusion,Pleural Effusion\na.png,0.5,0.1\n", "column 'Effusion' or 'Pleural Effusion'."),
        ("image,label_effusion,Pleural Effusion\na.png,1,0.1\n", "column 'Pleural Effusion' or 'label_effusion'."),
        (
            "image,Edema,Hernia\na.png,0.5,0.1\n",
            "no column 'class', nor one for each class; its columns are image, Edema",
        ),
    ],
)
def test_errors(text, message, tmp_path):
    with pytest.raises(CxrfastError, match=message):
        read(tmp_path / "p.csv", text)


def test_one_column_for_each_class_of_the_data_set(tmp_path):
    """Classes are those of the data set, by any of their names; one may be part of another's name."""
    text = (
        "filename,Pleural Effusion,pleural thickening,Fracture,Rib_Fracture,Nodule,age\na.png,0.1,0.2,0.3,0.4,0.5,58\n"
    )
    found = read(tmp_path / "wide.csv", text)
    assert found.scores == {
        ("a.png", "Pleural Effusion"): 0.1,
        ("a.png", "pleural thickening"): 0.2,
        ("a.png", "Fracture"): 0.3,
        ("a.png", "Rib_Fracture"): 0.4,
    }
    assert found.notes == ["columns of wide.csv that are not read: Nodule, age"]
    named = read(tmp_path / "prob.csv", "image;Prob_Mass;Mass\na.png;0,5;1\n")
    assert named.scores == {("a.png", "Mass"): 0.5}
