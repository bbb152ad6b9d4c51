"""Signals that ask a training run to stop: it finishes the batch, saves, and ends with an exit code of its own."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lightning_fabric import Fabric

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopRequest:
    """Remembers the first signal that asked the run to stop."""

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, SIGINT, SIGTERM and SIGUSR1 set :attr:`number`. A second SIGINT raises KeyboardInterrupt at once.

        Python delivers signals to the main thread only; in another thread this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: the handler was not installed from Python and cannot be restored from it
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number

    def agreed(self, fabric: Fabric) -> int | None:
        """The signal that any of the processes has received. Every process must call this at the same batch."""
        if fabric.world_size == 1:
            return self.number
        import torch

        own = torch.tensor([self.number or 0], device=fabric.device)
        torch.distributed.all_reduce(own, op=torch.distributed.ReduceOp.MAX)
        return int(own) or None


def ignore_signals(worker: int) -> None:
    """For data-loader workers. A signal to the whole process group must not end them before the batch is finished."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
