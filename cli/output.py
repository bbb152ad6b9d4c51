"""Prints for a person: every line of the command line that is not logged goes through here."""

import sys

import typer

from cxrfast._logging import printable, printable_lines


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text of one or several lines. What a terminal would act on is escaped; line breaks are kept."""
    typer.echo(printable_lines(text), err=err, nl=nl)


def echo_error(message: str) -> None:
    """Print an error as one line, whatever the names in it contain."""
    print(f"cxrfast: {printable(message)}", file=sys.stderr)
