"""The code in docs/data.md runs as it stands, and what imports promise holds."""

import importlib.util
import re
from pathlib import Path

from cxrfast.data import write_phantoms
from tests.interpreter import run_code

ROOT = Path(__file__).resolve().parents[2]


def test_code_of_the_page_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    write_phantoms("DIR", images=12, image_size=64, progress=False)
    names: dict = {}
    for block in blocks:  # the later go on from the earlier
        if "import torchxrayvision" in block and importlib.util.find_spec("torchxrayvision") is None:
            continue
        exec(block, names)
        assert names["train"][0]["image"].shape == (1, 512, 512)


def test_importing_the_package_does_not_import_image_libraries():
    code = (
        "import sys, cxrfast, cxrfast.data; print(sorted({'cv2', 'torchvision', 'pydicom', 'PIL'} & set(sys.modules)))"
    )
    assert run_code(code).stdout.strip() == "[]"
