"""Every reader of files, on files changed at random: a value or one line of error, in bounded time and memory.

A failure names the seed of its change: `pytest tests/fuzz -k READER --fuzz-seed SEED --fuzz N` repeats it.
"""

import io
import random
import resource
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from cxrfast.data import Splits, read_data
from cxrfast.data.folds import FoldSplits
from cxrfast.data.images import image_size, read_image
from cxrfast.data.rle import decode_rle
from cxrfast.errors import CxrfastError
from cxrfast.evaluation import EvaluationRecord
from cxrfast.inference import load_predictor
from cxrfast.predictions.files import read_files
from cxrfast.predictions.table import read_predictions
from cxrfast.runs import RunDirectory
from cxrfast.runs.foreign_weights import match_classifier, read_foreign
from cxrfast.training.checkpoint import load_checkpoint
from cxrfast.training.config import build_config
from tests.fuzz.mutations import BYTES, Mutation, table, values
from tests.report.made_up import made_up

SECONDS = 30  # for one file
GROWTH = 2**31  # bytes that the process may grow by

Read = Callable[[Path], Any]


class Reader(NamedTuple):
    file: str  # the name of the file that is changed
    content: bytes
    read: Read
    mutations: tuple[Mutation, ...]


def picture(kind: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def deep_picture() -> bytes:
    import cv2

    pixels = np.random.default_rng(0).integers(0, 2**16, (40, 50, 3), dtype=np.uint16)
    return cv2.imencode(".png", pixels)[1].tobytes()


def dicom(folder: Path, syntax: str) -> bytes:
    from tests.data.test_declared_sizes import dicom as make

    pixels = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    dataset = make(syntax, pixels.tobytes(), 40, 50)
    dataset.PatientName, dataset.WindowCenter, dataset.WindowWidth = "A^B", "128", "256"
    if syntax.startswith("1.2.840.10008.1.2.4") or syntax == "1.2.840.10008.1.2.5":
        dataset = make("1.2.840.10008.1.2.1", pixels.tobytes(), 40, 50)
        dataset.compress(syntax)
    path = folder / "made.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def read_with_size(path: Path) -> Any:
    with suppress(CxrfastError):
        image_size(path)
    return read_image(path)


def read_any(path: Path) -> Any:
    return read_files([path], ("Mass", "Nodule", "Edema"))


def read_run_file(path: Path) -> Any:
    run = RunDirectory(path.parent)
    return run.read_splits(), run.read_environment(), run.read_metrics()


def predict(path: Path) -> Any:
    predictor = load_predictor(path, device="cpu")
    with torch.inference_mode():
        return predictor(torch.zeros(1, 1, predictor.image_size, predictor.image_size)).scores.shape


def boxes_csv() -> bytes:
    lines = ["image,class,x1,y1,x2,y2,score", *(f"{n}.png,Mass,{n},10,{n + 50},90,0.{n + 1}" for n in range(6))]
    return "\n".join(lines).encode()


def coco() -> bytes:
    import json

    images = [{"id": n, "file_name": f"{n}.png", "width": 8, "height": 8} for n in range(3)]
    mask = {"size": [8, 8], "counts": [10, 4, 50]}
    shapes = [{"bbox": [1, 1, 3, 4]}, {"segmentation": mask}, {"segmentation": {"size": [8, 8], "counts": ":4b1"}}]
    found = [{"image_id": n, "category_id": 1, "score": 0.5, **shapes[n]} for n in range(2)]
    return json.dumps({"images": images, "categories": [{"id": 1, "name": "Mass"}], "annotations": found}).encode()


def maps_npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        images=np.array(["a.png", "b.png"]),
        classes=np.array(["Mass", "Nodule", "Edema"]),
        maps=np.random.default_rng(0).random((2, 3, 4, 4), dtype=np.float32),
        scores=np.full((2, 3), 0.5),
        thresholds=np.full(3, 0.5),
        image_size=np.array(64),
    )
    return stream.getvalue()


