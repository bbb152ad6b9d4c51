"""The training loop: stages, epochs, validation, checkpoints. The same seed gives the same numbers, resumed or not."""

import math
import time
from collections.abc import Iterable, Iterator
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
from cxrfast.training.checkpoint import load_checkpoint, load_state, read_weights, save_checkpoint, save_weights
from cxrfast.training.config import RunConfig
from cxrfast.training.preparation import PreparedData, make_dataset, without_augmentation
from cxrfast.training.run import RunDirectory
from cxrfast.training.validation import Validation, validate


class Trainer:
    """Trains `method` into the folder `run`. Every epoch ends with `last.ckpt`, from which :meth:`fit` resumes."""

    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        data: PreparedData,
        method: Method,
        fabric: Fabric,
        batch_sampler: EpochBatches | None = None,  # of the training images; None: shuffle them
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
        self.rows: list[dict[str, Any]] = []
        self.best = float("-inf")

    def fit(self, *, resume: bool = False) -> None:
        """Train all stages; with `resume`, go on after the last epoch that was saved."""
        state = load_checkpoint(self.run.checkpoint) if resume else None
        first = state["stage"] if state else 0
        for number in range(first, len(self.stages)):
            self._fit_stage(number, state if number == first else None)

    def _fit_stage(self, number: int, state: dict[str, Any] | None) -> None:
        stage = self.stages[number]
        freeze(self.method, stage)
        self.module = self.fabric.setup_module(self.method)  # anew: what is distributed depends on what trains
        optimizer, scheduler = self._optimizer()
        if state is None:
            self.best = float("-inf")
            done = 0
        else:
            done = self._restore(state, optimizer, scheduler)
        for epoch in range(done + 1, stage.epochs + 1):
            row = self._epoch(number, stage, epoch, optimizer)
            scheduler.step()
            self._save(number, stage, epoch, row, optimizer, scheduler)
        # The next stage, and whoever takes the last weights, goes on from this stage's best epoch.
        self._load_best()

    def _epoch(self, number: int, stage: Stage, epoch: int, optimizer: Any) -> dict[str, Any]:
        started = time.perf_counter()
        # Seeded by where we are, so that a resumed run draws what the uninterrupted one would have.
        torch.manual_seed(self.config.seed * 1_000_003 + number * 10_007 + epoch)
        set_training(self.method, stage)
        self.method.before_epoch(stage, epoch)
        total, count = 0.0, 0
        for batch in self._progress(self._training_loader(epoch), f"{stage.name} {epoch}/{stage.epochs}"):
            loss = self.method.loss(self.module(batch["image"], stage.name), batch)  # outputs arrive in float32
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

    def _optimizer(self) -> tuple[Any, Any]:
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.config.optimizer]
        trainable = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        optimizer = cls(trainable, lr=self.config.lr, weight_decay=self.config.weight_decay)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, self.config.lr_step, gamma=self.config.lr_decay)
        return self.fabric.setup_optimizers(optimizer), scheduler

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
        if shuffle and self.fabric.world_size > 1:  # processes share out training images; all of them validate
            sampler = DistributedSampler(
                dataset, self.fabric.world_size, self.fabric.global_rank, shuffle=True, seed=seed % 2**32
            )
        loader = DataLoader(
            dataset,
            batch_size=self.config.batch_size,
            shuffle=shuffle and sampler is None,
            sampler=sampler,
            # A last batch of one image would give batch norm no variance.
            drop_last=shuffle and len(dataset) > self.config.batch_size and len(dataset) % self.config.batch_size == 1,
            num_workers=self.config.workers,
            generator=torch.Generator().manual_seed(seed),
        )
        return cast(DataLoader, self.fabric.setup_dataloaders(loader, use_distributed_sampler=False))

    def _progress(self, loader: Iterable[Batch], title: str) -> Iterable[Batch]:
        quiet = None if self.fabric.is_global_zero else True
        return _one_line_errors(tqdm(loader, desc=title, leave=False, disable=quiet))

    def _save(self, number: int, stage: Stage, epoch: int, row: dict[str, Any], optimizer: Any, scheduler: Any) -> None:
        if not self.fabric.is_global_zero:
            return
        score = row["val_score"] if row["val_score"] is not None else -row["train_loss"]
        improved = score >= self.best
        self.best = max(score, self.best)
        self.rows.append({**row, "best": improved})
        if improved:
            self._save_weights(self.run.best, stage)
        self._save_weights(self.run.last, stage)
        # Before the checkpoint: a crash in between repeats an epoch, and its row is then written again.
        self.run.write_metrics(self.rows)
        save_checkpoint(
            self.run.checkpoint,
            {
                "stage": number,
                "epoch": epoch,
                "best": self.best,
                "method": self.method.name,
                "state": self.method.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            },
        )
        self._announce(row, improved)

    def _save_weights(self, path: Path, stage: Stage) -> None:
        save_weights(
            path,
            self.method,
            stage=stage.name,
            label_version=self.data.label_version,
            operating_points=self.validation.operating_points,
        )

    def _restore(self, state: dict[str, Any], optimizer: Any, scheduler: Any) -> int:
        load_state(self.method, state["state"], str(self.run.checkpoint))
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        self.best = state["best"]
        done = sum(stage.epochs for stage in self.stages[: state["stage"]]) + state["epoch"]
        self.rows = self.run.read_metrics()[:done]
        return state["epoch"]

    def _load_best(self) -> None:
        self.fabric.barrier()
        load_state(self.method, read_weights(self.run.best)[1], str(self.run.best))

    def _announce(self, row: dict[str, Any], improved: bool) -> None:
        def number(value: float | None) -> str:
            return "-" if value is None else f"{value:.3f}"

        tqdm.write(
            f"{row['stage']:>6} {row['epoch']:>3}  loss {row['train_loss']:.4f}  val AUROC {number(row['val_auroc'])}  "
            f"IoU@0.1 {number(row['val_iou_accuracy'])}  {row['seconds']:.0f} s{'  best' if improved else ''}"
        )


def _one_line_errors(batches: Iterable[Batch]) -> Iterator[Batch]:
    """An error of a worker process arrives with the worker's traceback in its text: only the last line is for users."""
    try:
        yield from batches
    except CxrfastError as error:
        line = str(error).strip().splitlines()[-1]
        raise CxrfastError(line.removeprefix(f"{CxrfastError.__module__}.{type(error).__qualname__}: ")) from error


def freeze(method: Method, stage: Stage) -> None:
    """Gradients for the parameters that the stage trains, and for no other."""
    frozen = method.frozen
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(name.startswith(stage.trains) and not name.startswith(frozen))


def set_training(method: Method, stage: Stage) -> None:
    """Training mode for the modules that the stage trains; frozen ones keep their batch-norm statistics."""
    frozen = method.frozen
    for name, module in method.named_modules():
        module.training = f"{name}.".startswith(stage.trains) and not f"{name}.".startswith(frozen)
