"""`cxrfast info`."""

import typer


def info() -> None:
    """Say what is installed: versions, how the operators were compiled, devices, methods."""
    from cxrfast.methods import METHODS
    from cxrfast.training import environment

    for name, value in environment().items():
        text = (", ".join(value) or "none") if isinstance(value, list) else value
        typer.echo(f"{name.replace('_', ' '):<22} {text}")
    for method in METHODS.values():
        typer.echo(f"{'method ' + method.name:<22} {method.title}")
