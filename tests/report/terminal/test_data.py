"""The summary of a data set in the terminal."""

from cxrfast.data.summary import summarize
from cxrfast.report.terminal import data_to_text
from cxrfast.report.terminal.layout import WIDTH
from tests.data.summary.made_up import record, use_layout, write_image


def test_tables_are_aligned_and_nothing_is_lost(tmp_path, monkeypatch):
    for n in range(1200):
        write_image(tmp_path / f"{n}.png", n, width=2, height=2)
    (tmp_path / "bad.png").touch()
    known, boxes = frozenset({"Mass"}), {"Mass": ((0.0, 0.0, 0.5, 0.5),) * 2}
    records = [record(tmp_path, f"{n}.png", "Mass", "7", known=known, split="train", boxes=boxes) for n in range(1200)]
    records += [record(tmp_path, "bad.png", "", "7", split="test")]
    use_layout(monkeypatch, records, class_notes=["word " * 60])
    text = data_to_text(summarize(tmp_path, hashes=False)[1])
    lines = text.splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    rows = [line.split() for line in lines]
    assert ["Mass", "1,200", "1", "0", "99.9", "1,200", "2,400"] in rows
    assert ["Nodule", "0", "1", "1,200", "0.0", "0", "0"] in rows
    assert ["train", "1,200", "1", "1,200", "2,400"] in rows
    table = lines[lines.index(next(line for line in lines if line.startswith("class "))) :][:5]
    assert len({len(line) for line in table}) == 1
    warnings = text[text.index("\nwarnings\n") : text.index("\nunreadable images\n")]
    assert "official split: leakage: train and test have in common: patients: 1" in warnings
    assert "unreadable images: 1 (first: bad.png)" in warnings
    assert "  bad.png: " in text
    assert text.count("word") == 60


def test_no_empty_blocks(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", 1)
    use_layout(monkeypatch, [record(tmp_path, "a.png")], notes=[])
    lines = data_to_text(summarize(tmp_path)[1]).splitlines()
    assert not {"warnings", "notes", "unreadable images"} & set(lines)
