"""PASCAL VOC in its own folders and as annotation programs write it, and every way to spoil it."""

import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import choose_layout, read_data
from cxrfast.errors import CxrfastError


def xml(file_name="a.jpg", objects=(), size=(40, 20)):
    parts = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
        + ("" if box is None else "<bndbox>{}</bndbox>".format("".join(f"<{k}>{v}</{k}>" for k, v in box)))
        + "<part><name>inner</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, box, difficult in objects
    )
    width, height = size
    return (
        f"<annotation>\n<folder>x</folder><filename>{file_name}</filename><path>C:\\x\\{file_name}</path>"
        f"<size><width>{width}</width><height>{height}</height><depth>1</depth></size><segmented>0</segmented>"
        f"{parts}</annotation>\n"
    )


def box(xmin, ymin, xmax, ymax):
    # some programs write xmax before ymin: fields are found by name
    return (("xmin", xmin), ("xmax", xmax), ("ymin", ymin), ("ymax", ymax))


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


@pytest.fixture
def folder(tmp_path, make_image):
    for stem in "abc":
        make_image(f"JPEGImages/{stem}.jpg")
    write(
        tmp_path, "Annotations/a.xml", xml("a.jpg", [("Mass", box(11, 6, 30, 15), 0), ("Edema", box(1, 1, 40, 20), 1)])
    )
    write(tmp_path, "Annotations/b.xml", xml("b.jpg"))
    write(tmp_path, "Annotations/c.xml", xml("other.jpg", [("mass", box("21.0", "11.0", "40.0", "20.0"), 0)]))
    for part, names in {"train": "a\n", "val": "b\n", "trainval": "a\nb\n", "test": "c\n"}.items():
        write(tmp_path, f"ImageSets/Main/{part}.txt", names)
    write(tmp_path, "ImageSets/Main/Mass_train.txt", "a  1\nb -1\n")
    return tmp_path


def labels(source):
    return {r.image: [r.label(name) for name in source.class_names] for r in source.records}


def test_boxes_labels_and_parts(folder):
    source = read_data(folder)
    assert source.layout == "voc"
    assert source.class_names == ("Mass", "Edema")
    assert labels(source) == {"JPEGImages/a.jpg": [1, 1], "JPEGImages/b.jpg": [0, 0], "JPEGImages/c.jpg": [1, 0]}
    assert source.records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),), "Edema": ((0.0, 0.0, 1.0, 1.0),)}
    assert source.records[2].boxes == {"Mass": ((0.5, 0.5, 1.0, 1.0),)}
    assert [record.split for record in source.records] == ["train", "val", "test"]
    assert source.class_notes == ["class names matched: mass = Mass"]
    for text in ("boxes count pixels from 1", "objects marked difficult, kept: 1", "splits are by image"):
        assert any(text in note for note in source.notes), text


def test_trainval_alone(folder):
    for part in ("train", "val"):
        (folder / f"ImageSets/Main/{part}.txt").unlink()
    assert [record.split for record in read_data(folder).records] == ["train_val", "train_val", "test"]


def test_coordinates_from_zero_are_said(folder):
    write(folder, "Annotations/b.xml", xml("b.jpg", [("Mass", box(0, 5, 20, 15), 0)]))
    source = read_data(folder)
    assert source.records[1].boxes == {"Mass": ((0.0, 0.25, 0.5, 0.75),)}
    assert source.records[2].boxes == {"Mass": ((21 / 40, 11 / 20, 1.0, 1.0),)}
    assert any("count from 0" in note for note in source.notes)


def test_files_beside_the_images(tmp_path, make_image):
    for part in ("train", "valid", "test"):
        make_image(f"{part}/a.jpg")
        write(tmp_path, f"{part}/a.xml", xml("a.jpg", [("Mass", box(11, 6, 30, 15), 0)]))
    source = read_data(tmp_path)
    parts = {record.image: record.split for record in source.records}
    assert parts == {"train/a.jpg": "train", "valid/a.jpg": "val", "test/a.jpg": "test"}
    assert all(record.boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)} for record in source.records)


