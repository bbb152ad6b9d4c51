"""`cxrfast localize`."""

import shutil


def test_a_batch_goes_on_past_a_bad_file(cli, trained, phantoms, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    good = next((phantoms / "images").iterdir())
    shutil.copy(good, folder / "good.png")
    (folder / "truncated.png").write_bytes(good.read_bytes()[:500])
    (folder / "text.png").write_text("not an image")
    code, _, err = cli("localize", folder, "missing.png", "--checkpoint", trained)
    assert code == 1
    assert (tmp_path / "localized" / "good.json").is_file()
    assert "inputs that failed: 3" in err
    for name in ("truncated.png", "text.png", "missing.png"):
        assert name in err
    assert "Traceback" not in err
