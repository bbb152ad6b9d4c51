"""The picture shows boxes and heat where they are, and is readable in odd cases."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from cxrfast.inference import ClassFinding, draw, localize, save_overlay
from tests.predictors import FakePredictor, constant_answer

CLASSES = ("Mass", "Nodule")
GRID = 10


def localization(image, scores=(0.9, 0.2), heat=0.9, **options):
    maps = torch.full((2, GRID, GRID), 0.02)
    maps[0, 6:8, 1:4] = heat
    return localize(FakePredictor(CLASSES, 32, constant_answer(list(scores), maps)), image, **options)


def words(figure) -> str:
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return "\n".join(text.get_text() for text in texts)


@pytest.mark.parametrize(("height", "width"), [(100, 100), (300, 200), (150, 600), (4000, 30)])
def test_the_panels_differ_only_where_the_map_is_warm(height, width):
    """Pixel by pixel: outside the box and its label, the right panel is the left one."""
    # Smooth, so that panels that start at different fractions of a pixel look the same
    image = np.outer(np.linspace(0, 1, height), np.linspace(1, 0.5, width)).astype(np.float32)
    figure = draw(localization(image))
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    panels, box = [], None
    for axes in figure.axes[:2]:
        left, bottom, right, top = (round(value) for value in axes.get_window_extent().extents)
        panels.append(pixels[len(pixels) - top : len(pixels) - bottom, left:right])
        for patch in axes.patches:
            box = patch.get_window_extent().extents - np.array([left, bottom, left, bottom])
    rows, columns = min(panel.shape[0] for panel in panels), min(panel.shape[1] for panel in panels)
    changed = np.abs(panels[0][:rows, :columns] - panels[1][:rows, :columns]).max(axis=2) > 30
    assert box is not None
    x1, x2 = columns * 0.1, columns * 0.4
    assert box[[0, 2]] == pytest.approx([x1, x2], abs=2)
    y1, y2 = rows * 0.6, rows * 0.8
    inside = np.zeros_like(changed)
    inside[int(y1) - 8 : int(y2) + 8, max(int(x1) - 8, 0) : int(x2) + 8] = True
    label = np.zeros_like(changed)
    label[int(y1) - 60 : int(y1) + 8] = True
    assert changed[inside].mean() > 0.3
    assert changed[~inside & ~label].mean() < 0.001


def test_boxes_and_words(tmp_path):
    path = tmp_path / "scan $1_a.png"
    cv2.imwrite(str(path), np.full((50, 80), 100, np.uint8))
    figure = draw(localization(path))
    (box,) = [patch for patch in figure.axes[1].patches if isinstance(patch, Rectangle)]
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (8, 30, 24, 10)
    text = words(figure)
    for part in (
        "scan $1_a.png",
        "80 × 50 pixels",
        "Mass 0.90",
        "Mass  0.90 (threshold 0.50) · 1 region",
        "not for diagnosis",
    ):
        assert part in text
    assert "Nodule" not in text


def test_a_finding_without_a_region_and_one_below_the_threshold():
    image = np.zeros((50, 50), np.float32)
    assert "Mass  0.90 (threshold 0.50) · no region" in words(draw(localization(image, heat=0.3)))
    assert "Nodule  0.20 (below 0.50) · no region" in words(draw(localization(image, top=2)))


def test_nothing_found_is_said_with_the_highest_scores():
    text = words(draw(localization(np.zeros((50, 50), np.float32), scores=(0.1, 0.3))))
    assert "nothing found" in text
    assert "Highest: Nodule 0.30 of 0.50, Mass 0.10 of 0.50" in text


def test_the_file_is_a_png_of_readable_size_and_no_global_figure_is_left(tmp_path):
    path = tmp_path / ("名前" + "x" * 200 + ".png")
    cv2.imwrite(str(path), np.full((50, 80), 100, np.uint8))
    save_overlay(localization(path), tmp_path / "out" / "overlay.png")
    height, width = cv2.imread(str(tmp_path / "out" / "overlay.png")).shape[:2]
    assert width >= 1500
    assert height >= 900
    assert len(list((tmp_path / "out").iterdir())) == 1
    from matplotlib import _pylab_helpers

    assert not _pylab_helpers.Gcf.figs


def test_warnings_stand_in_the_picture():
    """Whole, however narrow the picture is, and above the panels."""
    warnings = ("weights learnt from drawings, not from people: " + "word " * 60, "no better than chance: Mass")
    for shape in ((50, 50), (600, 60)):
        found = replace(localization(np.zeros(shape, np.float32)), warnings=warnings)
        figure = draw(found)
        text = " ".join(words(figure).split())
        for warning in warnings:
            assert f"WARNING: {' '.join(warning.split())}" in text
        figure.canvas.draw()
        top = max(axes.get_window_extent().y1 for axes in figure.axes)
        alarmed = [entry.get_window_extent() for entry in figure.texts if entry.get_color() == "#ffb347"]
        assert len(alarmed) > 2
        assert all(extent.y0 > top and extent.x1 < figure.bbox.width for extent in alarmed)
    assert "WARNING" not in words(draw(localization(np.zeros((50, 50), np.float32))))


@pytest.mark.parametrize(
    ("score", "threshold", "shown"),
    [
        (0.42, 0.31, ("0.42", "0.31")),
        (0.00041, 0.00037, ("0.00041", "0.00037")),
        (0.3141, 0.3139, ("0.3141", "0.3139")),
        (0.5, 0.5, ("0.50", "0.50")),
        (0.4, 0.0, ("0.40", "0.00")),
        (3e-9, 1e-9, ("3e-09", "1e-09")),
        (0.9999, 0.99, ("1.00", "0.99")),
    ],
)
def test_a_score_is_never_shown_as_0_nor_as_its_threshold(score, threshold, shown):
    assert ClassFinding("Nodule", score, True, threshold, 0.5, ()).numbers == shown
