"""The pages in a real browser: nothing is fetched, nothing is said, and the viewer finds the regions of Python."""

import numpy as np
import pytest

from cxrfast.data.labels import BOXED_CLASSES, CLASSES
from cxrfast.regions.rule import RegionRule
from cxrfast.report import compare, render_comparison, render_report
from cxrfast.report.html.gallery import make_gallery
from cxrfast.report.html.viewer import own_boxes
from tests.report.made_up import CUT_OFF, made_up

FOUND = """() => [...document.querySelectorAll('#v-boxes rect.found')].map(
    r => ['x', 'y', 'width', 'height'].map(name => Number(r.getAttribute(name))))"""
HEIGHT = "() => document.querySelector('#v-boxes').viewBox.baseVal.height"
# What a person sees who goes through all classes and images: [class][image] -> height and boxes
ALL = f"""() => {{
    const choose = (id, value) => {{
        const select = document.getElementById(id);
        select.value = value;
        select.dispatchEvent(new Event('change'));
    }};
    const images = [...document.querySelectorAll('#v-image option')].length;
    return [...document.querySelectorAll('#v-class option')].map((_, k) => {{
        choose('v-class', k);
        return [...Array(images).keys()].map((i) => {{
            choose('v-image', i);
            return {{ height: ({HEIGHT})(), boxes: ({FOUND})() }};
        }});
    }});
}}"""
RULES = [
    RegionRule(),
    RegionRule(select="largest"),
    RegionRule("boxes", "peak", opening=9, gate=0.4),
    RegionRule(closing=0.3),
    RegionRule("boxes", "peak", opening=1 / 8, closing=1 / 4),
    RegionRule("boxes", "peak"),
    RegionRule("rectangle"),
    RegionRule("boxes", levels=(60 / 255, 180 / 255)),
]


def fractions(height, boxes):
    """Drawn boxes as fractions of the image, sorted."""
    rows = [(x / 1000, y / height, (x + w) / 1000, (y + h) / height) for x, y, w, h in boxes]
    return np.array(sorted(rows)).reshape(-1, 4)


def drawn(page):
    return fractions(page.evaluate(HEIGHT), page.evaluate(FOUND))


def computed(boxes, n, k):
    own = boxes.xyxy[(boxes.image == n) & (boxes.class_index == k)]
    return np.array(sorted(map(tuple, own.tolist()))).reshape(-1, 4)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_viewer_starts_with_the_boxes_of_python(visit, tmp_path, rule):
    evaluated = made_up(tmp_path, 30, ("Mass", "Nodule", "Effusion"), rule=rule, threshold=0.42)
    found = visit(render_report(evaluated))
    boxes, pictures = own_boxes(evaluated), make_gallery(evaluated).pictures
    seen = found.page.evaluate(ALL)
    assert [len(row) for row in seen] == [len(pictures)] * 3
    for k, row in enumerate(seen):
        for picture, view in zip(pictures, row, strict=True):
            np.testing.assert_allclose(fractions(**view), computed(boxes, picture.n, k), atol=1e-9)
    assert sum(len(view["boxes"]) for row in seen for view in row) > 5
    assert found.console == []


def test_boxes_of_others_are_viewed_too(visit, tmp_path):
    evaluated = made_up(tmp_path, 20, ("Mass", "Nodule"), rule=RegionRule("boxes"), regions="boxes", threshold=0.0)
    boxes, pictures = own_boxes(evaluated), make_gallery(evaluated).pictures
    seen = visit(render_report(evaluated)).page.evaluate(ALL)
    for k, row in enumerate(seen):
        for picture, view in zip(pictures, row, strict=True):
            np.testing.assert_allclose(fractions(**view), computed(boxes, picture.n, k), atol=1e-9)
    assert sum(len(view["boxes"]) for row in seen for view in row) > 5


def test_the_slider_moves_the_boxes(visit, tmp_path):
    evaluated = made_up(tmp_path, 30, ("Mass", "Nodule"))
    found = visit(render_report(evaluated))
    page = found.page
    page.select_option("#v-class", "0")
    start = drawn(page)
    ground_truth = page.locator("#v-boxes rect.annotated").count()
    assert ground_truth == 1
    slider = page.locator("#v-threshold")
    slider.fill("0")
    np.testing.assert_allclose(drawn(page), [[0, 0, 1, 1]], atol=1e-9)
    assert "1 box found" in page.text_content("#v-summary")
    slider.fill("1")
    assert len(drawn(page)) == 0
    assert "0 boxes found" in page.text_content("#v-summary")
    assert page.locator("#v-boxes rect.annotated").count() == ground_truth
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert page.text_content("#v-value") == "0.975"
    page.click("#v-reset")
    np.testing.assert_array_equal(drawn(page), start)
    assert page.text_content("#v-value") == "0.500 (the method's)"
    page.uncheck("#v-show-truth")
    page.uncheck("#v-show-heat")
    assert page.locator("#v-boxes rect.annotated").count() == 0
    assert page.locator("#v-heat").is_hidden()
    assert found.console == []


