"""Data loaders of a training run, and the batches that a resumed epoch leaves out."""

import atexit
import weakref
from collections.abc import Collection, Iterable, Iterator
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, Sampler

from cxrfast.data import XrayDataset
from cxrfast.errors import CxrfastError
from cxrfast.methods.base import Batch, EpochBatches
from cxrfast.training.config import RunConfig
from cxrfast.training.signals import ignore_signals


class RemainingBatches(Sampler[list[int]]):
    """The batches of a sampler after the first `skipped`."""

    def __init__(self, batches: BatchSampler | EpochBatches, skipped: int) -> None:
        self.batches = batches
        self.skipped = skipped

    def __len__(self) -> int:
        return max(len(self.batches) - self.skipped, 0)

    def __iter__(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self.batches):
            if number >= self.skipped:
                yield batch


_WORKING: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""Iterators of loaders whose data-loader workers may be running."""


class StoppableLoader(DataLoader):
    """A loader that can stop its data-loader workers.

    Torch stops them when the iterator is freed. An exception keeps the iterator alive, and the workers with it. They
    ignore signals, so an interpreter that exits would wait for them without end.
    """

    def __iter__(self) -> Any:
        iterator = super().__iter__()
        if self.num_workers:
            _WORKING.add(iterator)
        return iterator


@atexit.register
def stop_workers(keep: Collection[Any] = ()) -> None:
    """Stop the data-loader workers of all iterators of this process that still run, except some."""
    for iterator in set(_WORKING).difference(keep):
        iterator._shutdown_workers()
        _WORKING.discard(iterator)


def training_loader(
    fabric: Fabric,
    config: RunConfig,
    dataset: XrayDataset,
    sampler: EpochBatches | None,
    epoch: int,
    skipped: int = 0,
) -> Iterable[Batch]:
    """The batches of one epoch after the first `skipped`: those of `sampler`, or all images in random order.

    The order depends on torch's random state at the call.
    """
    seed = int(torch.randint(2**62, (1,)))
    generator = torch.Generator().manual_seed(seed)
    if sampler is not None:
        sampler.set_epoch(epoch - 1)
        batches: BatchSampler | EpochBatches = sampler
    else:
        images: Sampler[int] = RandomSampler(dataset, generator=generator)
        if fabric.world_size > 1:  # each process trains on its share; all validate on all images
            images = DistributedSampler(dataset, fabric.world_size, fabric.global_rank, shuffle=True, seed=seed % 2**32)
        # In a last batch of one image, batch normalisation would have no variance.
        drop_last = len(dataset) > config.batch_size and len(dataset) % config.batch_size == 1
        batches = BatchSampler(images, config.batch_size, drop_last)
    loader = StoppableLoader(
        dataset,
        batch_sampler=RemainingBatches(batches, skipped),
        num_workers=config.workers,
        worker_init_fn=ignore_signals,
        generator=generator,
    )
    return cast(DataLoader, fabric.setup_dataloaders(loader, use_distributed_sampler=False))


def draws_in_workers(config: RunConfig) -> bool:
    """Whether data-loader workers draw the augmentation, from random generators of their own."""
    return config.workers > 0 and config.augment


def ordered_loader(fabric: Fabric, config: RunConfig, dataset: XrayDataset) -> Iterable[Batch]:
    """All images in their order."""
    loader = StoppableLoader(
        dataset,
        batch_size=config.batch_size,
        num_workers=config.workers,
        worker_init_fn=ignore_signals,
        generator=torch.Generator().manual_seed(int(torch.randint(2**62, (1,)))),
    )
    return cast(DataLoader, fabric.setup_dataloaders(loader, use_distributed_sampler=False))


def one_line_errors(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches. Errors of data-loader workers lose the worker's traceback; a killed worker is a CxrfastError.

    The workers stop with the last batch, after an error, and when the caller ends early.
    """
    before = set(_WORKING)
    try:
        yield from batches
    except CxrfastError as error:
        line = str(error).strip().splitlines()[-1]
        raise CxrfastError(line.removeprefix(f"{CxrfastError.__module__}.{type(error).__qualname__}: ")) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise CxrfastError(
            f"workers: a data-loader worker ended ({reason}); if memory is short, resume with fewer --workers"
        ) from error
    finally:
        stop_workers(keep=before)
