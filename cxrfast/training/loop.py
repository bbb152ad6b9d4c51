"""The training loop: stages, epochs, validation, checkpoints. A resumed run gives the same numbers as a whole one."""

import functools
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from lightning_fabric import Fabric
from tqdm import tqdm

from cxrfast.errors import CxrfastError, Interrupted
from cxrfast.methods import Method, Stage
from cxrfast.methods.base import Batch, EpochBatches
from cxrfast.runs.directory import RunDirectory
from cxrfast.runs.provenance import Provenance
from cxrfast.runs.weights import load_state, read_weights, save_weights
from cxrfast.training.checkpoint import (
    Progress,
    best_is_last,
    holds,
    load_checkpoint,
    rows_of,
    save_checkpoint,
)
from cxrfast.training.config import RunConfig
from cxrfast.training.history import History
from cxrfast.training.loading import draws_in_workers, one_line_errors, ordered_loader, training_loader
from cxrfast.training.parameters import freeze, make_optimizer, set_training
from cxrfast.training.preparation import PreparedData, make_dataset, without_augmentation
from cxrfast.training.schedule import Leg, Schedule, divide, make_schedule, plan_legs
from cxrfast.training.signals import StopRequest
from cxrfast.training.validation import Validation, validate

# Not `get_logger`, whose indentation inside other commands would break the columns of the epoch lines.
logger = logging.getLogger(__name__)


