"""What is printed contains nothing that a terminal would act on, whatever the names are."""

import shutil
from pathlib import Path

from cxrfast.cli.main import run
from cxrfast.cli.output import echo, echo_error
from cxrfast.report.terminal.layout import ruled

HOSTILE = "a\x1b[31m\x07\u202e\n\rb"
SAFE = r"a\x1b[31m\x07\u202e\n\rb"


def test_lines_and_errors(capsys):
    echo(f"first {HOSTILE}")
    echo("second", err=True)
    echo_error(f"image {HOSTILE}: expected a file")
    out, err = capsys.readouterr()
    assert out == "first " + SAFE.replace(r"\n", "\n") + "\n"
    assert err == f"second\ncxrfast: image {SAFE}: expected a file\n"


def test_the_middle_of_a_very_long_error_is_left_out(capsys):
    echo_error("a.csv, line 2: box [" + "9" * 10_000 + "] is no number; correct or remove the line")
    err = capsys.readouterr().err
    assert len(err) < 4100
    assert err.startswith("cxrfast: a.csv, line 2: box [999")
    assert err.endswith("] is no number; correct or remove the line\n")


def test_cells_of_tables():
    rows = ruled([["", "AUROC"], [HOSTILE, "0.5"], ["mean", "0.5"]])
    assert len(rows) == 5
    assert rows[2].startswith(SAFE)


def test_an_error_about_a_hostile_name_is_one_line(capsys):
    assert run(["localize", f"{HOSTILE}.png", "--checkpoint", f"{HOSTILE}.safetensors"]) == 1
    out, err = capsys.readouterr()
    assert err == f"cxrfast: checkpoint: no file {SAFE}.safetensors\n"
    assert out == ""


def test_localize_escapes_the_names_of_files(cli, trained, phantoms, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    good = next((phantoms / "images").iterdir())
    shutil.copy(good, folder / f"{HOSTILE}.png")
    (folder / f"bad {HOSTILE}.png").write_text("not an image")
    code, out, err = cli("localize", folder, "--checkpoint", trained)
    assert code == 1
    assert f"{SAFE}.png: " in out
    assert f"bad {SAFE}.png is not an image" in err
    for text in (out, err):
        assert not set(text) & set("\x1b\x07\u202e\r")
    assert (Path("localized") / f"{HOSTILE}.json").is_file()
