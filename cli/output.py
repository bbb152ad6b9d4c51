"""Prints for a person: every line of the command line that is not logged goes through here."""

import sys

import typer

from cxrfast._logging import printable, printable_lines

LONGEST = 4000
"""Characters of an error that are printed."""


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text of one or several lines. What a terminal would act on is escaped; line breaks are kept."""
    typer.echo(printable_lines(text), err=err, nl=nl)


def echo_error(message: str) -> None:
    """Print an error as one line, whatever the names in it contain. The middle of a very long one is left out."""
    text = printable(message)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    print(f"cxrfast: {text}", file=sys.stderr)
