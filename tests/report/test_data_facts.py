"""The facts of a data set in words."""

from cxrfast.data import DataOptions
from cxrfast.data.summary import summarize
from cxrfast.report.data_facts import data_facts, unreadable_text
from tests.data.summary.made_up import record, use_layout, write_image


def facts(tmp_path, monkeypatch, records, hashes=True, **more):
    use_layout(monkeypatch, records, **more)
    return dict(data_facts(summarize(tmp_path, DataOptions(views="all"), hashes=hashes)[1]))


def test_everything_is_known(tmp_path, monkeypatch):
    for n, name in enumerate(("a.png", "b.png", "c.png")):
        write_image(tmp_path / name, n, width=10 + n % 2)
    found = facts(
        tmp_path,
        monkeypatch,
        [
            record(tmp_path, "a.png", "Mass", "1", view="PA", age=3, sex="F", split="train", study="s"),
            record(tmp_path, "b.png", "", "1", view="lateral", age=8, sex="F"),
            record(tmp_path, "c.png", "", "2", view="oblique"),
        ],
    )
    assert found["data set"] == "made-up (a made-up layout), recognised by made_up.csv"
    assert found["images"] == (
        "3: 1 frontal, 1 lateral, 1 of other views (PA 1, lateral 1, oblique 1); training leaves lateral images out "
        "unless --views all is given"
    )
    assert (found["patients"], found["studies"]) == ("2", "1")
    assert found["image size"] == "2 different; all: 10×6 (2), 11×6 (1); smallest 10×6, largest 11×6"
    assert found["age"] == "3 to 8 years, median 5.5 (images); unknown on 1 image"
    assert found["sex"] == "F 2, unknown 1 (images)"
    assert found["duplicates"] == "no two readable images have the same bytes"
    assert "official split" not in found


def test_little_is_known(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    found = facts(tmp_path, monkeypatch, [record(tmp_path, "a.png")], hashes=False, grouping="image")
    assert found["images"] == "1; views unknown"
    assert found["patients"] == "unknown; splits are made by image (1 images)"
    assert found["image size"] == "unknown: no header can be read"
    assert (found["age"], found["sex"], found["official split"]) == ("unknown", "unknown", "none")
    assert found["unreadable"] == "1 image (headers only; --verify decodes every image)"
    assert found["duplicates"] == "not looked for (--no-hash)"


def test_long_lists_are_cut(tmp_path, monkeypatch):
    for n in range(5):
        (tmp_path / f"{n}.png").touch()
    use_layout(monkeypatch, [record(tmp_path, f"{n}.png") for n in range(5)])
    lines = unreadable_text(summarize(tmp_path)[1], 3)
    assert len(lines) == 4
    assert lines[0].startswith("0.png: ")
    assert lines[3] == "and 2 more, which the JSON record names"
