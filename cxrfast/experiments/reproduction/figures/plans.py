"""The figures of Seibold et al. 2020 as plans of `cxrfast reproduce`: the grids of presets, and the paper's claims."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cxrfast._files import write_text
from cxrfast._logging import get_logger
from cxrfast.devices import resolve_device
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.bags import (
    PRESETS,
    BagPlan,
    BagPreset,
    BagSource,
    finished,
    parse_fields,
    read_source,
    run_grid,
)
from cxrfast.experiments.bags.images import DATASETS
from cxrfast.experiments.bags.results import Summary, markdown
from cxrfast.experiments.reproduction.figures.claims import CLAIMS, Evidence, Results
from cxrfast.experiments.reproduction.settings import Overrides
from cxrfast.published import Statement, find_statements
from cxrfast.report.terminal.layout import ruled, wrap

PAPER = "seibold2020"
_IMAGES = {"mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}  # training, test
logger = get_logger(__name__)

_SETTINGS = ("epochs", "batch_size", "lr", "seed", "device")  # options of `cxrfast reproduce` for figures
_NOT_SET = ("dataset", "method")  # set by --data and --rows
_SMALL: dict[str, Any] = {
    "network": "lenet5", "bag_size": (5, 10), "bag_size_std": (1.0,), "train_bags": (20, 40), "runs": 2, "epochs": (3,),
    "batch_size": 4, "lr": 1e-3, "val_bags": 20, "test_bags": 60,
}  # fmt: skip
_SMALL_OF: dict[str, dict[str, Any]] = {
    "seibold5a": {"bag_size": (10,)},
    "seibold6": {"bag_size_std": (0.0,), "train_bags": (40,), "positives": ("1", "2", "5")},
}


@dataclass(frozen=True)
class Claim:
    """A claim of the paper about its figure, paraphrased, with our numbers."""

    id: str
    place: str
    says: str
    evidence: Evidence


@dataclass(frozen=True)
class ComparedFigure:
    """The results for a figure, with the paper's claims about it."""

    name: str
    title: str
    sources: str  # where the preset's values come from
    deviations: tuple[str, ...]  # from the paper's setting
    failed_because: str | None
    summaries: tuple[Summary, ...]
    claims: tuple[Claim, ...]
    written: tuple[Path, ...] = ()

    @property
    def failed(self) -> bool:
        return self.failed_because is not None

    @property
    def text(self) -> str:
        """The comparison for a terminal."""
        lines = ["", *wrap(self.title), *wrap(self.sources)]
        lines += [part for line in self._settings() for part in wrap(line, "  " if line.startswith("- ") else "")]
        lines += wrap(f"failed: {self.failed_because}") if self.failed else []
        for measure, title in _TITLES.items():
            lines += ["", title, "", markdown(self.summaries, measure)]
        lines += ["", *wrap("Claims of the paper about the figure, which prints no numbers, and our numbers:")]
        for claim in self.claims:
            lines += ["", *wrap(f"{claim.place}: {claim.says}"), *wrap(f"Ours: {claim.evidence.summary}.", "  ")]
            if claim.evidence.rows:
                table = [list(claim.evidence.columns), *map(list, claim.evidence.rows)]
                lines += [f"  {line}" for line in ruled(table, below=0)]
        return "\n".join(lines) + "\n"

    def _settings(self) -> list[str]:
        if not self.deviations:
            return ["The paper's setting, as far as its text and its published script state it."]
        header = "Not the paper's setting. These numbers do not reproduce the figure:"
        return [header, *(f"- {text}" for text in self.deviations)]

    def to_markdown(self, picture: str | None) -> str:
        """The comparison as Markdown."""
        lines = [f"# {self.title}", "", self.sources, ""]
        lines += [f"**{line}**" if self.deviations and not line.startswith("- ") else line for line in self._settings()]
        lines += ["", f"Failed: {self.failed_because}"] if self.failed else []
        for measure, title in _TITLES.items():
            lines += ["", f"## {title}", "", markdown(self.summaries, measure)]
        lines += ["", f"![IoU and AUC]({picture})"] if picture else []
        lines += ["", "## Claims of the paper about the figure, and our numbers", ""]
        lines += ["The figure prints no numbers. The claims are paraphrased."]
        for claim in self.claims:
            lines += ["", f"**{claim.place}.** {claim.says}", "", f"Ours: {claim.evidence.summary}."]
            if claim.evidence.rows:
                lines += ["", _row(claim.evidence.columns), "|---" * len(claim.evidence.columns) + "|"]
                lines += [_row(row) for row in claim.evidence.rows]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        return {
            "figure": self.name,
            "title": self.title,
            "sources": self.sources,
            "papers_setting": not self.deviations and not self.failed,
            "deviations": list(self.deviations),
            "failed": self.failed_because,
            "summaries": [{**s._asdict(), "iou": s.iou._asdict(), "auc": s.auc._asdict()} for s in self.summaries],
            "claims": [asdict(claim) for claim in self.claims],
        }


