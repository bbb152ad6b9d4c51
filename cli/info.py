"""`cxrfast info`."""

from typing import Annotated

import typer

from cxrfast.cli.output import echo


def info(
    method: Annotated[str | None, typer.Argument(metavar="METHOD", help="Show this method's options.")] = None,
) -> None:
    """Show what is installed, or a method's options.

    Without METHOD: versions, compiler settings of the operators, devices and methods. With METHOD: its options for
    --set with defaults and meanings, and its defaults for the options that all methods share.
    """
    if method is None:
        _installation()
    else:
        _options(method)


def _installation() -> None:
    from cxrfast.methods import METHODS
    from cxrfast.runs import environment

    for name, value in environment().items():
        text = (", ".join(value) or "none") if isinstance(value, list) else value
        echo(f"{name.replace('_', ' '):<22} {text}")
    for method in METHODS.values():
        echo(f"{'method ' + method.name:<22} {method.title}")


def _options(name: str) -> None:
    from cxrfast.methods import get_method

    method = get_method(name)
    echo(f"{method.title}\n\ndefaults of cxrfast train (the published settings, where the paper states them)")
    for option, value in vars(method.defaults).items():
        echo(f"  {option.replace('_', '-'):<18} {value}")
    echo("\noptions for --set NAME=VALUE")
    for option, field in method.Options.model_fields.items():
        echo(f"  {option:<18} {field.default!s:<12} {field.description}")