def test_no_finding_image_labels_and_sizes(folder):
    write(folder, "Annotations/b.xml", xml("b.jpg", [("No finding", None, 0)]))
    write(folder, "Annotations/c.xml", xml("c.jpg", [("Edema", None, 0)], size=(0, 0)))
    write(folder, "Annotations/a.xml", xml("a.jpg", [("Mass", box(11, 6, 30, 15), 0)], size=("", "")), "utf-16")
    source = read_data(folder)
    assert labels(source) == {"JPEGImages/a.jpg": [1, 0], "JPEGImages/b.jpg": [0, 0], "JPEGImages/c.jpg": [0, 1]}
    assert source.records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)}
    assert any("objects without a box, labels of the whole image: 1" in note for note in source.notes)


def test_resized_copies_use_the_stated_size(folder, make_image):
    write(folder, "Annotations/a.xml", xml("a.jpg", [("Mass", box(101, 51, 300, 150), 0)], size=(400, 200)))
    assert read_data(folder).records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)}


def test_missing_and_extra_images(folder, make_image):
    make_image("JPEGImages/extra.jpg")
    (folder / "JPEGImages/b.jpg").unlink()
    source = read_data(folder)
    assert len(source.records) == 2
    for text in (
        "images of the XML files without a file, left out: 1 (first: b.jpg)",
        "image files that are not in the XML files, left out: 1",
        "XML files: 3; with an image: 2",
    ):
        assert any(text in note for note in source.notes), text
    assert len(read_data(folder, DataOptions(images_required=False)).records) == 3
    for name in ("a", "c", "extra"):
        (folder / f"JPEGImages/{name}.jpg").unlink()
    with pytest.raises(CxrfastError, match="none of its 3 images was found"):
        read_data(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", r"a\.xml, line 1: not XML"),
        ('<!DOCTYPE a [<!ENTITY x "y">]>\n<annotation>&x;</annotation>', "has a DOCTYPE"),
        ("<!-- <annotation --><boxes/>", "the root is <boxes>"),
        (xml(objects=[("", None, 0)]), "object 1 has no name"),
        (xml(objects=[("Mass", box(1, 1, "ten", 5), 0)]), "the box of object 1 .*'ten'"),
        (xml(objects=[("Mass", box(1, 1, "", 5), 0)]), "the box of object 1"),
        (xml(objects=[("Mass", box(9, 1, 3, 5), 0)]), r"a\.xml, object 1: box .* has no area"),
        (xml(objects=[("Mass", box(9, 1, 60, 5), 0)]), r"a\.xml, object 1: box .* lies outside its image of 40×20"),
        (xml(objects=[("Mass", None, 0), ("No Finding", None, 0)]), "object 2: no finding beside Mass"),
        (xml(size=("wide", 3)), "the size is .*'wide'"),
    ],
)
def test_what_is_refused(folder, text, message):
    write(folder, "Annotations/a.xml", text)
    with pytest.raises(CxrfastError, match=message):
        read_data(folder)


def test_utf16_cannot_hide_a_doctype(folder):
    write(folder, "Annotations/a.xml", '<!DOCTYPE a [<!ENTITY x "y">]>\n<annotation>&x;</annotation>', "utf-16")
    with pytest.raises(CxrfastError, match="has a DOCTYPE"):
        read_data(folder)


def test_lists_that_contradict_each_other(folder):
    write(folder, "ImageSets/Main/test.txt", "b\n")
    with pytest.raises(CxrfastError, match=r"test\.txt, line 1: b is in val\.txt too"):
        read_data(folder)
    write(folder, "ImageSets/Main/test.txt", "c\nlost\n")
    assert any(
        "names of ImageSets/Main without an XML file, left out: 1 (first: lost)" in note
        for note in read_data(folder).notes
    )


def test_two_files_of_one_image(folder):
    write(folder, "Annotations/d.xml", xml("a.jpg"))
    with pytest.raises(
        CxrfastError, match=r"d\.xml: its image JPEGImages/a\.jpg is that of .*a\.xml too|the same file"
    ):
        read_data(folder)


def test_other_xml_is_not_taken(tmp_path, make_image):
    make_image("a.png")
    write(tmp_path, "a.xml", "<report><text/></report>")
    with pytest.raises(CxrfastError, match="no layout that is known"):
        choose_layout(tmp_path)
