"""Batches of triplets: every anchor once, the same for any number of workers, resumed at any batch."""

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Dataset

from cxrfast.data import TripletBatchSampler, TripletMiner
from cxrfast.errors import UsageError
from tests.data.similarity.triplet_rules import random_images


def batches(sampler, epoch=0, start=0):
    sampler.set_epoch(epoch, start)
    return list(sampler)


@pytest.fixture(scope="module")
def miner():
    return TripletMiner(*random_images(101, seed=4), sampling="all")


def test_batches_are_anchors_then_positives_then_negatives(miner):
    sampler = TripletBatchSampler(miner, 8, seed=5)
    found = batches(sampler, 2)
    assert len(found) == len(sampler) == -(-len(miner.anchors) // 8)
    anchors = [place for batch in found for place in batch[: len(batch) // 3]]
    assert sorted(anchors) == miner.anchors.tolist()
    for batch in found:
        expected = miner.mine(batch[: len(batch) // 3], seed=5, epoch=2)
        assert batch == np.concatenate(expected).tolist()
    assert all(len(batch) == 24 for batch in batches(TripletBatchSampler(miner, 8, drop_last=True)))


def test_images_without_a_triplet_come_too():
    """Eq. 2 is over all training images: those without a positive are classified, once an epoch, like the others."""
    labels = np.array([0, 0, 0, 1, 1, 2, 6])
    miner = TripletMiner(random_images(7)[0], labels, partial=0)
    assert (miner.anchors.tolist(), miner.unmatched.tolist()) == ([0, 1, 2, 3, 4], [5, 6])
    for world_size in (1, 2):
        seen = []
        for rank in range(world_size):
            sampler = TripletBatchSampler(miner, 3, seed=5, rank=rank, world_size=world_size)
            for batch in batches(sampler):
                for anchor, positive, negative in np.array(batch).reshape(3, -1).T.tolist():
                    assert (positive == negative == anchor) == (anchor > 4)
                    seen.append(anchor)
        assert set(seen) == set(range(7))
        assert len(seen) == 7 if world_size == 1 else 8


def test_a_seed_and_an_epoch_give_the_same_batches(miner):
    first, second = (TripletBatchSampler(miner, 8, seed=5) for _ in range(2))
    assert batches(first, 3) == batches(second, 3) == batches(first, 3)
    assert batches(first, 3) != batches(first, 4)
    assert batches(first, 3) != batches(TripletBatchSampler(miner, 8, seed=6), 3)
    np.random.seed(0)  # noqa: NPY002  nobody else's random numbers count
    torch.manual_seed(0)
    assert batches(first, 3) == batches(second, 3)


def test_resumes_at_any_batch(miner):
    whole = batches(TripletBatchSampler(miner, 8, seed=5), 3)
    for start in range(len(whole) + 2):
        sampler = TripletBatchSampler(miner, 8, seed=5)
        assert batches(sampler, 3, start) == whole[start:]
        assert len(sampler) == len(whole[start:])


@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_the_anchors_out(miner, world_size, drop_last):
    alone = {}
    for batch in batches(TripletBatchSampler(miner, 8, seed=5), 1):
        alone |= {row[0]: row for row in zip(*np.array(batch).reshape(3, -1).tolist(), strict=True)}
    seen, lengths = [], set()
    for rank in range(world_size):
        sampler = TripletBatchSampler(miner, 8, seed=5, rank=rank, world_size=world_size, drop_last=drop_last)
        found = batches(sampler, 1)
        assert len(found) == len(sampler)
        lengths.add(tuple(len(batch) for batch in found))
        for batch in found:
            rows = list(zip(*np.array(batch).reshape(3, -1).tolist(), strict=True))
            assert all(alone[row[0]] == row for row in rows)  # the same triplets as one process mines
            seen += [row[0] for row in rows]
    assert len(lengths) == 1  # or the processes would wait for each other for ever
    if not drop_last:
        assert set(seen) == set(alone)
        assert len(seen) < len(alone) + world_size


class Places(Dataset):
    def __len__(self):
        return 101

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_s_workers_change_nothing(miner, workers):
    sampler = TripletBatchSampler(miner, 8, seed=5)
    loader = DataLoader(Places(), batch_sampler=sampler, num_workers=workers)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        loaded = [batch.tolist() for batch in loader]
        assert loaded == batches(TripletBatchSampler(miner, 8, seed=5), epoch)


def test_fabric_leaves_the_sampler_and_its_epoch_alone(miner):
    sampler = TripletBatchSampler(miner, 8, seed=5)
    loader = Fabric(accelerator="cpu", devices=1).setup_dataloaders(
        DataLoader(Places(), batch_sampler=sampler), use_distributed_sampler=False
    )
    for epoch in (4, 2):
        sampler.set_epoch(epoch)
        assert [batch.tolist() for batch in loader] == batches(TripletBatchSampler(miner, 8, seed=5), epoch)
        sampler.set_epoch(epoch)


def test_wrong_sampler_options(miner):
    for message, options in (
        ("batch size is 0", {"batch_size": 0}),
        ("rank is 2 of 2 processes; expected 0 to 1", {"batch_size": 1, "rank": 2, "world_size": 2}),
        ("seed is -1", {"batch_size": 1, "seed": -1}),
    ):
        with pytest.raises(UsageError, match=message):
            TripletBatchSampler(miner, **options)
    with pytest.raises(UsageError, match="^5 is no anchor"):
        TripletMiner(random_images(6)[0], np.array([0, 0, 0, 1, 1, 2])).mine([0, 5], seed=0, epoch=0)
    with pytest.raises(UsageError, match="start batch is -1"):
        TripletBatchSampler(miner, 1).set_epoch(0, -1)
