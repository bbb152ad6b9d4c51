"""The runs of the comparison on phantoms: rows, shares of annotated images, seeds and settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrfast.errors import UsageError
from cxrfast.experiments.demo import SETTINGS
from cxrfast.training import RunConfig, build_config

IMAGES = 2000
IMAGE_SIZE = 64
SHARES = (0.01, 0.05, 0.2)
SEEDS = (1001, 1002, 1003)


@dataclass(frozen=True)
class StudyRow:
    """A method, or Rozenberg's method without one of its contributions."""

    name: str  # as in --rows
    title: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    boxes: bool = True  # whether it learns from boxes; otherwise, the share of annotated images has no effect
    begins_with: str | None = None  # the row whose training is the first stage of this one
    extra: bool = False  # an interpretation of the paper or an ablation that is only run on request (--rows)


ROWS: dict[str, StudyRow] = {
    row.name: row
    for row in (
        StudyRow("rozenberg", "Rozenberg et al.", "rozenberg", begins_with="no-crf"),
        StudyRow("no-crf", "… without the CRF", "rozenberg", {"crf_epochs": 0}),
        StudyRow("no-antialias", "… without anti-aliasing", "rozenberg", {"antialias": False}),
        # Li's loss trains the noisy-OR of the patches, which is therefore the image score
        StudyRow("li-loss", "… with Li's loss", "rozenberg", {"loss": "li", "image_pooling": "noisy_or"}),
        StudyRow("gamma-per-class", "… with γ per class", "rozenberg", {"gamma": "data-per-class"}, extra=True),
        StudyRow("li-unary", "… with unaries by Li's loss", "rozenberg", {"unary_loss": "li"}, extra=True),
        StudyRow("first-pass", "… with Eq. 5 and 8 (σ)", "rozenberg", {"loss": "area_sigmoid"}, extra=True),
        StudyRow(
            "learnt-thresholds",
            "… with thresholds trained by the loss",
            "rozenberg",
            {"thresholds": "learnt"},
            extra=True,
        ),
        StudyRow("li", "Li et al.", "li"),
        StudyRow("sgl", "Seibold et al. (SGL)", "sgl", boxes=False),
        StudyRow("zhang", "Zhang et al.", "zhang", boxes=False),
        StudyRow("wang", "Wang et al.", "wang", boxes=False),
        StudyRow("chexnet", "CheXNet", "chexnet", boxes=False),
    )
}

CONTRIBUTIONS: Mapping[str, tuple[str, str]] = {
    "the CRF": ("rozenberg", "no-crf"),
    "anti-aliasing": ("rozenberg", "no-antialias"),
    "the area loss, instead of Li's": ("rozenberg", "li-loss"),
    "all three (Rozenberg against Li)": ("rozenberg", "li"),
}
"""The contributions of the paper: for each, the row with it and the row without it."""

_SHARED: Mapping[str, Any] = {
    "image_size": IMAGE_SIZE,
    "split": "official",  # every lesion of the phantoms' test list has a box
    "batch_size": 16,
    "weight_decay": 1e-4,
}
_PATCHES: Mapping[str, Any] = {"backbone": "resnetv2_nano", "grid": 8}
_OWN: Mapping[str, Mapping[str, Any]] = {
    "rozenberg": {"epochs": 20, "options": {**_PATCHES, "crf_epochs": 5, "crf_kernel_size": 7}},
    "li": {"epochs": 20, "options": _PATCHES},
    "sgl": {"epochs": 20, "lr_step": 14, "options": {"output_stride": 8}},
    "zhang": {"epochs": 5, "lr_milestones": [3], "options": {"hard_after": 3}},
    "wang": {"epochs": 16, "options": {"backbone": "resnet_nano"}},
    "chexnet": {"epochs": 12, "lr_step": 4},
}
"""Settings of a method that differ from those of the demo; chosen on phantoms of seed 100."""


@dataclass(frozen=True)
class StudyRun:
    """One training run."""

    row: StudyRow
    share: float  # of annotated images; 0 for a row that learns only from labels
    seed: int

    @property
    def title(self) -> str:
        return f"{self.row.name}, {self.share:.3g} annotated, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The folder of the run, relative to the folder of the study."""
        return Path("runs") / f"{self.row.name}-{self.share:g}" / f"seed-{self.seed}"

    @property
    def phantoms(self) -> Path:
        """The folder of its phantoms, relative to the folder of the study."""
        return Path("phantoms") / f"seed-{self.seed}"

    def config(self, out: Path, settings: Mapping[str, Any]) -> RunConfig:
        """The configuration of the run; `settings` take precedence over those of the method."""
        demo = SETTINGS[self.row.method]
        own = _OWN.get(self.row.method, {})
        options = {**demo["options"], **own.get("options", {}), **self.row.options}
        return build_config(
            {
                **_SHARED,
                **demo,
                **own,
                **settings,
                "method": self.row.method,
                "data": out / self.phantoms,
                "annotated": self.share,
                "seed": self.seed,
                "options": options,
            }
        )


@dataclass(frozen=True)
class Study:
    """The plan of a study: every row with every share and every seed. By default, all rows except the extra ones."""

    rows: Sequence[StudyRow] = tuple(row for row in ROWS.values() if not row.extra)
    shares: Sequence[float] = SHARES
    seeds: Sequence[int] = SEEDS
    images: int = IMAGES
    settings: Mapping[str, Any] = field(default_factory=dict)  # for all runs, such as epochs and device

    def __post_init__(self) -> None:
        for share in self.shares:
            if not 0 < share <= 1:
                raise UsageError(f"annotated: expected shares above 0 and up to 1, got {share:g}")

    @property
    def cells(self) -> list[StudyRun]:
        """All runs, seed by seed, so that methods can be compared early."""
        return [
            StudyRun(row, share, seed)
            for seed in self.seeds
            for row in self.rows
            for share in (self.shares if row.boxes else (0.0,))
        ]


def choose_rows(names: Sequence[str]) -> tuple[StudyRow, ...]:
    """The rows with these names, in the table's order."""
    for name in names:
        if name not in ROWS:
            raise UsageError(f"rows: expected some of {', '.join(ROWS)}, got {name!r}")
    return tuple(row for row in ROWS.values() if row.name in names)
