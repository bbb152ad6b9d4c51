"""The training loop: stages, epochs, validation, checkpoints. A resumed run gives the same numbers as a whole one."""

import logging
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, DistributedSampler
from tqdm import tqdm

from cxrfast.data import XrayDataset
from cxrfast.errors import CxrfastError
from cxrfast.methods import Method, Stage
from cxrfast.methods.base import Batch, EpochBatches
from cxrfast.runs.directory import RunDirectory
from cxrfast.runs.provenance import Provenance
from cxrfast.runs.weights import load_state, read_weights, save_weights
from cxrfast.training.checkpoint import load_checkpoint, save_checkpoint
from cxrfast.training.config import RunConfig
from cxrfast.training.preparation import PreparedData, make_dataset, without_augmentation
from cxrfast.training.schedule import Leg, Schedule, divide, make_schedule, plan_legs
from cxrfast.training.validation import Validation, validate

# Not `get_logger`, whose indentation inside other commands would break the columns of the epoch lines.
logger = logging.getLogger(__name__)


class Trainer:
    """Trains `method` and writes to the folder `run`. :meth:`fit` resumes from the checkpoint of the last epoch."""

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
        self.rows: list[dict[str, Any]] = []
        self.best = float("-inf")

    def fit(self, *, resume: bool = False) -> None:
        """Train all stages; with `resume`, continue after the last saved epoch."""
        state = load_checkpoint(self.run.checkpoint) if resume else None
        first = state["leg"] if state else 0
        for number in range(first, len(self.legs)):
            self._fit_leg(number, state if number == first else None)

    def _fit_leg(self, number: int, state: dict[str, Any] | None) -> None:
        leg = self.legs[number]
        stage = self.stages[leg.stage]
        freeze(self.method, stage)
        self.module = self.fabric.setup_module(self.method)  # again for each leg: the trainable parameters differ
        optimizer, schedule = self._optimizer()
        done = leg.first
        if state is not None:
            done = self._restore(number, state, optimizer, schedule)
        elif leg.divided_after is not None:
            self._branch(leg, optimizer)
        else:
            self.best = float("-inf")
        for epoch in range(done + 1, leg.last + 1):
            row = self._epoch(leg.stage, stage, epoch, optimizer)
            rate = optimizer.param_groups[0]["lr"]
            schedule.step(row["val_score"])
            self._save(number, epoch, row, optimizer, schedule)
            if self.config.lr_schedule == "plateau" and optimizer.param_groups[0]["lr"] != rate:
                self._log(f"learning rate {optimizer.param_groups[0]['lr']:g} after epoch {epoch}")
        if number + 1 == len(self.legs) or self.legs[number + 1].stage != leg.stage:
            # The next stage, and the caller after the last one, continues with the weights of the best epoch.
            self._load_best()
            if leg.divided_after is not None and self.fabric.is_global_zero:
                self._log(search_result([row for row in self.rows if row["stage"] == stage.name]))
                shutil.rmtree(self.run.forks, ignore_errors=True)

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
        total, count = 0.0, 0
        for batch in self._progress(self._training_loader(epoch), f"{stage.name} {epoch}/{stage.epochs}"):
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
            total += value * len(batch["labels"])
            count += len(batch["labels"])
        self.method.eval()
        self.validation = self._validate(stage)
        extra = self.method.after_epoch(stage, epoch, lambda: self._training_outputs(stage))
        return {
            "stage": stage.name,
            "epoch": epoch,
            "lr": optimizer.param_groups[0]["lr"],
            "train_loss": self._mean_over_processes(total, count),
            **self.validation.row(),
            **extra,
            "seconds": round(time.perf_counter() - started, 2),
        }

    def _mean_over_processes(self, total: float, count: int) -> float:
        sums = cast(torch.Tensor, self.fabric.all_reduce(torch.tensor([total, count]), reduce_op="sum"))
        return (sums[0] / sums[1]).item()

    def _validate(self, stage: Stage) -> Validation:
        loader = self._loader(self.val_set, shuffle=False)
        return validate(self.method, stage.name, _one_line_errors(loader), self.config.image_size)

    def _training_outputs(self, stage: Stage) -> Iterator[tuple[Any, Batch]]:
        with torch.inference_mode():
            for batch in self._progress(self._loader(self.plain_train_set, shuffle=False), "thresholds"):
                yield self.method(batch["image"], stage.name), batch

    def _optimizer(self) -> tuple[Any, Schedule]:
        trainable = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        optimizer = make_optimizer(self.config, trainable)
        return self.fabric.setup_optimizers(optimizer), make_schedule(optimizer, self.config)

    def _training_loader(self, epoch: int) -> Iterable[Batch]:
        if self.batch_sampler is None:
            return self._loader(self.train_set, shuffle=True)
        self.batch_sampler.set_epoch(epoch - 1)
        loader = DataLoader(
            self.train_set,
            batch_sampler=self.batch_sampler,
            num_workers=self.config.workers,
            generator=torch.Generator().manual_seed(int(torch.randint(2**62, (1,)))),
        )
        return cast(DataLoader, self.fabric.setup_dataloaders(loader, use_distributed_sampler=False))

    def _loader(self, dataset: XrayDataset, *, shuffle: bool) -> Iterable[Batch]:
        seed = int(torch.randint(2**62, (1,)))
        sampler: DistributedSampler | None = None
        if shuffle and self.fabric.world_size > 1:  # each process trains on its share; all validate on all images
            sampler = DistributedSampler(
                dataset, self.fabric.world_size, self.fabric.global_rank, shuffle=True, seed=seed % 2**32
            )
        loader = DataLoader(
            dataset,
            batch_size=self.config.batch_size,
            shuffle=shuffle and sampler is None,
            sampler=sampler,
            # In a last batch of one image, batch normalisation would have no variance.
            drop_last=shuffle and len(dataset) > self.config.batch_size and len(dataset) % self.config.batch_size == 1,
            num_workers=self.config.workers,
            generator=torch.Generator().manual_seed(seed),
        )
        return cast(DataLoader, self.fabric.setup_dataloaders(loader, use_distributed_sampler=False))

    def _progress(self, loader: Iterable[Batch], title: str) -> Iterable[Batch]:
        quiet = None if self.fabric.is_global_zero else True
        return _one_line_errors(tqdm(loader, desc=title, leave=False, disable=quiet))

    def _save(self, number: int, epoch: int, row: dict[str, Any], optimizer: Any, schedule: Schedule) -> None:
        if not self.fabric.is_global_zero:
            return
        leg = self.legs[number]
        stage = self.stages[leg.stage]
        score = row["val_score"]
        # Without a validation score, the last epoch is kept.
        improved = score is None or score >= self.best
        self.best = max(score, self.best) if score is not None else self.best
        marked = improved if score is not None else epoch == stage.epochs
        self.rows.append({**row, "best": marked, **self._of_the_search(leg)})
        points, learnt_from = self._learnt()
        for path in (self.run.best, self.run.last) if improved else (self.run.last,):
            self._save_weights(path, stage, epoch, points, learnt_from)
        # Before the checkpoint: after a crash in between, the epoch is repeated and its row replaced.
        self.run.write_metrics(self.rows)
        state = {
            "leg": number,
            "epoch": epoch,
            "best": self.best,
            "method": self.method.name,
            "state": self.method.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": schedule.state_dict(),
        }
        if epoch in leg.forks:
            save_checkpoint(self.run.fork(leg.stage, epoch), state)
        save_checkpoint(self.run.checkpoint, state)
        self._announce(row, marked and ("best" if score is not None else "kept"))

    def _of_the_search(self, leg: Leg) -> dict[str, Any]:
        return {"divided_after": leg.divided_after} if self.config.lr_schedule == "search" else {}

    def _learnt(self) -> tuple[list[float] | None, Provenance]:
        """The operating points of this epoch (None without validation images), and what the weights learnt from."""
        names = self.data.class_names
        patients = [record.patient for record in self.val_set.records]
        points = self.validation.choose_operating_points(patients, self.config.operating_point)
        learnt_from = Provenance.of_training(
            self.data.records["train"],
            names,
            data=self.config.data,
            layout=self.data.layout,
            synthetic=self.data.synthetic,
            label_version=self.data.label_version,
            image_size=self.config.image_size,
            operating_point=self.config.operating_point,
            validation=self.validation.class_facts(names, points),
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
        self.best = state["best"]
        epoch: int = state["epoch"]
        done = sum(leg.epochs for leg in self.legs[:number]) + epoch - self.legs[number].first
        self.rows = self.run.read_metrics()[:done]
        return epoch

    def _load_best(self) -> None:
        self.fabric.barrier()
        load_state(self.method, read_weights(self.run.best)[1], str(self.run.best))

    def _log(self, line: str) -> None:
        if self.fabric.is_global_zero:
            logger.info(f"{'':>6}     {line}")

    def _announce(self, row: dict[str, Any], mark: str | bool) -> None:
        def number(value: float | None) -> str:
            return "-" if value is None else f"{value:.3f}"

        logger.info(
            f"{row['stage']:>6} {row['epoch']:>3}  loss {row['train_loss']:.4f}  val AUROC {number(row['val_auroc'])}  "
            f"IoU@0.1 {number(row['val_iou_accuracy'])}  {row['seconds']:.0f} s{f'  {mark}' if mark else ''}"
        )


def make_optimizer(config: RunConfig, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return cls(parameters, lr=config.lr, weight_decay=config.weight_decay)


def _one_line_errors(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches; a CxrfastError from a data-loader worker loses the worker's traceback, which its text contains."""
    try:
        yield from batches
    except CxrfastError as error:
        line = str(error).strip().splitlines()[-1]
        raise CxrfastError(line.removeprefix(f"{CxrfastError.__module__}.{type(error).__qualname__}: ")) from error


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


def freeze(method: Method, stage: Stage) -> None:
    """Require gradients of the parameters that the stage trains, and of no others."""
    frozen = method.frozen
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(name.startswith(stage.trains) and not name.startswith(frozen))


def set_training(method: Method, stage: Stage) -> None:
    """Training mode for the modules that the stage trains; frozen modules keep their batch-norm statistics."""
    frozen = method.frozen
    for name, module in method.named_modules():
        module.training = f"{name}.".startswith(stage.trains) and not f"{name}.".startswith(frozen)
