"""The page of a data set."""

import re

from cxrfast.data import DataOptions
from cxrfast.data.summary import summarize
from cxrfast.report.html.data import render_data_page, write_data_page
from tests.data.summary.made_up import record, use_layout, write_image

BOX = (0.25, 0.5, 0.75, 1.0)


def page(tmp_path, monkeypatch, records, **more):
    use_layout(monkeypatch, records, **more)
    return render_data_page(*summarize(tmp_path, DataOptions(views="all")))


def test_text_of_the_tables_is_escaped(tmp_path, monkeypatch):
    evil = "<script>alert(1)</script>"
    write_image(tmp_path / "a.png", 1, width=20, height=10)
    (tmp_path / "<b>.png").touch()
    made = [
        record(tmp_path, "a.png", "Mass", "1", view=evil, sex=evil, split=evil, boxes={"Mass": (BOX,), evil: (BOX,)}),
        record(tmp_path, "<b>.png", "", "1"),
    ]
    html = page(tmp_path, monkeypatch, made, notes=[evil], class_notes=[evil], label_version=evil)
    assert "<script" not in html
    assert "<b>.png" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 7
    assert "default-src &#39;none&#39;" in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)


def test_boxes_are_drawn_with_their_names(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", 1, width=20, height=10)
    known = frozenset({"Mass", "Nodule"})
    made = [record(tmp_path, "a.png", "Mass", "1", boxes={"Mass": (BOX,)}, known=known, age=50, sex="F", view="AP")]
    html = page(tmp_path, monkeypatch, made)
    assert '<svg viewBox="0 0 1000 500.0"' in html
    assert '<rect class="annotated" x="250.0" y="250.0" width="500.0" height="250.0"/>' in html
    assert ">Mass</text>" in html
    assert "<b>Mass</b><br>unknown: Edema<br>a.png<br>AP, 50 years, F" in html


def test_warnings_splits_and_unreadable_images_are_shown(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", 1)
    (tmp_path / "bad.png").write_bytes((tmp_path / "a.png").read_bytes()[:-15])
    made = [record(tmp_path, "a.png", "", "1", split="train"), record(tmp_path, "bad.png", "", "1", split="test")]
    html = page(tmp_path, monkeypatch, made)
    assert "<h2>Warnings</h2>" in html
    assert "leakage: train and test have in common: patients: 1" in html
    assert "Official split" in html
    assert "not shown: bad.png is a truncated PNG" in html
    assert str(tmp_path / "bad.png") not in html[html.index('id="sample"') :]
    (tmp_path / "bad.png").unlink()
    calm = page(tmp_path, monkeypatch, [record(tmp_path, "a.png")], notes=[])
    assert "<h2>Warnings</h2>" not in calm
    assert 'href="#splits"' not in calm
    assert 'href="#notes"' not in calm


def test_the_page_opens_in_a_browser(visit, tmp_path, monkeypatch):
    for n in range(14):
        write_image(tmp_path / f"{n}.png", n, width=64, height=48)
    made = [record(tmp_path, f"{n}.png", "Mass", boxes={"Mass": (BOX,)} if n % 2 else {}) for n in range(14)]
    html = page(tmp_path, monkeypatch, made)
    found = visit(html)
    assert found.console == []
    assert found.page.evaluate("() => document.querySelectorAll('figure.case').length") == 12
    assert found.page.evaluate("() => document.querySelectorAll('rect.annotated').length") == 7
    write_data_page(*summarize(tmp_path, DataOptions(views="all")), tmp_path / "out" / "page.html")
    assert (tmp_path / "out" / "page.html").read_text(encoding="utf-8") == html
