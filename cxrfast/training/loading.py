"""Data loaders of a training run, and the batches that a resumed epoch leaves out."""

from collections.abc import Iterable, Iterator
from typing import cast

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
    loader = DataLoader(
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
    loader = DataLoader(
        dataset,
        batch_size=config.batch_size,
        num_workers=config.workers,
        worker_init_fn=ignore_signals,
        generator=torch.Generator().manual_seed(int(torch.randint(2**62, (1,)))),
    )
    return cast(DataLoader, fabric.setup_dataloaders(loader, use_distributed_sampler=False))


def one_line_errors(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches. Errors of data-loader workers lose the worker's traceback; a killed worker is a CxrfastError."""
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
