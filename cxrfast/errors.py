"""Errors a user can cause. Each message is one line: what is wrong, the value, and what to do."""

import signal


class CxrfastError(Exception):
    """A failed operation: for example, a file that cannot be read, or inconsistent data (exit code 1)."""


class UsageError(CxrfastError):
    """A wrong option or argument (exit code 2)."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the work to stop, and all of it is saved. `exit_code` is 130 after SIGINT and 75 otherwise.

    75 is EX_TEMPFAIL of `sysexits.h`: the same work, resumed, may succeed.
    """

    def __init__(self, number: int, saved: str) -> None:
        self.signal = signal.Signals(number)
        self.exit_code = 130 if self.signal == signal.SIGINT else 75
        super().__init__(f"stopped by {self.signal.name}; {saved}")
