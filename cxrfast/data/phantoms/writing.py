"""Synthetic chest X-rays in the layout of ChestX-ray14, for running everything without a download.

They have no medical value. They serve demonstrations, tests and performance measurements.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from cxrfast.data.labels import BOXED_CLASSES, NO_FINDING
from cxrfast.data.phantoms.anatomy import Build, Chest, Pose, smooth_noise
from cxrfast.data.phantoms.lesions import draw_lesion, region_box
from cxrfast.data.phantoms.marker import README_FIRST_WORDS, SIDE_IN_MM, write_marker
from cxrfast.errors import CxrfastError, UsageError

FRAME = 1024  # side in pixels that boxes in the table refer to, as in the release
SMALLEST = 64  # pixels; in smaller images, nodules are smaller than the noise

_NO_FINDING = 0.35  # fraction of images; slightly more in effect, if there is no room for a lesion
_FINDINGS = (0.66, 0.26, 0.08)  # fractions of the others with one, two, three classes
_TEST_SHARE = 0.2  # fraction of patients
# Seed components that give each kind of draw its own random stream.
_PATIENTS, _BUILD, _IMAGE, _LIST, _BOX = range(5)

README = (
    README_FIRST_WORDS
    + """ (cxrfast synth); they show no person.
Layout and table formats are those of NIH ChestX-ray14. Labels are true and complete for the eight classes with boxes.
Not for any medical use.

images {images}, image size {image_size}, seed {seed}, boxed fraction {boxed_fraction}, patients {patients}
"""
)


@dataclass(frozen=True)
class Phantom:
    image: np.ndarray  # uint8 [S, S]
    boxes: dict[str, tuple[int, int, int, int]]  # class -> xyxy in pixels, half-open; its keys are the labels


def draw_phantom(seed: int, patient: int, index: int, image_size: int) -> Phantom:
    """Image ``index``, of ``patient``. It depends on the arguments only, not on other images."""
    build = draw_build(seed, patient)
    rng = np.random.default_rng([seed, _IMAGE, index])
    wanted = _draw_findings(rng)
    big_heart = "Cardiomegaly" in wanted
    chest = Chest(build, Pose.draw(rng), image_size, rng, heart_scale=rng.uniform(1.5, 1.75) if big_heart else 1.0)
    density, vessels = chest.density(rng), 0.10 * chest.vessels(rng) * chest.lungs
    regions = {"Cardiomegaly": chest.heart > 0.5} if big_heart else {}
    taken = np.zeros((image_size, image_size), bool)
    for name in wanted:
        lesion = None if name == "Cardiomegaly" else draw_lesion(name, chest, rng, taken)
        if lesion is not None:
            density += lesion.density
            vessels *= lesion.vessels
            regions[name] = lesion.region
            taken |= lesion.region
    image = _expose(density + vessels, chest, rng)
    return Phantom(image, {name: region_box(regions[name]) for name in BOXED_CLASSES if name in regions})


def draw_build(seed: int, patient: int) -> Build:
    return Build.draw(np.random.default_rng([seed, _BUILD, patient]))


def _draw_findings(rng: np.random.Generator) -> list[str]:
    if rng.random() < _NO_FINDING:
        return []
    count = 1 + int(rng.choice(len(_FINDINGS), p=_FINDINGS))
    return [str(name) for name in rng.choice(BOXED_CLASSES, size=count, replace=False)]


def _expose(density: np.ndarray, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Converts density to grey values: scatter, quantum noise, exposure, collimation, side marker."""
    import cv2

    size = chest.size
    grey = density + 0.02 * smooth_noise(rng, size, 3)
    grey = grey + rng.uniform(0.012, 0.03) * rng.standard_normal((size, size), dtype=np.float32)
    grey = np.clip((grey - 0.45) * rng.uniform(0.85, 1.2) + rng.uniform(0.42, 0.54), 0.0, 1.0)
    grey = np.power(grey, np.float32(rng.uniform(0.85, 1.2)))
    image = np.round(grey * 255).astype(np.uint8)
    _add_marker(image, rng)
    if rng.random() < 0.3:
        for row in (image, image.T):
            before, after = (int(share * size) for share in rng.uniform(0.0, 0.035, 2))
            row[:before] = row[size - after :] = 4
    return cv2.GaussianBlur(image, (3, 3), 0.5)


