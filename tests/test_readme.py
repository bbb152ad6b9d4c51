"""Every code block of the README runs. Commands run in a folder that has what they name, with small settings added."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
COMMANDS = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines() if line.strip()]

# Run as they stand elsewhere: the first by .ci/run, which also runs this file, and the demo by tests/test_demo.py.
ELSEWHERE = ("pip install . && cxrfast demo", "pip install '.[test]' && pytest")
SMALL = {  # what is added to a command, so that it takes seconds
    "cxrfast train": "--epochs 1 --image-size 64 --batch-size 8 --device cpu --set backbone=resnetv2_nano --set grid=8 "
    "--set crf_kernel_size=5 --set guide_channels=4 --set output_stride=8",
    "cxrfast bench": "component_boxes/64x14x20x20 --quick --device cpu --peers opencv",
    "cxrfast synth": "--images 20 --image-size 64",
}


def test_there_is_something_to_test():
    assert len(COMMANDS) >= 6
    assert all(command in COMMANDS for command in ELSEWHERE)
    assert {language for language, _ in BLOCKS} == {"bash", "python"}


@pytest.mark.parametrize("code", [text for language, text in BLOCKS if language == "python"])
def test_python_block(code):
    exec(compile(code, "README.md", "exec"), {})


def test_commands_in_their_order(phantoms, tmp_path):
    data = shutil.copytree(phantoms, tmp_path / "ChestX-ray14")
    # In the place of X-rays, so without the traces by which phantoms are known: their models read no image unasked
    for name in ("phantoms.json", "README.txt"):
        (data / name).unlink()
    table = data / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("5.625,5.625", "0.143,0.143"))
    shutil.copy(next((phantoms / "images").iterdir()), tmp_path / "image.png")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for command in COMMANDS:
        if command in ELSEWHERE:
            continue
        words = shlex.split(f"{command} {SMALL.get(' '.join(command.split()[:2]), '')}")
        assert words[0] == "cxrfast"
        call = [sys.executable, "-m", "cxrfast.cli.main", *words[1:]]
        done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "localized" / "image.png").is_file()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        assert (ROOT / path).exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