def test_the_boxes_at_any_threshold_are_those_of_the_rule(visit, tmp_path):
    evaluated = made_up(tmp_path, 20, ("Mass",), threshold=0.5)
    page = visit(render_report(evaluated)).page
    place = int(page.input_value("#v-image"))
    n = make_gallery(evaluated).pictures[place].n
    at = evaluated.source.images.tolist().index(n)
    for value in (0.2, 0.35, 0.6, 0.8):
        # Values are rounded down by at most 1/126, half of 1/63: a threshold so near to one may fall on either side
        near = (evaluated.source.maps[at, 0] - value).abs().min().item() < 1 / 126
        page.locator("#v-threshold").fill(str(value))
        if not near:
            expected = evaluated.source.boxes(RegionRule(), evaluated.own.thresholds * 0 + value)
            np.testing.assert_allclose(drawn(page), computed(expected, n, 0), atol=1e-9)


def test_a_case_opens_in_the_viewer(visit, tmp_path):
    page = visit(render_report(made_up(tmp_path, 20, ("Mass", "Nodule")))).page
    case = page.locator("figure.case").last
    case.locator("button").click()
    assert page.input_value("#v-class") == case.get_attribute("data-class")
    assert page.input_value("#v-image") == case.get_attribute("data-picture")
    assert page.evaluate("document.activeElement.id") == "v-threshold"


@pytest.mark.parametrize(
    ("images", "classes"),
    [(3, ("Mass",)), (40, CLASSES), (1000, CLASSES), (1000, ("Mass",))],
    ids=["3 images, 1 class", "40 images, 14 classes", "1000 images, 14 classes", "1000 images, 1 class"],
)
def test_pages_of_all_sizes(visit, tmp_path, images, classes):
    html = render_report(made_up(tmp_path, images, classes, boxed=[c for c in classes if c in BOXED_CLASSES]))
    assert len(html) < 3_000_000
    found = visit(html)
    page = found.page
    assert found.console == []
    assert [url for url in found.requests if not url.startswith("data:")] == [page.url]
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        # Nothing but tables, which scroll by themselves, is wider than the screen
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    hrefs = page.evaluate("[...document.querySelectorAll('image')].map(i => i.getAttribute('href').slice(0, 5))")
    assert set(hrefs) == {"data:"}
    for control in page.locator(".controls select, .controls button, .controls input").all():
        assert control.is_visible()
        assert control.evaluate("e => Boolean(e.labels?.length || e.ariaLabel || e.textContent.trim())")


def test_it_is_readable_without_javascript(visit, tmp_path):
    evaluated = made_up(tmp_path, 20, ("Mass", "Nodule"))
    page = visit(render_report(evaluated), scripts=False).page
    assert page.locator("figure.case").count() == len(make_gallery(evaluated).cases)
    assert page.locator("figure.case svg").first.is_visible()
    assert page.locator("noscript p").is_visible()
    assert not page.locator("#viewer-app").is_visible()
    auroc = evaluated.record.classes["Mass"].auroc
    assert f"{auroc:.3f}" in page.inner_text("#scores")
    assert "Research use only" in page.inner_text("header")


def test_names_are_text_not_code(visit, tmp_path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&</script>"
    evaluated = made_up(tmp_path, 12, (evil, "Mass"))
    for html in (render_report(evaluated), render_comparison(compare(evaluated, evaluated))):
        found = visit(html)
        assert found.console == []
        assert found.page.locator("img").count() == 0
        assert evil in found.page.inner_text("body")
    page = visit(render_report(evaluated)).page
    assert page.locator("#v-class option").first.text_content() == evil


def test_a_comparison_is_quiet_and_fits(visit, tmp_path):
    runs = [made_up(tmp_path, 60, CLASSES, seed=0)] * 2
    html = render_comparison(compare(*runs))
    for width in (390, 1280):
        found = visit(html, width=width)
        assert found.console == []
        assert len(found.requests) == 1
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    assert found.page.evaluate(CUT_OFF) == []


def test_wide_tables_and_few_cases_fill_the_screen(visit, tmp_path):
    evaluated = made_up(tmp_path, 60, CLASSES, protocol="wang2017", boxed=BOXED_CLASSES)
    page = visit(render_report(evaluated), width=1280).page
    assert page.evaluate(CUT_OFF) == []
    assert page.locator("#scores table").nth(1).locator("tbody tr").count() == len(CLASSES) + 1
    rows = {}
    for box in (case.bounding_box() for case in page.locator("figure.case").all()):
        rows.setdefault(round(box["y"]), []).append(box)
    for row in list(rows.values())[:-1]:  # whole classes side by side may leave the last row short
        assert max(box["x"] + box["width"] for box in row) > 1180
