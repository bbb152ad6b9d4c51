"""A miniature data set in the layout of ChestX-ray14."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

HEADER_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
HEADER_BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


@dataclass
class Release:
    """Writes the tables line by line, so that a test can spoil any of them."""

    root: Path
    entries: list[str]
    boxes: list[str]

    def write(self) -> Path:
        (self.root / "Data_Entry_2017.csv").write_text("\r\n".join([HEADER_2017, *self.entries]) + "\r\n")
        (self.root / "BBox_List_2017.csv").write_text("\n".join([HEADER_BOXES, *self.boxes]) + "\n")
        return self.root


def entry(image: str, labels: str, patient: str = "", age: str = "058Y") -> str:
    patient = patient or image.split("_")[0]
    return f"{image},{labels},000,{patient},{age},M,PA,2682,2749,0.143,0.143"


@pytest.fixture
def release(tmp_path) -> Release:
    """Four images of three patients; one image has a box."""
    (tmp_path / "images").mkdir()
    names = ["00000001_000.png", "00000001_001.png", "00000002_000.png", "00000003_000.png"]
    for number, name in enumerate(names):
        image = np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / name), image)
    labels = ["Cardiomegaly|Effusion", "No Finding", "Infiltration", "Pleural_Thickening"]
    (tmp_path / "train_val_list.txt").write_text("\n".join(names[:3]))  # no final newline, as released
    (tmp_path / "test_list.txt").write_text(names[3])
    release = Release(
        tmp_path,
        [entry(name, label) for name, label in zip(names, labels, strict=True)],
        ["00000002_000.png,Infiltrate,256.0,128.0,512.0,64.0"],
    )
    release.write()
    return release