class Trainer:
    """Trains `method` and writes to the folder `run`. :meth:`fit` resumes from the last saved batch."""

    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        data: PreparedData,
        method: Method,
        fabric: Fabric,
        batch_sampler: EpochBatches | None = None,  # for the training images; None: shuffled batches
    ) -> None:
        self.config = config
        self.run = run
        self.data = data
        self.fabric = fabric
        self.batch_sampler = batch_sampler
        self.method = method.to(fabric.device)
        self.train_set = make_dataset(config, data, "train", augment=config.augment)
        self.plain_train_set = without_augmentation(self.train_set)
        self.val_set = make_dataset(config, data, "val")
        self.stages = method.stages(config.epochs)
        self.legs = plan_legs(self.stages, config)
        self.history = History()
        self.stop = StopRequest()
        self.progress: Progress | None = None  # of the epoch that is resumed
        self.stopped_state: dict[str, torch.Tensor] = {}

    def fit(self, state: dict[str, Any] | None = None) -> None:
        """Train all stages; with the `state` of a checkpoint, those that follow it.

        Raises Interrupted if a signal asks to stop, CxrfastError if training diverges.
        """
        with self.stop.listening():
            first = state["leg"] if state is not None else 0
            for number in range(first, len(self.legs)):
                self._fit_leg(number, state if number == first else None)

    def complete_files(self, state: dict[str, Any]) -> None:
        """Write the files that belong to `last.ckpt`, if the run was killed before it had written all of them."""
        rows = rows_of(state)
        if rows is None or not self.fabric.is_global_zero:
            return
        stage = self.stages[self.legs[state["leg"]].stage]
        wrong = [] if holds(self.run.last, state) else [self.run.last]
        if best_is_last(state) and not holds(self.run.best, state):
            wrong.append(self.run.best)
        if wrong:
            load_state(self.method, state["state"], str(self.run.checkpoint))
            self.history.load_state(state, rows)
            points, learnt_from = self._learnt()
            for path in wrong:
                self._save_weights(path, stage, state["epoch"], points, learnt_from)
        if not self.run.has_metrics(rows):
            self.run.write_metrics(rows)

    def _fit_leg(self, number: int, state: dict[str, Any] | None) -> None:
        leg = self.legs[number]
        stage = self.stages[leg.stage]
        freeze(self.method, stage)
        self.module = self.fabric.setup_module(self.method)  # again for each leg: the trainable parameters differ
        optimizer, schedule = self._optimizer()
        self.save_within = functools.partial(self._save_partial, number, optimizer=optimizer, schedule=schedule)
        done = leg.first
        if state is not None:
            done = self._restore(number, state, optimizer, schedule)
        elif leg.divided_after is not None:
            self._branch(leg, optimizer)
        else:
            self.history.begin_stage()
        for epoch in range(done + 1, leg.last + 1):
            row = self._epoch(leg.stage, stage, epoch, optimizer)
            rate = optimizer.param_groups[0]["lr"]
            schedule.step(row["val_score"])
            self._save(number, epoch, row, optimizer, schedule)
            if self.config.lr_schedule == "plateau" and optimizer.param_groups[0]["lr"] != rate:
                self._log(f"learning rate {optimizer.param_groups[0]['lr']:g} after epoch {epoch}")
        if self._ends_stage(number):
            self._require_best(stage)
            # The next stage, and the caller after the last one, continues with the weights of the best epoch.
            self._load_best()
            if leg.divided_after is not None and self.fabric.is_global_zero:
                self._log(search_result(self.history.of_stage(stage.name)))
                shutil.rmtree(self.run.forks, ignore_errors=True)

    def _ends_stage(self, number: int) -> bool:
        return number + 1 == len(self.legs) or self.legs[number + 1].stage != self.legs[number].stage

    def _require_best(self, stage: Stage) -> None:
        """Raise CxrfastError if the loss exploded in every epoch of the stage."""
        rows = self.history.of_stage(stage.name)  # none, except in the first process
        if self.fabric.broadcast(bool(rows) and all(row.get("exploded") for row in rows)):
            lowest = min((row["train_loss"] for row in rows), default=math.nan)
            losses = f"{self.history.start:.4g} before the first step, {lowest:.4g} in the best epoch"
            raise CxrfastError(
                f"training exploded in stage {stage.name}: the loss was {losses}; no epoch is kept as the best; train "
                f"again with a smaller learning rate than {self.config.lr:g}"
            )

    def _branch(self, leg: Leg, optimizer: Any) -> None:
        """Start a branch: load the state of the trunk after E epochs, and divide its learning rate."""
        self.fabric.barrier()
        path = self.run.fork(leg.stage, leg.first)
        state = load_checkpoint(path)
        load_state(self.method, state["state"], str(path))
        optimizer.load_state_dict(state["optimizer"])
        divide(optimizer, self.config.lr_decay)
        self._log(f"E = {leg.first}: learning rate {optimizer.param_groups[0]['lr']:g} from epoch {leg.first + 1} on")

    def _epoch(self, number: int, stage: Stage, epoch: int, optimizer: Any) -> dict[str, Any]:
        started = time.perf_counter()
        # The seed depends on stage and epoch, so that a resumed run draws the same numbers as an uninterrupted one.
        torch.manual_seed(self.config.seed * 1_000_003 + number * 10_007 + epoch)
        set_training(self.method, stage)
        self.method.before_epoch(stage, epoch)
        progress, self.progress = self.progress, None
        started -= progress.seconds if progress is not None else 0.0
        batches, done, total, count = self._batches(stage, epoch, progress)
        for batch in batches:
            loss = self.method.loss(self.module(batch["image"], stage.name), batch)  # outputs are always float32
            optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            optimizer.step()
            value = loss.item()
            if not math.isfinite(value):
                raise CxrfastError(
                    f"training diverged in epoch {epoch} of stage {stage.name}: the loss is {value}; train again with "
                    f"a smaller learning rate than {self.config.lr:g}"
                )
            if epoch == 1 and done == 0:
                self.history.start = value
            total += value * len(batch["labels"])
            count += len(batch["labels"])
            done += 1
            if self.stop.agreed(self.fabric) is not None:
                self._stop(epoch, done, total, count, started, self._random_state())
        random = self._random_state()  # validation, which a signal may stop too, is then repeated
        self.method.eval()
        stop = functools.partial(self._stop, epoch, done, total, count, started, random)
        validation = self.history.validation = self._validate(stage, stop)
        extra = self.method.after_epoch(stage, epoch, lambda: self._training_outputs(stage, stop))
        return {
            "stage": stage.name,
            "epoch": epoch,
            "lr": optimizer.param_groups[0]["lr"],
            "train_loss": self._mean_over_processes(total, count),
            **validation.row(),
            **extra,
            "seconds": round(time.perf_counter() - started, 2),
        }

    def _batches(self, stage: Stage, epoch: int, progress: Progress | None) -> tuple[Iterator[Batch], int, float, int]:
        """The batches that the epoch still has; the number of those before, their sum of the loss and of images."""
        skipped = progress.batches if progress is not None else 0
        # Workers draw the augmentation, from generators that cannot be restored: they read the batches again.
        repeated = skipped if draws_in_workers(self.config) else 0
        loader = training_loader(
            self.fabric, self.config, self.train_set, self.batch_sampler, epoch, skipped - repeated
        )
        batches = iter(self._progress_bar(loader, f"{stage.name} {epoch}/{stage.epochs}", skipped - repeated))
        for _ in range(repeated):
            next(batches)
        if progress is None:
            return batches, 0, 0.0, 0
        rank = self.fabric.global_rank
        load_state(self.method, self.stopped_state, str(self.run.partial))  # `before_epoch` may have changed it
        self.stopped_state = {}
        cpu, gpu = progress.random[rank]
        torch.set_rng_state(cpu)
        if self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(gpu, self.fabric.device)
        return batches, skipped, progress.totals[rank], progress.counts[rank]

    def _random_state(self) -> list[torch.Tensor]:
        on_gpu = self.fabric.device.type == "cuda"
        gpu = torch.cuda.get_rng_state(self.fabric.device) if on_gpu else torch.empty(0, dtype=torch.uint8)
        return [torch.get_rng_state(), gpu]

    def _stop(self, epoch: int, done: int, total: float, count: int, started: float, random: list) -> NoReturn:
        """Save the state within the epoch, and raise Interrupted."""
        ours = (total, count, random)
        everyone: list[Any] = [ours]
        if self.fabric.world_size > 1:
            everyone = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(everyone, ours)
        totals, counts, states = (list(column) for column in zip(*everyone, strict=True))
        progress = Progress(done, totals, counts, states, time.perf_counter() - started, self.config.workers)
        if self.fabric.is_global_zero:
            self.save_within(epoch, progress)
        number = cast(int, self.stop.agreed(self.fabric))
        raise Interrupted(number, f"epoch {epoch} is saved after batch {done}")

    def _checked(self, batches: Iterable[Batch], stop: Callable[[], NoReturn]) -> Iterator[Batch]:
        """The batches, until a signal asks to stop."""
        for batch in one_line_errors(batches):
            yield batch
            if self.stop.agreed(self.fabric) is not None:
                stop()

    def _mean_over_processes(self, total: float, count: int) -> float:
        sums = cast(torch.Tensor, self.fabric.all_reduce(torch.tensor([total, count]), reduce_op="sum"))
        return (sums[0] / sums[1]).item()

    def _validate(self, stage: Stage, stop: Callable[[], NoReturn]) -> Validation:
        loader = ordered_loader(self.fabric, self.config, self.val_set)
        return validate(self.method, stage.name, self._checked(loader, stop), self.config.image_size)

    def _training_outputs(self, stage: Stage, stop: Callable[[], NoReturn]) -> Iterator[tuple[Any, Batch]]:
        loader = ordered_loader(self.fabric, self.config, self.plain_train_set)
        with torch.inference_mode():
            for batch in self._checked(self._progress_bar(loader, "thresholds"), stop):
                yield self.method(batch["image"], stage.name), batch

    def _optimizer(self) -> tuple[Any, Schedule]:
        trainable = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        optimizer = make_optimizer(self.config, trainable)
        return self.fabric.setup_optimizers(optimizer), make_schedule(optimizer, self.config)

    def _progress_bar(self, loader: Iterable[Batch], title: str, done: int = 0) -> Iterable[Batch]:
        quiet = None if self.fabric.is_global_zero else True
        total = len(cast(Sized, loader)) + done
        return one_line_errors(tqdm(loader, desc=title, total=total, initial=done, leave=False, disable=quiet))

    def _save(self, number: int, epoch: int, row: dict[str, Any], optimizer: Any, schedule: Schedule) -> None:
        if not self.fabric.is_global_zero:
            return
        leg = self.legs[number]
        stage = self.stages[leg.stage]
        improved = self.history.add(row, last=epoch == stage.epochs, **self._of_the_search(leg))
        # A later stage starts from trained weights, so that its loss may have nothing left to lose.
        ends_first = leg.stage == 0 and self._ends_stage(number) and epoch == leg.last
        stalled = ends_first and self.history.close_stage(stage.name)
        state = self._state(number, epoch, optimizer, schedule)
        if epoch in leg.forks:
            save_checkpoint(self.run.fork(leg.stage, epoch), state)
        # The checkpoint comes first. What a crash keeps from being written after it is written on resume.
        save_checkpoint(self.run.checkpoint, state)
        points, learnt_from = self._learnt()
        for path in (self.run.best, self.run.last) if improved else (self.run.last,):
            self._save_weights(path, stage, epoch, points, learnt_from)
        self.run.write_metrics(self.history.rows)
        self.run.partial.unlink(missing_ok=True)
        self._announce(self.history.rows[-1])
        if stalled:
            lowest = min(row["train_loss"] for row in self.history.of_stage(stage.name))
            self._log(
                f"stage {stage.name} never improved over its start: the loss was {self.history.start:.4g} before the "
                f"first step and {lowest:.4g} in the best epoch; its weights may be no better than random ones"
            )

    def _state(self, number: int, epoch: int, optimizer: Any, schedule: Schedule) -> dict[str, Any]:
        """What a checkpoint has, after `epoch` finished epochs of a leg's stage."""
        return {
            "leg": number,
            "epoch": epoch,
            **self.history.state(),
            "method": self.method.name,
            "state": self.method.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),  # the loss scale of 16-bit training
        }

    def _save_partial(self, number: int, epoch: int, progress: Progress, *, optimizer: Any, schedule: Schedule) -> None:
        state = self._state(number, epoch - 1, optimizer, schedule)
        save_checkpoint(self.run.partial, {**state, "progress": vars(progress)})

    def _of_the_search(self, leg: Leg) -> dict[str, Any]:
        return {"divided_after": leg.divided_after} if self.config.lr_schedule == "search" else {}

    def _learnt(self) -> tuple[list[float] | None, Provenance]:
        """The operating points of this epoch (None without validation images), and what the weights learnt from."""
        names = self.data.class_names
        patients = [record.patient for record in self.val_set.records]
        validation = cast(Validation, self.history.validation)
        points = validation.choose_operating_points(patients, self.config.operating_point)
        learnt_from = Provenance.of_training(
            self.data.records["train"],
            names,
            data=self.config.data,
            layout=self.data.layout,
            synthetic=self.data.synthetic,
            label_version=self.data.label_version,
            image_size=self.config.image_size,
            operating_point=self.config.operating_point,
            validation=validation.class_facts(names, points),
        )
        return None if points is None else points.threshold.tolist(), learnt_from

    def _save_weights(
        self, path: Path, stage: Stage, epoch: int, points: list[float] | None, learnt_from: Provenance
    ) -> None:
        save_weights(
            path,
            self.method,
            stage=stage.name,
            label_version=self.data.label_version,
            operating_points=points,
            epoch=epoch,
            validated=len(self.val_set) > 0,
            learnt_from=learnt_from,
        )

    def _restore(self, number: int, state: dict[str, Any], optimizer: Any, schedule: Schedule) -> int:
        load_state(self.method, state["state"], str(self.run.checkpoint))
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["scheduler"])
        if state.get("precision"):
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        epoch: int = state["epoch"]
        done = sum(leg.epochs for leg in self.legs[:number]) + epoch - self.legs[number].first
        self.history.load_state(state, self.run.read_metrics()[:done] if "rows" not in state else [])
        if "progress" in state:
            self.progress = Progress(**state["progress"])
            self.stopped_state = state["state"]
        return epoch

    def _load_best(self) -> None:
        self.fabric.barrier()
        load_state(self.method, read_weights(self.run.best)[1], str(self.run.best))

    def _log(self, line: str) -> None:
        if self.fabric.is_global_zero:
            logger.info(f"{'':>6}     {line}")

    def _announce(self, row: dict[str, Any]) -> None:
        def number(value: float | None) -> str:
            return "-" if value is None else f"{value:.3f}"

        mark = "exploded" if row.get("exploded") else ""
        if row["best"]:
            mark = "best" if row["val_score"] is not None else "kept"
        loss = row["train_loss"]
        logger.info(
            f"{row['stage']:>6} {row['epoch']:>3}  loss {f'{loss:.4f}' if abs(loss) < 1e6 else f'{loss:.3e}'}  "
            f"val AUROC {number(row['val_auroc'])}  IoU@0.1 {number(row['val_iou_accuracy'])}  "
            f"{row['seconds']:.0f} s{f'  {mark}' if mark else ''}"
        )


def search_result(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line on a search: the chosen E and the best validation score of each. `rows` are the epochs of one stage."""
    trunk = [row for row in rows if row["divided_after"] is None]
    tried = sorted({row["divided_after"] for row in rows} - {None})
    best = {}
    for e in tried:
        run = [*trunk[:e], *(row for row in rows if row["divided_after"] == e)]
        best[e] = max(row["val_score"] if row["val_score"] is not None else -math.inf for row in run)
    chosen = max(tried, key=lambda e: (best[e], -e))
    scores = ", ".join(f"{e}: {best[e]:.4f}" for e in tried)
    return f"learning rate divided after E = {chosen} epochs, by validation ({scores})"
