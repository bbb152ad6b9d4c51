"""All combinations of methods, bag sizes, numbers of training bags and runs. Finished runs are not repeated."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cxrfast._files import atomic_path, write_text
from cxrfast._logging import get_logger, printable
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.bags.drawing import parse_positives
from cxrfast.experiments.bags.experiment import BagOutcome, BagSettings, Epoch, train_bags
from cxrfast.experiments.bags.images import BagSource
from cxrfast.experiments.bags.methods import METHODS, Spelling
from cxrfast.experiments.bags.plots import Example, plot_examples, plot_summaries
from cxrfast.experiments.bags.results import RunTable, Summary, markdown, run_key, summarize, write_summary

logger = get_logger(__name__)

T = TypeVar("T")
_EXAMPLES = {True: 3, False: 1}  # number of example bags for the picture, by label


def make_grid(
    base: BagSettings,
    methods: Sequence[str],
    sizes: Sequence[int],
    train_bags: Sequence[int],
    runs: int,
    *,
    positives: Sequence[str] = ("natural",),
    bag_size_std: Sequence[float] = (),
    epochs: Sequence[int] = (),
    steps: Sequence[int] = (),
) -> list[BagSettings]:
    """The settings of all combinations.

    Options that a method does not take are set to None, so that they do not distinguish its runs.

    Args:
        base: settings that all runs share. Its pooling applies to methods that are written without one.
        methods: as in :class:`cxrfast.experiments.bags.methods.Spelling`: "bil", or "bil:max" with another pooling.
        positives: as in :func:`parse_positives`.
        bag_size_std, epochs, steps: one number for all bag sizes, or one for each. Steps are optimisation steps,
            rounded to whole epochs; their number is the same for all sizes of the training set.

    Raises:
        UsageError: an unknown method, or numbers that do not fit together.
    """
    spellings = list(dict.fromkeys(Spelling.parse(method, base.pool) for method in methods))
    if epochs and steps:
        raise UsageError("steps: expected either --epochs or --steps, got both")
    for text, size in itertools.product(positives, sizes):
        if isinstance(count := parse_positives(text), int) and count > size:
            raise UsageError(f"positives: expected at most {size}, the bag size, got {count}; reduce --positives")
    name, lengths = ("steps", steps) if steps else ("epochs", epochs or (base.epochs,))
    length_of = _per_size(name, lengths, sizes)
    stds = _per_size("bag-size-std", bag_size_std or (base.bag_size_std,), sizes)
    grid = []
    # All first runs come before the second runs, so that methods can be compared early
    for run, bags, share, size, spelling in itertools.product(range(runs), train_bags, positives, sizes, spellings):
        options = METHODS[spelling.method].options
        unused: dict[str, Any] = dict.fromkeys({"delta", "lam"} - set(options))
        length = max(1, round(length_of[size] / math.ceil(bags / base.batch_size))) if steps else length_of[size]
        changes: dict[str, Any] = {
            "method": spelling.method,
            "pool": spelling.pool,
            "bag_size": size,
            "bag_size_std": stds[size],
            "train_bags": bags,
            "positives": share,
            "run": run,
            "epochs": length,
        }
        grid.append(dataclasses.replace(base, **changes, **unused))
    return grid


def _per_size(name: str, values: Sequence[T], sizes: Sequence[int]) -> dict[int, T]:
    if len(values) not in (1, len(sizes)):
        raise UsageError(f"{name}: expected one number, or one for each of {len(sizes)} bag sizes, got {len(values)}")
    return dict(zip(sizes, values if len(values) > 1 else [values[0]] * len(sizes), strict=True))


def run_grid(
    source: BagSource,
    grid: Sequence[BagSettings],
    out: Path,
    *,
    device: str = "cpu",
) -> list[Summary]:
    """Do the runs of `grid` that are not in `out` yet, and summarise all of them.

    Files in `out`:

    - ``runs.csv``, written after every run;
    - ``summary.csv`` and ``summary.md``: mean, minimum and maximum over the runs;
    - curves, see :mod:`~cxrfast.experiments.bags.plots`: ``by_train_bags.png`` corresponds to the paper's Figure 4,
      ``by_positives.png`` to its Figure 6;
    - ``examples.png``, which corresponds to Figure 5(b): some test bags of the first runs, with their scores;
    - ``examples/*.npz``: the same as arrays.
    """
    from tqdm import tqdm

    table = RunTable(out / "runs.csv")
    keys = [run_key(source, settings) for settings in grid]
    waiting = [(key, settings) for key, settings in zip(keys, grid, strict=True) if key not in table]
    if len(waiting) < len(grid):
        logger.info(f"{len(grid) - len(waiting)} of {len(grid)} runs are already in {table.path}")
    failed = []
    # Progress counts instances, because runs on large bags take much longer
    work = sum(settings.epochs * settings.train_bags * settings.bag_size for _, settings in waiting)
    with tqdm(total=work, desc="bags", unit="image", unit_scale=True, disable=None) as bar:
        for key, settings in waiting:
            bar.set_description(_title(settings))
            step = settings.train_bags * settings.bag_size

            def after_epoch(epoch: Epoch, step: int = step) -> None:
                bar.set_postfix(epoch=epoch.epoch, val_auc=f"{epoch.val_auc:.3f}", refresh=False)
                bar.update(step)

            try:
                outcome = train_bags(source, settings, device=device, after_epoch=after_epoch)
            except UsageError:
                raise
            except CxrfastError as error:
                failed.append(_title(settings))
                logger.warning(f"{_title(settings)}: {printable(str(error))}")
                continue
            table.add(key, outcome)
            if settings.run == 0:
                _write_example(_example_path(out, key, settings), outcome)
            logger.info(
                f"{_title(settings)}: IoU {outcome.iou:.3f}, AUC {outcome.auc:.3f} "
                f"(epoch {outcome.epoch}, {outcome.seconds:.0f} s)"
            )
    summaries = summarize(table[key] for key in keys if key in table)
    if summaries:
        _write_overview(source, grid, keys, summaries, out)
    if failed:
        raise CxrfastError(f"{len(failed)} of {len(grid)} runs failed: {'; '.join(failed)}")
    return summaries


def finished(source: BagSource, grid: Sequence[BagSettings], out: Path) -> list[Summary]:
    """A summary of the runs of the grid that are finished in `out`."""
    table = RunTable(out / "runs.csv")
    return summarize(table[key] for key in (run_key(source, settings) for settings in grid) if key in table)


def _title(settings: BagSettings) -> str:
    name = Spelling(settings.method, settings.pool).label
    positive = "" if settings.positives == "natural" else f", {settings.positives} positive"
    return f"{name}, {settings.train_bags} bags of {settings.bag_size}{positive}, run {settings.run + 1}"


def _write_overview(
    source: BagSource, grid: Sequence[BagSettings], keys: Sequence[Any], summaries: list[Summary], out: Path
) -> None:
    write_summary(out / "summary.csv", summaries)
    texts = [f"{title}\n\n{markdown(summaries, measure)}\n" for measure, title in _TITLES.items()]
    write_text(out / "summary.md", "\n".join(texts))
    plot_summaries(summaries, out)
    # Examples are from the smallest bags, which fit into a line, and the networks with the most training bags
    first = [(key, settings) for key, settings in zip(keys, grid, strict=True) if settings.run == 0]
    size = min(settings.bag_size for _, settings in first)
    bags = max(settings.train_bags for _, settings in first)
    wanted = (size, bags, first[0][1].positives)
    examples = []
    for key, settings in first:
        path = _example_path(out, key, settings)
        if (settings.bag_size, settings.train_bags, settings.positives) == wanted and path.is_file():
            examples.append(_read_example(path, Spelling(settings.method, settings.pool).label))
    if examples:
        positive = "" if wanted[2] == "natural" else f", {wanted[2]} of them positive"
        title = f"{bags} training bags of {size} on average{positive}; positive class: {source.positive_class}"
        plot_examples(examples, source.test.images, title, out / "examples.png")


_TITLES = {
    "iou": "IoU of predicted and true positive instances, over the positive test bags: mean (min–max) over runs",
    "auc": "AUC of the test bags: mean (min–max) over runs",
}


def _example_path(out: Path, key: Any, settings: BagSettings) -> Path:
    import hashlib

    code = hashlib.sha256("\n".join(key).encode()).hexdigest()[
        :8
    ]  # hash of all settings, of which the name contains only some
    return out / "examples" / f"{settings.method}-{settings.bag_size}-{settings.train_bags}-{code}.npz"


def _write_example(path: Path, outcome: BagOutcome) -> None:
    chosen = [
        bag
        for label, number in _EXAMPLES.items()
        for bag in (outcome.test.labels == label).nonzero().flatten()[:number].tolist()
    ]
    rows = [slice(*outcome.test.offsets[bag : bag + 2].tolist()) for bag in chosen]
    arrays: dict[str, Any] = {
        name: np.concatenate([values[row].numpy() for row in rows])
        for name, values in (
            ("index", outcome.test.instances),
            ("positive", outcome.test.positive),
            ("scores", outcome.scores),
        )
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, sizes=np.array([row.stop - row.start for row in rows]), **arrays)


def _read_example(path: Path, label: str) -> Example:
    with np.load(path, allow_pickle=False) as file:
        return Example(label, file["sizes"], file["index"], file["positive"], file["scores"])
