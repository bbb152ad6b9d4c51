"""Boxes of manifests: columns, units and frames."""

import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import read_data
from cxrfast.errors import CxrfastError
from tests.data.datasets.formats.manifests import NAN, labels, same, write

BOXED = ("image,patient,Mass,Edema", "a.png,1,1,0", "b.png,2,0,0", "sub/c.png,3,,")


@pytest.mark.parametrize(
    ("header", "numbers"),
    [
        ("x,y,w,h", "10,5,20,10"),
        ("x,y,width,height", "10,5,20,10"),
        ("x_min,y_min,x_max,y_max", "10,5,30,15"),
        ("xmin,ymin,xmax,ymax", "10.0,5.0,30.0,15.0"),
        ("X1,Y1,X2,Y2", "10,5,30,15"),
        ("left,top,right,bottom", "10,5,30,15"),
        ("left,top,width,height", "10,5,20,10"),
        ("cx,cy,w,h", "20,10,20,10"),
        ("x_min,y_min,x_max,y_max", "0.25,0.25,0.75,0.75"),
        ("x,y,w,h", "0.25,0.25,0.5,0.5"),
        ("x,y,w,h,image_width,image_height", "100,50,200,100,400,200"),
        ("x,y,width,height,frame_width,frame_height", "256,256,512,512,1024,1024"),
        ("xmin,ymin,xmax,ymax,width,height", "100,50,300,150,400,200"),
        ("xmin,ymin,xmax,ymax,width,height", "10,5,30,15,20,10"),
        ("x,y,w,h,width,height", "100,50,200,100,400,200"),
    ],
)
def test_boxes_beside(folder, header, numbers):
    write(folder, *BOXED)
    write(folder, f"image,label,{header}", f"a.png,mass,{numbers}", name="boxes.csv")
    source = read_data(folder)
    assert source.records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)}
    assert all(not record.boxes for record in source.records[1:])
    assert source.class_notes == ["boxes.csv: class names matched: mass = Mass"]
    assert any(note.startswith("boxes in boxes.csv: 1,") for note in source.notes)


def test_box_makes_its_class_present_unless_told_otherwise(folder):
    write(folder, *BOXED)
    write(folder, "image,label,x,y,w,h", "sub/c.png,Edema,10,5,20,10", "lost.png,Mass,1,1,5,5", name="boxes.csv")
    source = read_data(folder)
    same(labels(source), {"a.png": [1, 0], "b.png": [0, 0], "sub/c.png": [NAN, 1]})
    assert any("boxes of a class that their image's labels lack, taken as positive: 1" in note for note in source.notes)
    assert any("not in the manifest, boxes left out: 1 (first: lost.png)" in note for note in source.notes)
    source = read_data(folder, DataOptions(boxes_imply_labels=False))
    same(labels(source), {"a.png": [1, 0], "b.png": [0, 0], "sub/c.png": [NAN, NAN]})


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("x,y,w,h", ["0,0,1,1"], "line 2: .*only 0 and 1: fractions or pixels"),
        ("x,y,w,h", ["10,5,20,10", "0.1,0.1,0.5,0.5"], "line 3: .*looks like fractions, but that of line 2 does not"),
        (
            "x,y,w,h",
            ["30,5,20,10"],
            r"line 2: box \[30, 5, 50, 15\] lies outside its image of 40×20 .*state that in frame_width",
        ),
        ("x,y,w,h", ["10,5,0,10"], "line 2: .*has no area"),
        ("x,y,w,h", ["10,5,ten,10"], "line 2: .*expected four finite numbers"),
        ("x,y,w,h", ["10,5,,10"], "line 2: .*or four empty cells"),
        ("xmin,ymin,xmax,ymax", ["0.5,0.5,0.2,0.9"], "line 2: .*has no area"),
        ("xmin,ymin,xmax,ymax,width,height", ["0,0,20,10,20,10"], "line 2: width and height may be the sides"),
        ("x,y,w,h,x1,y1,x2,y2", ["1,1,2,2,1,1,3,3"], "columns x1, y1, x2, y2 and x, y, w, h both hold boxes; keep one"),
        ("bbox", ["[1 2 3 4]"], "column 'bbox' holds whole boxes; write columns"),
        ("a,b,c,d", ["1,1,2,2"], "has no column of boxes"),
        ("x1,y1,x2", ["1,1,2"], "columns x1, y1, x2 of a box, but not y2; add them"),
    ],
)
def test_boxes_that_are_refused(folder, header, rows, message):
    write(folder, *BOXED)
    write(folder, f"image,label,{header}", *(f"a.png,Mass,{row}" for row in rows), name="boxes.csv")
    with pytest.raises(CxrfastError, match=message):
        read_data(folder)


