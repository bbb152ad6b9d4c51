"""Help texts that name what only the package knows, which is imported when such a text is asked for."""

from importlib import import_module
from typing import Any

from typer.core import TyperCommand

_NAMES = {"{methods}": ("cxrfast.methods", "METHODS"), "{demos}": ("cxrfast.experiments.demo", "SETTINGS")}


class HelpWithNames(TyperCommand):
    """A command in whose options' help `{methods}` and `{demos}` stand for the methods there are, and those that have a
    demo."""

    def get_help(self, ctx: Any) -> str:  # a click.Context, or in newer versions typer's own
        for parameter in self.params:
            text = getattr(parameter, "help", None) or ""
            for placeholder, (module, table) in _NAMES.items():
                if placeholder in text:
                    text = text.replace(placeholder, ", ".join(getattr(import_module(module), table)))
                    parameter.help = text  # type: ignore[attr-defined]  # of options, which alone have a text
        return super().get_help(ctx)
