"""`predictions.csv`: rows are paired by the image and class that they name, never by where they stand."""

import csv
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrfast.errors import CxrfastError
from cxrfast.predictions.table import Predictions, concatenate, read_predictions

CLASSES = ("Cardiomegaly", "Mass", "Something else")
IMAGES = ("10.png", "2.png", "a/1.png", "a/10.png", "b,c.png")


def predictions() -> Predictions:
    n, k = len(IMAGES), len(CLASSES)
    values = torch.arange(n * k, dtype=torch.float32).view(n, k) / 100
    labels = torch.tensor([1.0, 0.0, math.nan]).repeat(n, 1)
    overlap = torch.where(labels == 1, values.double(), torch.nan)
    return Predictions(
        CLASSES,
        list(IMAGES),
        [f"patient {n // 2}" for n in range(n)],
        prob=values,
        labels=labels,
        n_boxes=(labels == 1).long(),
        iou=overlap,
        ior=overlap / 2,
        prob_calibrated=values.double() / 2,
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "predictions.csv"
    predictions().write_csv(path)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def require_same(found: Predictions, expected: Predictions) -> None:
    assert found.class_names == expected.class_names
    assert (found.images, found.patients) == (expected.images, expected.patients)
    for name in ("prob", "labels", "n_boxes", "iou", "ior", "prob_calibrated"):
        written = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(*written, equal_nan=True, rtol=1e-5, atol=0)  # overlaps are written with six digits


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_any_order_of_the_rows_gives_the_same_predictions(rows, tmp_path_factory, seed):
    shuffled = rows[1:]
    random.Random(seed).shuffle(shuffled)
    found = read_predictions(write(tmp_path_factory.mktemp("shuffled") / "p.csv", [rows[0], *shuffled]))
    require_same(found, predictions())


def test_each_column_as_a_spreadsheet_would_sort_by_it(rows, tmp_path):
    for column in range(len(rows[0])):
        for backwards in (False, True):
            ordered = sorted(rows[1:], key=lambda row: row[column], reverse=backwards)
            require_same(read_predictions(write(tmp_path / "p.csv", [rows[0], *ordered])), predictions())


def test_a_missing_and_a_doubled_pair_are_named(rows, tmp_path):
    without = [row for row in rows if (row[0], row[2]) != ("2.png", "Mass")]
    with pytest.raises(CxrfastError, match=r"has no row of image 2\.png and class Mass; evaluate again"):
        read_predictions(write(tmp_path / "p.csv", without))
    with pytest.raises(CxrfastError, match=r"has two rows of image 10\.png and class Cardiomegaly; evaluate again"):
        read_predictions(write(tmp_path / "p.csv", [*rows, rows[1]]))
    # As many rows as pairs: one is missing and another one is there twice
    with pytest.raises(CxrfastError, match="has two rows"):
        read_predictions(write(tmp_path / "p.csv", [*without, rows[1]]))


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("patient", "another", "image 10.png belongs to patient another and to patient 0"),
        ("prob", "1.5", "expected prob from 0 to 1, got 1.5"),
        ("prob", "inf", "expected prob from 0 to 1, got inf"),
        ("label", "-1", "expected label from 0 to 1, got -1"),
        ("boxes", "", "expected whole numbers of boxes, got nan"),
        ("boxes", "1e30", "expected whole numbers of boxes, got 1e+30"),
        ("iou", "-0.1", "expected iou from 0 to 1, got -0.1"),
        ("ior", "x", "could not convert"),
    ],
)
def test_impossible_values_are_refused(rows, tmp_path, column, value, problem):
    changed = [list(row) for row in rows]
    changed[1][rows[0].index(column)] = value
    with pytest.raises(CxrfastError) as caught:
        read_predictions(write(tmp_path / "p.csv", changed))
    assert problem in str(caught.value)


def test_parts_are_joined_by_the_names_of_their_classes():
    whole, other = predictions(), predictions().of_classes(CLASSES[::-1])
    joined = concatenate([whole, other])
    torch.testing.assert_close(joined.prob, whole.prob.repeat(2, 1))
    with pytest.raises(ValueError, match="expected the classes Cardiomegaly, Mass, Something else, got Mass"):
        concatenate([whole, whole.of_classes(["Mass"])])
