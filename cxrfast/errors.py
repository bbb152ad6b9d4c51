"""Errors a user can cause. Each message is one line: the thing, its value, the way out."""


class CxrfastError(Exception):
    """Work that could not be done: a file that cannot be read, data that contradict themselves (exit code 1)."""


class UsageError(CxrfastError):
    """A wrong option or argument (exit code 2)."""