@pytest.fixture(scope="session")
def readers(tmp_path_factory, trained, phantoms) -> dict[str, Reader]:
    folder = tmp_path_factory.mktemp("made")
    run = RunDirectory(trained)
    evaluated = made_up(folder / "images", 12, ("Mass", "Nodule"))
    evaluated.record.save(folder / "evaluation-test.json")
    evaluated.predictions.write_csv(folder / "predictions.csv")
    folds = (
        '{"by": "patient", "folds": [{"test": ["a"], "val": []}, {"test": ["b"], "val": ["c"]}], "unannotated": ["c"]}'
    )
    torch.save(
        {"state_dict": {"conv1.weight": torch.zeros(4, 3, 3, 3), "fc.weight": torch.zeros(2, 4)}}, folder / "w.pt"
    )

    def data(path: Path) -> Any:
        return read_data(path.parent)

    def config(path: Path) -> Any:
        return build_config(RunDirectory(path.parent).read_config())

    def foreign(path: Path) -> Any:
        return match_classifier(read_foreign(path), str(path))

    text = (*BYTES, table)
    return {
        "png": Reader("a.png", picture("PNG"), read_with_size, BYTES),
        "png of 16-bit colour": Reader("a.png", deep_picture(), read_with_size, BYTES),
        "jpeg": Reader("a.jpg", picture("JPEG"), read_with_size, BYTES),
        "bmp": Reader("a.bmp", picture("BMP"), read_with_size, BYTES),
        "tiff": Reader("a.tif", picture("TIFF"), read_with_size, BYTES),
        "tiff, deflated": Reader("a.tif", picture("TIFF", compression="tiff_deflate"), read_with_size, BYTES),
        "dicom": Reader("a.dcm", dicom(folder, "1.2.840.10008.1.2.1"), read_with_size, BYTES),
        "dicom, deflated": Reader("a.dcm", dicom(folder, "1.2.840.10008.1.2.1.99"), read_with_size, BYTES),
        "dicom, run lengths": Reader("a.dcm", dicom(folder, "1.2.840.10008.1.2.5"), read_with_size, BYTES),
        "dicom, jpeg 2000": Reader("a.dcm", dicom(folder, "1.2.840.10008.1.2.4.90"), read_with_size, BYTES),
        "label table": Reader("Data_Entry_2017.csv", (phantoms / "Data_Entry_2017.csv").read_bytes(), data, text),
        "box table": Reader("BBox_List_2017.csv", (phantoms / "BBox_List_2017.csv").read_bytes(), data, text),
        "predictions.csv": Reader("predictions.csv", (folder / "predictions.csv").read_bytes(), read_predictions, text),
        "csv of boxes": Reader("a.csv", boxes_csv(), read_any, text),
        "coco": Reader("a.json", coco(), read_any, (*BYTES, values, values)),
        "npz": Reader("a.npz", maps_npz(), read_any, BYTES),
        "splits": Reader("splits.json", run.splits.read_bytes(), Splits.load, (*BYTES, values, values)),
        "folds": Reader("splits.json", folds.encode(), FoldSplits.load, (*BYTES, values, values)),
        "env.json": Reader("env.json", run.environment.read_bytes(), read_run_file, (*BYTES, values)),
        "metrics.jsonl": Reader("metrics.jsonl", run.metrics.read_bytes(), read_run_file, BYTES),
        "config.yaml": Reader("config.yaml", run.config.read_bytes(), config, BYTES),
        "weights": Reader("a.safetensors", run.best.read_bytes(), predict, BYTES),
        "checkpoint": Reader("last.ckpt", run.checkpoint.read_bytes(), load_checkpoint, BYTES),
        "weights of others": Reader("w.pt", (folder / "w.pt").read_bytes(), foreign, BYTES),
        "evaluation": Reader(
            "evaluation-test.json",
            (folder / "evaluation-test.json").read_bytes(),
            EvaluationRecord.load,
            (*BYTES, values, values),
        ),
    }


NAMES = (
    *("png", "png of 16-bit colour", "jpeg", "bmp", "tiff", "tiff, deflated"),
    *("dicom", "dicom, deflated", "dicom, run lengths", "dicom, jpeg 2000"),
    *("label table", "box table", "predictions.csv", "csv of boxes", "coco", "npz", "splits", "folds"),
    *("env.json", "metrics.jsonl", "config.yaml", "weights", "checkpoint", "weights of others", "evaluation"),
)


@contextmanager
def at_most(seconds: int):
    def late(*_):
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Read, path: Path) -> str:
    """What came of reading: "read", "refused", or what is wrong."""
    try:
        with at_most(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except CxrfastError as error:
        message = str(error)
        if "\n" in message.replace(str(path), "") and len(message.splitlines()) > 1:
            return f"an error of several lines: {message!r}"
        return "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
    return "read"


def test_every_reader_has_a_test(readers):
    assert set(readers) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_changed_files_are_read_or_refused_in_one_line(name, readers, tmp_path, phantoms, changes, fuzz_seed, counts):
    reader = readers[name]
    if reader.file.startswith(("Data_Entry", "BBox")):  # the tables are read with everything beside them
        for path in phantoms.iterdir():
            if path.is_file():
                shutil.copy(path, tmp_path)
        (tmp_path / "images").symlink_to(phantoms / "images")
    path = tmp_path / reader.file
    path.write_bytes(reader.content)
    if name != "weights of others":  # a network too small to be known
        assert outcome(reader.read, path) == "read"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = []
    for number in range(changes):
        source = random.Random(f"{fuzz_seed}/{name}/{number}")
        mutation = source.choice(reader.mutations)
        path.write_bytes(mutation(reader.content, source))
        found = outcome(reader.read, path)
        counts[name, found if found in ("read", "refused") else "wrong"] += 1
        if found not in ("read", "refused"):
            wrong.append(f"change {number} ({mutation.__name__}): {found}")
    assert not wrong, f"{len(wrong)} of {changes} with seed {fuzz_seed}:\n" + "\n".join(wrong[:20])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < GROWTH, f"the process grew by {grown / 2**20:.0f} MiB"


def test_run_lengths_that_take_no_end():
    for counts in ("o" * 1_000_000, "ooooooooooooooooooooo1"):
        with at_most(SECONDS), pytest.raises(CxrfastError, match="a number of more than 60 bits"):
            decode_rle({"counts": counts}, 8, 8, "a.json")
    with at_most(SECONDS), pytest.raises(CxrfastError, match="an image of 1000000×1000000 pixels, more than"):
        decode_rle({"counts": [10**12]}, 10**6, 10**6, "a.json")
