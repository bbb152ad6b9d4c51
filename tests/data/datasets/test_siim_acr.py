"""SIIM-ACR as released: one row for each mask, run lengths relative to each other, DICOM in folders of studies."""

import numpy as np
import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import read_data
from cxrfast.data.datasets.siim_acr import SIDE, read_siim_acr
from cxrfast.errors import CxrfastError
from tests.data.datasets.files import write_dicom, write_png

UID = "1.2.276.0.7230010.3.1.4.8323329.{}.1517875252.443873"
EXAMPLE = "387620 23 996 33 986 43 977 51 968 58 962 65 956 70 952 74 949 76 946 79"  # as the challenge prints it


def name(n):
    return UID.format(n)


def encode(mask):
    """Relative run lengths of a mask [y, x], pixel by pixel down the columns."""
    numbers, end, run = [], 0, 0
    for place, inside in enumerate([*mask.T.ravel().tolist(), False]):
        if inside:
            run += 1
        elif run:
            numbers += [place - run - end, run]
            end, run = place, 0
    return " ".join(map(str, numbers))


def rectangle(x1, y1, x2, y2):
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def write(root, rows, *, header="ImageId, EncodedPixels", table="train-rle.csv", images=True, suffix=".dcm"):
    root.mkdir(parents=True, exist_ok=True)
    (root / table).write_text("\n".join([header, *(f"{n}, {text}" for n, text in rows)]) + "\n")
    if images:
        for n, _ in dict(rows).items():
            folder = root / "dicom-images-train" / n.replace("4.8323329", "2.8323329") / n.replace("4.83", "3.83")
            (write_dicom if suffix == ".dcm" else write_png)(folder / (n + suffix))
    return root


ROWS = [
    (name(1), "-1"),
    (name(2), encode(rectangle(512, 256, 768, 512))),
    (name(3), encode(rectangle(0, 0, 64, 1024))),  # whole columns: one run
    (name(3), encode(rectangle(1000, 1000, 1024, 1024))),
    (name(4), EXAMPLE),
]


def test_the_released_layout(tmp_path):
    source = read_data(write(tmp_path / "siim", ROWS))
    assert (source.layout, source.class_names, source.grouping) == ("siim-acr", ("Pneumothorax",), "image")
    by_name = {record.patient: record for record in source.records}
    assert [len(record.boxes) for record in source.records] == [0, 1, 1, 1]
    assert [record.label("Pneumothorax") for record in source.records] == [0, 1, 1, 1]
    assert by_name[name(2)].boxes["Pneumothorax"] == ((0.5, 0.25, 0.75, 0.5),)
    assert by_name[name(3)].boxes["Pneumothorax"] == ((0, 0, 1 / 16, 1), (1000 / 1024, 1000 / 1024, 1, 1))
    for record in source.records:
        assert record.path == source.root / record.image
        assert record.path.is_file()
        assert record.image.startswith("dicom-images-train/")
    assert any("the tables name no patients: splits are by image" in note for note in source.notes)
    assert "images read from train-rle.csv: 4; each mask is its bounding box" in source.notes


def test_run_lengths_are_relative(tmp_path):
    """The example of the challenge, drawn step by step."""
    mask, position = np.zeros(SIDE * SIDE, dtype=bool), 0
    numbers = list(map(int, EXAMPLE.split()))
    for distance, length in zip(numbers[::2], numbers[1::2], strict=True):
        mask[position + distance : position + distance + length] = True
        position += distance + length
    rows, columns = np.nonzero(mask.reshape(SIDE, SIDE).T)
    expected = (columns.min() / SIDE, rows.min() / SIDE, (columns.max() + 1) / SIDE, (rows.max() + 1) / SIDE)
    (record,) = read_data(write(tmp_path, [(name(4), EXAMPLE)])).records
    assert record.boxes["Pneumothorax"] == (expected,)
    assert encode(mask.reshape(SIDE, SIDE).T) == EXAMPLE


