"""`cxrfast localize`."""

import json
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


def test_a_demo_run_reads_no_real_image_unasked(cli, trained, phantoms, tmp_path):
    """Phantom weights on another image: refused without --checkpoint; with it, a warning in every output."""
    image = shutil.copy(next((phantoms / "images").iterdir()), tmp_path / "scan.png")
    shutil.copytree(trained, tmp_path / "runs" / "demo" / "run")
    code, out, err = cli("localize", image)
    assert code == 1
    assert "--checkpoint runs/demo/run" in err
    assert not (tmp_path / "localized").exists()
    code, out, _ = cli("localize", image, "--checkpoint", "runs/demo/run", "--top", "2")
    assert code == 0
    assert "weights runs/demo/run/weights/best.safetensors, learnt from: 28 phantoms (drawings) of phantoms" in out
    assert out.count("weights learnt from drawings, not from people") == 1
    assert out.count("the weights learnt from phantoms only, and the images are not phantoms") == 1
    assert "(1 of 1 images)" in out
    assert "(below the threshold 0.50)" in out
    written = json.loads((tmp_path / "localized" / "scan.json").read_text())
    assert written["warnings"][0].startswith("weights learnt from drawings, not from people")
    assert written["warnings"][-1].startswith("the weights learnt from phantoms only")
    assert written["model"]["learnt_from"]["synthetic"] is True
    code, out, _ = cli("localize", phantoms / "images")
    assert code == 0
    assert "the images are drawings (phantoms), not X-rays of people" in out
    assert "(40 of 40 images)" in out
