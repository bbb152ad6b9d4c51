"""Columns of boxes under the names that people use, and those that must be refused by name."""

import pytest

from cxrfast.data.tables.box_columns import BoxColumns, column_key

BOX = (100.0, 200.0, 400.0, 450.0)  # x1, y1, x2, y2
SIDES = (100.0, 200.0, 300.0, 250.0)
CENTRE = (250.0, 325.0, 300.0, 250.0)

NAMES = {
    "x1,y1,x2,y2": BOX,
    "X1,Y1,X2,Y2": BOX,
    "x_min,y_min,x_max,y_max": BOX,
    "xmin,ymin,xmax,ymax": BOX,
    "Left,Top,Right,Bottom": BOX,
    "x0,y0,x1,y1": BOX,
    "xtl,ytl,xbr,ybr": BOX,
    "x,y,w,h": SIDES,
    "x,y,width,height": SIDES,
    "left,top,width,height": SIDES,
    "x_min,y_min,width,height": SIDES,
    "Bbox [x,y,w,h]": SIDES,
    "bbox_x,bbox_y,bbox_w,bbox_h": SIDES,
    "bbox_x,bbox_y,bbox_width,bbox_height": SIDES,
    "bbox_x1,bbox_y1,bbox_x2,bbox_y2": BOX,
    "bbox_xmin,bbox_ymin,bbox_xmax,bbox_ymax": BOX,
    "x_center,y_center,width,height": CENTRE,
    "cx,cy,w,h": CENTRE,
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("order", [1, -1])
def test_a_box_is_found_by_any_of_its_names(names, order):
    header = ["image", *names.split(","), "score"][::order]
    row = ["a.png", *map(str, NAMES[names]), "0.5"][::order]
    columns = BoxColumns.among(header)
    assert columns is not None
    assert columns.read(row, float) == (BOX, None)
    assert columns.unused == ()


@pytest.mark.parametrize(
    ("header", "kind", "size", "unused"),
    [
        ("x,y,w,h,width,height", "sides", (4, 5), ()),
        ("x1,y1,x2,y2,width,height", "corners", (4, 5), ()),
        ("width,height,x1,y1,x2,y2", "corners", (0, 1), ()),
        ("x,y,width,height,image_width,image_height", "sides", (4, 5), ()),
        ("xmin,ymin,xmax,ymax,width,height,image_width,image_height", "corners", (6, 7), ("width", "height")),
        ("x1,y1,x2,y2,w,h", "corners", None, ("w", "h")),
        ("x1,y1,x2,y2,x", "corners", None, ("x",)),
        ("x0,y0,x1,y1,width,height", "corners", (4, 5), ()),
        ("x,y,w,h,frame_width,frame_height", "sides", (4, 5), ()),
    ],
)
def test_width_and_height_are_sides_only_without_others(header, kind, size, unused):
    columns = BoxColumns.among(header.split(","))
    assert columns is not None
    assert (columns.kind, columns.size) == (kind, size)
    assert sorted(columns.unused) == sorted(unused)
    assert columns.uses_width == ("x,y,width" in header)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,x1,y1,x2", "columns x1, y1, x2 of a box, but not y2; add them"),
        ("image,X_min,Y_min,class", "columns X_min, Y_min of a box, but not xmax, ymax"),
        ("image,x,y", "columns x, y of a box, but not w, h"),
        ("image,x,y,width", "columns x, y of a box, but not"),
        ("image,bbox", "column 'bbox' holds whole boxes; write columns x1, y1, x2, y2"),
        ("image,PredictionString", "column 'PredictionString' holds whole boxes"),
        ("x1,y1,x2,y2,xmin,ymin,xmax,ymax", "columns x1, y1, x2, y2 and xmin, ymin, xmax, ymax both hold boxes"),
        ("x_min,y_min,x_max,y_max,x,y,w,h", "both hold boxes; keep one"),
        ("x1,y1,x2,y2,width", "one of the columns width and height of the image is missing"),
    ],
)
def test_what_is_no_clear_box_is_refused_by_name(header, message):
    with pytest.raises(ValueError, match=message):
        BoxColumns.among(header.split(","))


@pytest.mark.parametrize("header", ["image,class,prob,boxes", "image,width,height,Mass", "image,x", ""])
def test_other_columns_are_no_box(header):
    assert BoxColumns.among(header.split(",")) is None


@pytest.mark.parametrize("header", ["image,w,h", "image,left,right", "image,x1,y1,x2"])
def test_parts_of_a_box_may_be_other_columns(header):
    assert BoxColumns.among(header.split(","), refuse_parts=False) is None
    with pytest.raises(ValueError, match="of a box, but not"):
        BoxColumns.among(header.split(","))


def test_empty_cells():
    columns = BoxColumns.among(["x", "y", "w", "h", "width", "height"])

    def number(cell):
        return float(cell) if cell else None

    assert columns is not None
    assert columns.read(["", "", "", "", "5", "6"], number) == (None, (5.0, 6.0))
    assert columns.read(["1", "1", "2", "2", "", "6"], number) == ((1, 1, 3, 3), None)
    with pytest.raises(
        ValueError, match="box is x 1, y empty, w 2, h 2, expected four finite numbers or four empty cells"
    ):
        columns.read(["1", "", "2", "2", "5", "6"], number)


def test_column_key():
    assert column_key(" X_Min ") == column_key("xmin") == "xmin"
    assert column_key("h]") == "h"
