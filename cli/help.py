"""Help texts that list methods. The package is imported only when such a text is shown, so that commands start fast."""

from importlib import import_module
from typing import Any

from typer.core import TyperCommand

_NAMES = {"{methods}": ("cxrfast.methods", "METHODS"), "{demos}": ("cxrfast.experiments.demo", "SETTINGS")}


class HelpWithNames(TyperCommand):
    """A command whose help texts may contain `{methods}` (all methods) and `{demos}` (the methods with a demo)."""

    def get_help(self, ctx: Any) -> str:  # a click.Context, or in newer versions typer's own
        for parameter in self.params:
            text = getattr(parameter, "help", None) or ""
            for placeholder, (module, table) in _NAMES.items():
                if placeholder in text:
                    text = text.replace(placeholder, ", ".join(getattr(import_module(module), table)))
                    parameter.help = text  # type: ignore[attr-defined]  # only options have a help text
        return super().get_help(ctx)
