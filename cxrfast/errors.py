"""Errors a user can cause. Each message is one line: what is wrong, the value, and what to do."""


class CxrfastError(Exception):
    """A failed operation: for example, a file that cannot be read, or inconsistent data (exit code 1)."""


class UsageError(CxrfastError):
    """A wrong option or argument (exit code 2)."""