@pytest.mark.parametrize(
    ("rows", "box"),
    [
        (["1,024;512;2,048;1024"], (0.25, 0.25, 0.75, 0.75)),
        (["10,5;5,5;20;10"], (10.5 / 4096, 5.5 / 2048, 30.5 / 4096, 15.5 / 2048)),
        (["0,125;0,25;0,5;0,5"], (0.125, 0.25, 0.625, 0.75)),
    ],
)
def test_commas_in_numbers(folder, rows, box):
    write(folder, "image;frame_width;frame_height;Mass", "a.png;4,096;2048;1,0")
    write(folder, "image;label;x;y;w;h", *(f"a.png;Mass;{row}" for row in rows), name="boxes.csv")
    assert read_data(folder).records[0].boxes == {"Mass": (box,)}
    write(folder, "image;label;x;y;w;h", "a.png;Mass;1,024;1,512;2,048;1,024", name="boxes.csv")
    with pytest.raises(CxrfastError, match="line 2: '1,024' may be a thousand or a fraction"):
        read_data(folder)


def test_boxes_of_unknown_class_and_conflicting_size_are_refused(folder):
    write(folder, *BOXED)
    write(folder, "image,label,x,y,w,h", "a.png,Mas,1,1,5,5", name="boxes.csv")
    with pytest.raises(
        CxrfastError, match=r"line 2: class 'Mas' of a box is no column of the manifest \(Mass, Edema\)"
    ):
        read_data(folder)
    write(folder, "image,width,height,Mass", "a.png,400,200,1", "b.png,40,20,0")
    write(folder, "image,label,x,y,w,h", "a.png,Mass,1,1,5,5", name="boxes.csv")
    with pytest.raises(CxrfastError, match="whose file has 40×20 pixels and whose row says 400×200"):
        read_data(folder)
    write(folder, "image,frame_width,frame_height,Mass", "a.png,400,200,1", "b.png,400,200,0")
    write(folder, "image,label,x,y,w,h", "a.png,Mass,100,50,200,100", name="boxes.csv")
    assert read_data(folder).records[0].boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)}


def test_clipped_and_repeated_boxes_are_said(folder):
    write(folder, *BOXED)
    row = "a.png,Mass,30,10,10.5,10"
    write(folder, "image,label,x,y,w,h", row, row, name="boxes.csv")
    source = read_data(folder)
    assert source.records[0].boxes == {"Mass": ((0.75, 0.5, 1.0, 1.0),)}
    assert any("boxes that extend a little beyond their image, clipped: 2" in note for note in source.notes)
    assert any("repeated boxes, used once: 1" in note for note in source.notes)


def test_boxes_in_the_rows(folder):
    write(
        folder,
        "image_id,class_name,class_id,x_min,y_min,x_max,y_max",
        "a.png,Mass,5,10,5,30,15",
        "a.png,Mass,5,0,0,4,2",
        "a.png,Nodule/Mass,8,20,10,40,20",
        "b.png,No finding,14,,,,",
        "sub/c.png,Mass,5,,,,",
    )
    source = read_data(folder)
    assert source.class_names == ("Mass", "Nodule/Mass")
    same(labels(source), {"a.png": [1, 1], "b.png": [0, 0], "sub/c.png": [1, 0]})
    assert source.records[0].boxes == {
        "Mass": ((0.25, 0.25, 0.75, 0.75), (0, 0, 0.1, 0.1)),
        "Nodule/Mass": ((0.5, 0.5, 1, 1),),
    }
    write(folder, "image,class,x,y,w,h", "a.png,,1,1,5,5")
    with pytest.raises(CxrfastError, match="line 2: the box of image a.png has no class"):
        read_data(folder)
    write(folder, "image,class,x,y,w,h", "a.png,No finding,1,1,5,5")
    with pytest.raises(CxrfastError, match="line 2: the box of image a.png has no class"):
        read_data(folder)


def test_boxes_are_the_only_labels(folder):
    write(folder, "image,patient", "a.png,1", "b.png,2", "sub/c.png,3")
    write(folder, "image,label,x,y,w,h", "a.png,Mass,10,5,20,10", "b.png,No finding,,,,", name="boxes.csv")
    source = read_data(folder)
    assert source.class_names == ("Mass",)
    same(labels(source), {"a.png": [1], "b.png": [0], "sub/c.png": [NAN]})
    write(folder, "image,label,x,y,w,h", "a.png,Mass,10,5,20,10", "a.png,No finding,,,,", name="boxes.csv")
    with pytest.raises(CxrfastError, match="line 3: image a.png has no finding here, but Mass elsewhere"):
        read_data(folder)


def test_parts_of_a_box_in_a_manifest_are_other_columns(folder):
    source = read_data(write(folder, "image,w,h,left,right,Mass", "a.png,400,200,0,1,1", "b.png,300,200,1,0,0"))
    assert source.class_names == ("left", "right", "Mass")
    assert not any(record.boxes for record in source.records)
