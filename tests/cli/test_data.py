"""`cxrfast data` as a person meets it."""

import json
import sys
from types import ModuleType

import pytest

from cxrfast.cli.main import run
from cxrfast.data import make_splits, read_data


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run the command in an empty folder: cli("data", …) -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_text_json_and_page(cli, phantoms, tmp_path):
    records = read_data(phantoms).records
    code, out, err = cli("data", phantoms, "--json", "out.json", "--html", "out.html", "--verify")
    assert (code, err) == (0, "")
    assert "recognised by Data_Entry_2017.csv" in out
    assert out.endswith("written: out.json\nwritten: out.html\n")
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert content["images"] == len(records)
    assert content["boxes"] == sum(len(boxes) for record in records for boxes in record.boxes.values())
    assert content["duplicates"] == {"compared": "pixels", "images": 0, "groups": []}
    assert (tmp_path / "out.html").read_text(encoding="utf-8").count("<figure") == 12
    code, out, err = cli("data", phantoms, "--json", "-", "--html", "again.html", "--no-hash")
    assert (code, err) == (0, "written: again.html\n")
    assert json.loads(out)["duplicates"] is None


def test_splits_and_options(cli, phantoms, tmp_path):
    records = read_data(phantoms).records
    make_splits(records, seed=0).save(tmp_path / "splits.json")
    code, out, _ = cli("data", phantoms, "--splits", "splits.json", "--map", "Mass=Tumour", "--dataset", "chestxray14")
    assert code == 0
    assert "splits file" in out
    assert "leakage" not in out
    assert "Tumour" in out
    content = json.loads((tmp_path / "splits.json").read_text(encoding="utf-8"))
    patient = {record.image: record.patient for record in records}
    moved = next(name for name in content["train"] if sum(patient[o] == patient[name] for o in content["train"]) > 1)
    content["train"].remove(moved)
    content["test"].append(moved)
    (tmp_path / "splits.json").write_text(json.dumps(content), encoding="utf-8")
    code, out, _ = cli("data", phantoms, "--splits", "splits.json")
    assert code == 0
    assert "splits.json: leakage: train and test have in common: patients: 1" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "no folder or file nowhere"),
        (["."], 1, "has no layout that is known"),
        ([".", "--dataset", "other"], 2, "dataset: expected one of"),
        ([".", "--views", "side"], 2, "views: expected one of frontal, all, got 'side'"),
        (
            [".", "--write", "a.txt"],
            2,
            "write: expected a file that ends in .csv (manifest) or .json",
        ),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_done_is_one_line(cli, arguments, code, message):
    found, out, err = cli("data", *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("cxrfast: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_conversion_gets_the_data_and_spares_them(cli, phantoms, monkeypatch, tmp_path):
    written = {}
    writing = ModuleType("writing")
    writing.write_manifest = lambda source, path: written.update({path.name: source})
    writing.write_coco = lambda source, path: written.update({path.name: source})
    monkeypatch.setitem(sys.modules, "cxrfast.data.datasets.writing", writing)
    code, out, _ = cli("data", phantoms, "--write", "new/out.csv")
    assert code == 0
    assert out.endswith("written: new/out.csv\n")
    assert cli("data", phantoms, "--write", "out.JSON", "--map", "Mass=Tumour")[0] == 0
    assert written["out.csv"].records == read_data(phantoms).records
    assert "Tumour" in written["out.JSON"].class_names
    table = phantoms / "Data_Entry_2017.csv"
    before = table.read_bytes()
    code, _, err = cli("data", phantoms, "--write", table)
    assert code == 2
    assert "exists beside the data" in err
    assert table.read_bytes() == before
