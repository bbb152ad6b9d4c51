"""Batches of a resumed epoch, and the errors of data-loader workers."""

import os

import pytest
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from cxrfast.errors import CxrfastError
from cxrfast.training.loading import RemainingBatches, one_line_errors
from cxrfast.training.signals import SIGNALS, ignore_signals


class Asked(Dataset):
    """Item 1 says how the worker answers signals."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        for number in SIGNALS:
            os.kill(os.getpid(), number)
        return index


def test_the_first_batches_are_left_out():
    batches = BatchSampler(SequentialSampler(range(7)), 2, drop_last=False)
    for skipped in range(6):
        remaining = RemainingBatches(batches, skipped)
        assert list(remaining) == [[0, 1], [2, 3], [4, 5], [6]][skipped:]
        assert len(remaining) == len(list(remaining))


def test_a_killed_worker_is_one_line():
    def killed():
        yield 1
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nIt may be out of memory.")

    with pytest.raises(CxrfastError, match="^workers: a data-loader worker ended .*fewer --workers$") as error:
        list(one_line_errors(killed()))
    assert "\n" not in str(error.value)


def test_other_errors_are_left_alone():
    def failing():
        yield 1
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        list(one_line_errors(failing()))


def test_workers_ignore_the_signals_of_their_group():
    found = list(DataLoader(Asked(), batch_size=None, num_workers=1, worker_init_fn=ignore_signals))
    assert [int(item) for item in found] == [0, 1]
