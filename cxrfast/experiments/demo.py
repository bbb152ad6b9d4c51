"""The demo: draws phantoms, trains, evaluates, and localises diseases on a held-out image."""

from datetime import datetime
from pathlib import Path
from typing import Any

from cxrfast._logging import get_logger, indented
from cxrfast.data import Splits, read_data, write_phantoms
from cxrfast.errors import UsageError
from cxrfast.experiments.evaluate_run import evaluate_run
from cxrfast.inference import load_predictor, localize, save_overlay
from cxrfast.report.terminal import evaluation_to_text
from cxrfast.runs import RunDirectory
from cxrfast.runs.directory import RUNS
from cxrfast.training import build_config, train

IMAGES = 1000
IMAGE_SIZE = 128
BOXED_FRACTION = 0.3
SHARED: dict[str, Any] = {
    "image_size": IMAGE_SIZE,
    "split": "official",  # all lesions on the test list have boxes
    "batch_size": 16,
    "weight_decay": 1e-4,
    "device": "cpu",
}
_PATCHES: dict[str, Any] = {"backbone": "resnetv2_micro", "output_stride": 8, "grid": 16, "hidden": 128}
SETTINGS: dict[str, dict[str, Any]] = {
    "rozenberg": {
        "epochs": 18,
        "lr": 2e-3,
        "lr_decay": 0.87,
        "options": {
            **_PATCHES,
            "crf_kernel_size": 7,
            "crf_epochs": 4,
        },
    },
    "li": {"epochs": 18, "lr": 2e-3, "lr_decay": 0.87, "options": _PATCHES},
    "chexnet": {
        "epochs": 18,
        "lr": 2e-3,
        "lr_decay": 0.3,
        "lr_step": 6,
        "options": {"backbone": "densenet_micro", "output_stride": 8, "upsample": 2},
    },
    "wang": {
        "epochs": 18,
        "lr": 2e-3,
        "lr_decay": 0.3,
        "lr_step": 6,
        "options": {"backbone": "resnet_micro", "output_stride": 8, "upsample": 2, "transition_channels": 256},
    },
    "sgl": {
        "epochs": 24,
        "lr": 2e-3,
        "lr_decay": 0.1,
        "lr_step": 16,
        # Softmax pooling is close to the mean, so that a lesion on a tenth of the image never reaches a score of ½. A
        # gate at ½ would reject all small lesions. docs/results/sgl_phantoms.md compares λ = 20 with λ = 1.
        "options": {"backbone": "resnet_nano", "output_stride": 16, "lam": 1.0, "gate": None},
    },
    "zhang": {
        "epochs": 8,  # every image is an anchor once, so that an epoch takes as long as three of other methods
        "batch_size": 24,
        "lr": 2e-3,
        "lr_decay": 0.3,
        "lr_milestones": [5],
        "options": {"backbone": "densenet_micro", "output_stride": 8, "upsample": 2, "hard_after": 4},
    },
    "yao": {
        "epochs": 20,
        "lr": 2e-3,
        "lr_decay": 0.3,
        "lr_step": 7,
        "options": {"width": 32, "growth": 16, "dense_layers": 2},
    },
    "cia": {
        "epochs": 18,
        "lr": 2e-3,
        "lr_decay": 0.87,
        "lr_step": 1,
        "optimizer": "adam",
        "options": {"backbone": "resnet_nano", "output_stride": 8, "fine": 2, "hidden": 128, "negatives": 64},
    },
}
"""For each method, settings that two CPU cores train in minutes. They are for phantoms only; docs/papers.md has the
settings of the papers."""

logger = get_logger(__name__)


def run_demo(out: Path | None = None, *, method: str = "rozenberg", seed: int = 0) -> RunDirectory:
    """Draw phantoms, train, evaluate and localise one image, all in the folder `out`; logs the paths of the files."""
    if method not in SETTINGS:
        raise UsageError(f"method: expected one of {', '.join(SETTINGS)}, got {method!r}")
    out = RUNS / f"demo-{datetime.now():%Y%m%d-%H%M%S}" if out is None else Path(out)
    phantoms, folder = out / "phantoms", out / "run"
    logger.info(f"1. {IMAGES} phantom X-rays (drawn, not photographed) into {phantoms}")
    write_phantoms(phantoms, images=IMAGES, image_size=2 * IMAGE_SIZE, boxed_fraction=BOXED_FRACTION, seed=seed)
    logger.info("2. training")
    config = build_config({**SHARED, **SETTINGS[method], "method": method, "data": phantoms, "seed": seed})
    with indented("   "):
        run = train(config, folder)
    logger.info("\n3. evaluation on held-out phantoms")
    assessment = evaluate_run(run.path)
    logger.info(evaluation_to_text(assessment.result))
    model = load_predictor(run.path)
    image = _held_out_image(run, phantoms)
    result = localize(model, image)
    picture = out / "localized" / f"{image.stem}.png"
    save_overlay(result, picture)
    result.save_json(picture.with_suffix(".json"))
    logger.info(f"4. localised the held-out phantom {image.name}\n")
    for what, path in (
        ("picture", picture),
        ("boxes", picture.with_suffix(".json")),
        ("weights", run.best),
        ("report", assessment.page),
        ("numbers", assessment.report),
        ("predictions", assessment.predictions),
        ("training log", run.metrics),
    ):
        logger.info(f"   {what:<13}{path}")
    logger.info(
        f"\nnext: cxrfast localize {phantoms / 'images'} --checkpoint {run.path}\nResearch use only; not for diagnosis."
    )
    return run


def _held_out_image(run: RunDirectory, phantoms: Path) -> Path:
    """The first test image with two annotated lesions, or with the number closest to two."""
    records = Splits.load(run.splits).part("test", read_data(phantoms).records)
    return min(records, key=lambda record: abs(len(record.boxes) - 2)).path