_TITLES = {
    "iou": "IoU of predicted and true positive instances: mean (min–max) over runs",
    "auc": "AUC of the test bags: mean (min–max) over runs",
}


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


@dataclass(frozen=True)
class Figure:
    """A preset of the bag experiments as a plan; see :class:`cxrfast.experiments.reproduction.interface.Plan`."""

    preset: BagPreset

    @property
    def name(self) -> str:
        return self.preset.name

    @property
    def title(self) -> str:
        return self.preset.title

    @property
    def data(self) -> str:
        return f"torchvision's folder of {self.preset.plan.dataset}, or an .npz file of such images"

    def listing(self) -> Sequence[str]:
        plan = self.preset.plan
        sizes, counts, positives = plan.bag_size, plan.train_bags, plan.positives
        runs = plan.runs * len(plan.method) * len(sizes) * len(counts) * len(positives)
        epochs = dict(zip(sizes, plan.epochs * (len(sizes) if len(plan.epochs) == 1 else 1), strict=True))
        seen = sum(epochs[size] * size for size in sizes) * sum(counts)
        seen *= plan.runs * len(plan.method) * len(positives)
        cost = f"{runs} runs, {seen / 1e9:.1f} billion images of 32×32 pixels through {plan.network} in training"
        return [f"    {', '.join(plan.method)}", f"    {cost}"]

    def run(
        self,
        data: Path,
        out: Path,
        *,
        rows: Sequence[str] | None,
        overrides: Overrides,
    ) -> ComparedFigure:
        """Do the runs that are not in ``out/runs/NAME`` yet, and write ``out/NAME.md`` and ``out/NAME.json``."""
        plan = self.plan(data, rows, overrides)
        seed = overrides.settings.get("seed", 0)
        device = resolve_device(overrides.settings.get("device") or "auto")
        source = _read(plan, data, seed)
        grid = plan.grid(source, seed)
        differs = self._deviations(plan, source)
        folder = out / "runs" / self.name
        logger.info(f"{self.title}\n{len(grid)} runs, in {folder}")
        if differs:
            logger.warning(f"NOT THE PAPER'S SETTING: {'; '.join(differs)}")
        failed = None
        try:
            summaries = run_grid(source, grid, folder, device=device)
        except UsageError:
            raise
        except CxrfastError as error:
            summaries, failed = finished(source, grid, folder), str(error)
        claims = _claims(self.name, summaries)
        compared = ComparedFigure(
            self.name, self.title, self.preset.sources(), differs, failed, tuple(summaries), claims
        )
        return _write(compared, out, folder)

    def plan(self, data: Path, rows: Sequence[str] | None, overrides: Overrides) -> BagPlan:
        """The preset with the user's overrides.

        Raises:
            UsageError: an option or a row that the figure does not have.
        """
        plan = self.preset.plan
        if overrides.folds is not None:
            raise UsageError(f"folds: expected none, because {self.name} is not cross-validated; leave it out")
        for name in overrides.settings:
            if name not in _SETTINGS:
                taken = ", ".join(f"--{word.replace('_', '-')}" for word in _SETTINGS)
                raise UsageError(
                    f"{name.replace('_', '-')}: not an option of {self.name}; expected {taken} or --set NAME=VALUE"
                )
        for name in overrides.options:
            if name in _NOT_SET:
                raise UsageError(f"{name}: cannot be set with --set; use {'--data' if name == 'dataset' else '--rows'}")
        if overrides.scale == "small":
            plan = plan.changed({**_SMALL, **_SMALL_OF.get(self.name, {})})
        shared = {name: overrides.settings[name] for name in _SETTINGS[:3] if name in overrides.settings}
        plan = plan.changed(parse_fields({**overrides.options, **shared}))
        for name in rows or ():
            if name not in plan.method:
                raise UsageError(f"rows: expected some of {', '.join(plan.method)} for {self.name}, got {name!r}")
        method = tuple(name for name in plan.method if not rows or name in rows)
        changes: dict[str, Any] = {"positive_class": plan.positive_class or DATASETS[plan.dataset], "method": method}
        return replace(plan, dataset=str(data) if data.suffix == ".npz" else plan.dataset, **changes)

    def _deviations(self, plan: BagPlan, source: BagSource) -> tuple[str, ...]:
        paper = self.preset.plan
        dataset = paper.dataset
        known = replace(paper, positive_class=paper.positive_class or DATASETS[dataset])
        found = list(replace(plan, dataset=dataset).differences(known))
        images = len(source.train.images), len(source.test.images)
        if plan.dataset != dataset:
            found.append(f"images of {Path(plan.dataset).name} instead of {dataset}")
        if images != _IMAGES[dataset]:
            counts = " and ".join(f"{count:,}" for count in images)
            theirs = " and ".join(f"{count:,}" for count in _IMAGES[dataset])
            found.append(f"{counts} images for training and testing instead of the {theirs} of {dataset}")
        for statement in find_statements(paper=PAPER, method="bags", status="deviation"):
            found.append(f"{(statement.does or '').rstrip('.')} ({statement.place})")
        return tuple(found)