def _add_marker(image: np.ndarray, rng: np.random.Generator) -> None:
    """The lead marker L on the left side of the patient."""
    import cv2

    size = len(image)
    x, y = rng.uniform(0.86, 0.92), rng.uniform(0.05, 0.13)
    place = (int(x * size), int(y * size))
    cv2.putText(image, "L", place, cv2.FONT_HERSHEY_SIMPLEX, size / 420, 235, max(1, size // 160), cv2.LINE_AA)


def _patients(seed: int, patients: int | None) -> Iterator[tuple[int, int]]:
    """Yields (patient, number within the patient) for image 0, 1, …, independent of the number of images."""
    rng = np.random.default_rng([seed, _PATIENTS])
    if patients is None:
        patient = 1
        while True:
            # Most patients have one image, some have several.
            for number in range(min(int(rng.geometric(0.7)), 6)):
                yield patient, number
            patient += 1
    numbers = [0] * patients
    for index in range(sys.maxsize):
        chosen = index if index < patients else int(rng.integers(patients))
        yield chosen + 1, numbers[chosen]
        numbers[chosen] += 1


def write_phantoms(
    root: str | os.PathLike,
    *,
    images: int = 800,
    image_size: int = 256,
    seed: int = 0,
    boxed_fraction: float = 0.3,
    patients: int | None = None,
    progress: bool = True,
) -> Path:
    """Write ``images`` phantoms of ``image_size`` pixels to the new folder ``root``, which is returned.

    A fifth of the patients are on the test list. All their findings have boxes in the table. On the train_val list, the
    fraction ``boxed_fraction`` of the findings has boxes; the rest are unannotated positives. Image i depends on
    ``seed``, ``image_size`` and ``patients`` only, not on the number of images. The file ``phantoms.json`` marks the
    folder as synthetic, with the version of cxrfast and these parameters.

    The folder is created when its content is complete. Raises :class:`UsageError` if it exists and is not empty, or for
    an option out of range, and :class:`CxrfastError` if it cannot be written.
    """
    root = Path(root)
    _check_options(root, images, image_size, seed, boxed_fraction, patients)
    unfinished = Path(os.path.abspath(root)).with_name(f".{root.name}.unfinished-{os.getpid()}")
    try:
        (unfinished / "images").mkdir(parents=True)
        rows = _write_images(unfinished / "images", images, image_size, seed, patients, progress)
        _write_tables(unfinished, rows, image_size, seed, boxed_fraction)
        drawn = {"images": images, "image_size": image_size, "seed": seed, "boxed_fraction": boxed_fraction}
        text = README.format(**drawn, patients=patients or "drawn")
        (unfinished / "README.txt").write_text(text, encoding="utf-8")
        write_marker(unfinished, **drawn, patients=patients)
        os.replace(unfinished, root)  # replaces an empty folder
    except OSError as error:
        raise CxrfastError(f"{root} cannot be written ({error.strerror or error}); choose another folder") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _check_options(
    root: Path, images: int, image_size: int, seed: int, boxed_fraction: float, patients: int | None
) -> None:
    if images < 1:
        raise UsageError(f"number of images is {images}; expected 1 or more")
    if image_size < SMALLEST:
        raise UsageError(f"image size is {image_size}; expected {SMALLEST} pixels or more")
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected 0 or more")
    if not 0 <= boxed_fraction <= 1:
        raise UsageError(f"boxed fraction is {boxed_fraction}; expected a value in [0, 1]")
    if patients is not None and not 1 <= patients <= images:
        raise UsageError(f"number of patients is {patients}; expected 1 to {images}, the number of images")
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is a file; choose a new folder")
    if root.is_dir() and any(root.iterdir()):
        raise UsageError(f"{root} is not empty; choose a new folder, or remove it first")


@dataclass(frozen=True)
class _Row:
    index: int
    image: str
    patient: int
    number: int
    boxes: dict[str, tuple[int, int, int, int]]


def _write_images(
    folder: Path, images: int, image_size: int, seed: int, patients: int | None, progress: bool
) -> list[_Row]:
    import cv2
    from tqdm import tqdm

    rows = []
    whose = islice(_patients(seed, patients), images)
    # disable=None: no progress bar if stderr is not a terminal
    bar = tqdm(whose, total=images, desc="drawing phantoms", unit="image", disable=None if progress else True)
    for index, (patient, number) in enumerate(bar):
        phantom = draw_phantom(seed, patient, index, image_size)
        name = f"{patient:08d}_{number:03d}.png"
        if not cv2.imwrite(str(folder / name), phantom.image):
            raise CxrfastError(f"{folder / name} cannot be written; check the free space")
        rows.append(_Row(index, name, patient, number, phantom.boxes))
    return rows


def _write_tables(root: Path, rows: list[_Row], image_size: int, seed: int, boxed_fraction: float) -> None:
    entries = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    ]
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    lists: dict[str, list[str]] = {"train_val_list.txt": [], "test_list.txt": []}
    for row in sorted(rows, key=lambda row: row.image):
        build = draw_build(seed, row.patient)
        labels = "|".join(row.boxes) or NO_FINDING
        entries.append(
            f"{row.image},{labels},{row.number:03d},{row.patient:08d},{build.age:03d}Y,{build.sex},PA,"
            f"{image_size},{image_size},{SIDE_IN_MM / image_size:.3f},{SIDE_IN_MM / image_size:.3f}"
        )
        is_test = np.random.default_rng([seed, _LIST, row.patient]).random() < _TEST_SHARE
        lists["test_list.txt" if is_test else "train_val_list.txt"].append(row.image)
        drawn = np.random.default_rng([seed, _BOX, row.index]).random(len(row.boxes))
        for (name, box), chance in zip(row.boxes.items(), drawn, strict=True):
            if is_test or chance < boxed_fraction:
                x0, y0, x1, y1 = (value * FRAME / image_size for value in box)
                label = "Infiltrate" if name == "Infiltration" else name  # as in the released table
                boxes.append(f"{row.image},{label},{x0:.6g},{y0:.6g},{x1 - x0:.6g},{y1 - y0:.6g}")
    (root / "Data_Entry_2017.csv").write_text("\n".join(entries) + "\n", encoding="utf-8")
    (root / "BBox_List_2017.csv").write_text("\n".join(boxes) + "\n", encoding="utf-8")
    for name, images in lists.items():
        (root / name).write_text("\n".join(images), encoding="utf-8")  # without a final newline, as released
