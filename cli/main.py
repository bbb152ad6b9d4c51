"""The `cxrfast` command. Commands import what they need when they run, so that `--help` is fast."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer

from cxrfast._logging import console
from cxrfast.cli.bags import bags
from cxrfast.cli.bench import bench
from cxrfast.cli.data import data
from cxrfast.cli.demo import demo
from cxrfast.cli.evaluate import evaluate
from cxrfast.cli.help import HelpWithNames
from cxrfast.cli.import_weights import import_weights
from cxrfast.cli.info import info
from cxrfast.cli.localize import localize
from cxrfast.cli.output import echo_error
from cxrfast.cli.report import report
from cxrfast.cli.reproduce import reproduce
from cxrfast.cli.study import study
from cxrfast.cli.synth import synth
from cxrfast.cli.train import train
from cxrfast.errors import CxrfastError, Interrupted, UsageError


class _Stopped(BaseException):
    """Carries an Interrupted past typer, which makes exit code 130 of every KeyboardInterrupt."""

    def __init__(self, interrupted: Interrupted) -> None:
        super().__init__(str(interrupted))
        self.exit_code = interrupted.exit_code


def _passing_interruptions(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except Interrupted as error:
            raise _Stopped(error) from error

    return call


app = typer.Typer(
    name="cxrfast",
    help="Find thoracic diseases in chest X-rays and show where they are. Research use only; not a medical device.",
    epilog="Start with: cxrfast demo",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo,
    synth,
    data,
    train,
    evaluate,
    report,
    localize,
    reproduce,
    study,
    import_weights,
    bags,
    bench,
    info,
):
    app.command(cls=HelpWithNames)(_passing_interruptions(command))


# The base class of all usage errors: from click or, in newer versions, from typer's copy of click.
_ClickException: Any = typer.BadParameter.__mro__[2]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. User errors print one line to stderr and set an exit code; there is no traceback."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Returns the exit code: 0 success, 1 failure, 2 wrong usage, 75 stopped and saved by a signal, 130 interrupted."""
    try:
        with console():
            result = typer.main.get_command(app).main(
                arguments or ["--help"], prog_name="cxrfast", standalone_mode=False
            )
    except _ClickException as error:
        return _fail(" ".join(error.format_message().split()), error.exit_code)
    except UsageError as error:
        return _fail(str(error), 2)
    except CxrfastError as error:
        return _fail(str(error), 1)
    except _Stopped as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    echo_error(message)
    return code


if __name__ == "__main__":
    main()