def _read(plan: BagPlan, data: Path, seed: int) -> BagSource:
    if plan.dataset.endswith(".npz"):
        return read_source(plan.dataset, positive_class=plan.positive_class, seed=seed)
    fetch = f"to fetch it: cxrfast bags --dataset {plan.dataset} --root {data} --download"
    if not data.is_dir():
        raise UsageError(f"data: expected a folder or an .npz file, got {data}; {fetch}")
    return read_source(plan.dataset, data, positive_class=plan.positive_class, fetch=fetch)


def _claims(figure: str, summaries: Sequence[Summary]) -> tuple[Claim, ...]:
    stated: dict[str, Statement] = {of.id: of for of in find_statements(paper=PAPER)}
    results = Results(summaries)
    if not summaries:
        return ()
    return tuple(
        Claim(name, stated[name].place, stated[name].says, measured(results)) for name, measured in CLAIMS[figure]
    )


def _write(compared: ComparedFigure, out: Path, folder: Path) -> ComparedFigure:
    page, report = out / f"{compared.name}.md", out / f"{compared.name}.json"
    axis = "by_positives" if compared.name == "seibold6" else "by_train_bags"
    pictures = sorted(folder.glob(f"{axis}*.png"))
    picture = pictures[0].relative_to(out).as_posix() if pictures else None
    write_text(page, compared.to_markdown(picture))
    write_text(report, json.dumps(compared.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return replace(compared, written=(page, report, *pictures))


FIGURES: tuple[Figure, ...] = tuple(Figure(preset) for preset in PRESETS.values())
