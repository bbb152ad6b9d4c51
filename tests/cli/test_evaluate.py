"""`cxrfast evaluate` and `cxrfast report`: runs, files of predictions, and two of them compared."""

import shutil


def test_evaluate_other_data_and_parts(cli, trained, phantoms):
    code, val, err = cli("evaluate", trained, "--split=val", "--out=here", "-T", "0.3", "--protocol=li2018")
    assert code == 0, err
    assert "IoU ≥ 0.3" in val
    assert "patients shared with training: 0" in val.replace("\n  ", " ")
    code, _, err = cli("evaluate", "--checkpoint", trained, "--data", phantoms, "--out=here")
    assert code == 0, err
    code, _, err = cli("evaluate", trained, "--split=tset", "--out=here")
    assert code == 2
    assert "expected one of train, val, test" in err
    code, again, err = cli(
        "evaluate",
        "--predictions=here/predictions-val.csv",
        "--predictions=here/maps-val.npz",
        "--data",
        phantoms,
        "--splits",
        trained / "splits.json",
        "--split=val",
        "-T",
        "0.3",
        "--protocol=li2018",
    )
    assert code == 0, err

    def table(text):  # of the trained classes; the files are also asked for one that no training image shows
        trained_classes = ("Atelectasis", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax")
        return [line for line in text.splitlines() if line.startswith(trained_classes)]

    assert len(table(val)) == 5 * 7
    assert table(again) == table(val)
    code, _, err = cli("evaluate", "--predictions=here/predictions-val.csv")
    assert code == 2
    assert "data: expected the folder with labels and boxes for --predictions, got none; add --data DIR" in err
    code, _, err = cli("evaluate", trained, "--split=train", "--out=here")
    assert code == 2
    assert "protocol strict:" in err
    code, _, err = cli("evaluate", trained, "--protocol=wong")
    assert code == 2
    assert "protocol is 'wong'; expected one of strict, own, rozenberg2019" in err


def test_two_files_of_predictions_are_compared(cli, phantoms, tmp_path):
    """Each file and protocol has a folder of its own, and none is written over by another."""
    rows = [f"{image.stem},Mass,5,5,40,{30 + n},1" for n, image in enumerate(sorted((phantoms / "images").iterdir()))]
    for name in ("x.csv", "y.csv"):
        (tmp_path / name).write_text("\n".join(["image,class,x1,y1,x2,y2,score", *rows]) + "\n")
        for protocol in ("strict", "li2018"):
            code, out, err = cli("evaluate", "--predictions", name, "--data", phantoms, f"--protocol={protocol}")
            assert code == 0, err
            folder = f"{name[0]}-csv-{protocol}"
            assert (
                f"written: {folder}/evaluation-all.json, {folder}/predictions-all.csv, {folder}/report-all.html" in out
            )
    code, out, err = cli("report", "x-csv-strict", "y-csv-strict")
    assert code == 0, err
    assert "first: x-csv-strict   second: y-csv-strict" in out
    for more in (["--predictions=y.csv"], ["--predictions=x.csv", "--protocol=own"]):
        code, _, err = cli("evaluate", *more, "--data", phantoms, "--out=x-csv-strict")
        assert code == 2
        assert "got x-csv-strict/evaluation-all.json with the evaluation of x.csv by strict; choose another" in err
    report = tmp_path / "x-csv-strict" / "evaluation-all.json"
    for content, words in (
        ('{"protocol": "strict"}', "is an evaluation of schema version 1; "),
        ("{", "cannot be read "),
    ):
        report.write_text(content)
        code, _, err = cli("evaluate", "--predictions=x.csv", "--data", phantoms)
        assert (code, err.count("\n")) == (2, 1)
        assert f"out: x-csv-strict/evaluation-all.json {words}" in err
        assert err.endswith("; evaluate again, into another folder with --out, or delete it\n")
        assert report.read_text() == content
    code, _, err = cli("evaluate", "--predictions=x.csv", "--data", phantoms, "--split=val")
    assert code == 2
    assert "split: expected a splits.json file for val, got none; add --splits FILE" in err


def test_reports_are_left_out_or_compare_two_runs(cli, trained, tmp_path):
    for name in ("first", "second"):
        shutil.copytree(trained, name)
        code, out, err = cli("evaluate", name, "--no-report")
        assert code == 0, err
        assert "report.html" not in out
        assert not (tmp_path / name / "report.html").exists()
    code, out, err = cli("report", "first", "second")
    assert code == 0, err
    assert "first: first   second: second" in out
    assert "written: first/comparison-second.html" in out
    assert "Is the difference real?" in (tmp_path / "first" / "comparison-second.html").read_text()
    code, out, err = cli("report", "second", "--out=here/page.html")
    assert code == 0, err
    assert (tmp_path / "here" / "page.html").stat().st_size > 10_000
    for arguments, message in (
        (["first", "second", "first"], "run: expected one run, or two to compare, got 3"),
        (["nowhere"], "run: expected a folder, got nowhere, which does not exist"),
        (["first", "--split=val"], "run: cxrfast evaluate first --split val"),
    ):
        code, _, err = cli("report", *arguments)
        assert code in (1, 2)
        assert message in err
        assert err.count("\n") == 1
