"""`cxrfast reproduce` without training."""


def test_reproduce_lists_tables_and_refuses_others(cli, phantoms):
    code, out, _ = cli("reproduce")
    assert code == 0
    for word in ("rozenberg1", "seibold2", "zhang3", "rozenberg-20", " h", " GB", "estimates"):
        assert word in out
    for arguments, reason in (
        (("rozenberg7", "--data", phantoms), "table: expected one of rozenberg1, seibold1, "),
        (("zhang1",), "data: expected the folder of ChestX-ray14, got none; add --data DIR"),
        (
            ("zhang1", "--data", phantoms, "--rows", "wang"),
            "rows: expected some of zhang, zhang-distance, zhang-verification, zhang-neither, ",
        ),
        (
            ("zhang1", "--data", phantoms, "--set", "crf_steps=2"),
            "crf_steps: expected an option of zhang; list them: cxrfast info",
        ),
    ):
        code, _, error = cli("reproduce", *arguments)
        assert (code, error.count("\n")) == (2, 1)
        assert reason in error


def test_reproduce_shows_what_is_published(cli, phantoms, tmp_path):
    code, out, _ = cli("reproduce", "zhang1", "--data", phantoms, "--rows", "wang2017", "--out", "o")
    assert code == 0
    assert "0.700" in out
    assert (tmp_path / "o" / "zhang1.md").is_file()