def test_random_masks(tmp_path):
    rng = np.random.default_rng(0)
    rows, expected = [], []
    for n in range(6):
        x1, y1 = rng.integers(0, 1000, 2)
        x2, y2 = x1 + rng.integers(1, 1025 - x1), y1 + rng.integers(1, 1025 - y1)
        mask = rectangle(x1, y1, x2, y2) & (rng.random((SIDE, SIDE)) < 0.5)
        mask[y1, x1] = mask[y2 - 1, x2 - 1] = True
        rows.append((name(n), encode(mask)))
        expected.append(((x1 / SIDE, y1 / SIDE, x2 / SIDE, y2 / SIDE),))
    records = read_data(write(tmp_path, rows)).records
    assert [record.boxes["Pneumothorax"] for record in records] == expected


def test_copies_and_tables_saved_again(tmp_path):
    """PNG copies beside masks of the same names; the second stage's table; an index column, semicolons, CRLF."""
    root = tmp_path / "copy"
    write(root, ROWS, header="ImageId,EncodedPixels", table="stage_2_train.csv", images=False)
    for n in dict(ROWS):
        write_png(root / "png_images" / f"{n}.PNG")
        write_png(root / "png_masks" / f"{n}.png")
    first = read_data(root)
    assert [record.image for record in first.records] == [f"png_images/{n}.PNG" for n in dict(ROWS)]
    text = (root / "stage_2_train.csv").read_text().replace("-1", "-1.0").replace(", ", ",").splitlines()
    numbered = [f"{n - 1 if n else ''};{line.replace(',', ';')}" for n, line in enumerate(text)]
    (root / "stage_2_train.csv").write_bytes(("\ufeff" + "\r\n".join(numbered) + "\r\n").encode())
    again = read_data(root)
    assert again.records == first.records


def test_missing_images_and_unknown_labels(tmp_path):
    root = write(tmp_path, ROWS, suffix=".png")
    with (root / "train-rle.csv").open("a") as file:
        file.write(f"{name(5)}, -1\n{name(6)},\n{name(1)}, -1\n{name(4)}, {EXAMPLE}\n")
    write_png(root / "dicom-images-train" / "other.png")
    write_png(root / "dicom-images-train" / f"{name(6)}.png")
    source = read_data(root)
    assert [record.patient for record in source.records] == [name(n) for n in (1, 2, 3, 4, 6)]
    assert np.isnan(source.records[-1].label("Pneumothorax"))
    for note in (
        f"images of train-rle.csv without a file, left out: 1 (first: {name(5)})",
        "image files that are not in train-rle.csv, left out: 1 (first: dicom-images-train/other.png)",
        "rows listed twice, taken once: 2",
        "images with an empty 'EncodedPixels', unknown: 1",
    ):
        assert note in source.notes, note
    everything = read_data(root, DataOptions(images_required=False))
    assert len(everything.records) == 6
    assert sum("Pneumothorax" in record.labels for record in everything.records) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(name(1), "5 2 7")], r"train-rle.csv, line 2: 'EncodedPixels' of .* has 3 numbers, expected pairs"),
        ([(name(1), "5 x")], "line 2: .* is '5 x', expected -1 or pairs of whole numbers"),
        ([(name(1), "5 0")], "line 2: .* has a run of distance 5 and length 0, expected at least 0 and 1"),
        ([(name(1), "5 3 -4 9")], "line 2: .* a run of distance -4 and length 9"),
        ([(name(1), "1048575 2")], "line 2: .* ends at pixel 1048577, expected at most 1048576; distances are from"),
        ([(name(1), "1 99999999999999")], "line 2: .* expected at most 1048576"),
        ([(name(1), "-1"), (name(1), "5 3")], "line 3: image .* has 'EncodedPixels' '5 3', but other rows contradict"),
        ([("", "-1")], "line 2: 'ImageId' is empty"),
        ([], "train-rle.csv has no rows"),
    ],
)
def test_damaged_tables(rows, message, tmp_path):
    with pytest.raises(CxrfastError, match=message):
        read_data(write(tmp_path, rows, images=False))


def test_nothing_to_read(tmp_path):
    with pytest.raises(CxrfastError, match="no stage_2_train.csv or train-rle.csv in"):
        read_siim_acr(tmp_path)
    root = write(tmp_path, ROWS, images=False)
    with pytest.raises(
        CxrfastError, match="none of the 4 images of .*train-rle.csv was found in .*dicom-images-train/"
    ):
        read_data(root)
    (root / "train-rle.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CxrfastError, match="has no layout that is known"):
        read_data(root)
