"""`cxrfast data` as a person meets it."""

import json
import shutil

import pytest

from cxrfast.data import make_splits, read_data


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


@pytest.mark.parametrize("name", ["new/out.csv", "out.JSON"])
def test_a_conversion_is_read_back(cli, phantoms, tmp_path, name):
    shutil.copytree(phantoms, tmp_path / "data")
    code, out, err = cli("data", "data", "--write", f"data/{name}", "--map", "Mass=Tumour")
    assert (code, err) == (0, "")
    assert f"written: data/{name}\n" in out
    before = read_data(tmp_path / "data")
    if name.endswith(".JSON"):
        assert len(json.loads((tmp_path / "data" / name).read_text(encoding="utf-8"))["images"]) == len(before.records)
        return
    code, out, _ = cli("data", f"data/{name}", "--json", "-")
    assert code == 0
    content = json.loads(out)
    assert content["layout"] == "manifest"
    assert (content["images"], content["boxes"]) == (
        len(before.records),
        sum(len(boxes) for record in before.records for boxes in record.boxes.values()),
    )
    positive = {entry["name"]: entry["positive"] for entry in content["classes"]}
    assert positive["Tumour"] == sum("Mass" in record.labels for record in before.records)


def test_a_conversion_overwrites_nothing(cli, phantoms):
    table = phantoms / "Data_Entry_2017.csv"
    before = table.read_bytes()
    code, out, err = cli("data", phantoms, "--write", table)
    assert (code, out) == (2, "")
    assert "exists already and is not overwritten" in err
    assert table.read_bytes() == before
