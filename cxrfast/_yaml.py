"""Reads YAML that may be damaged or hostile: one error for everything that can be wrong, bounded memory and time."""

import os
from collections.abc import Hashable
from typing import Any

import yaml

from cxrfast._files import read_text

LIMIT = 2**19
"""Largest YAML file that is read: 512 KiB. The parser takes about ten seconds for one."""
_DEPTH = 32  # lists and mappings within each other
_NUMBER = 64  # characters of a number


class PlainLoader(yaml.SafeLoader):
    """The values that YAML shares with JSON. Dates stay text.

    An alias (``*name``), a tag of another kind, a name that stands twice, a number of more than 64 characters and more
    than 32 levels are a :class:`yaml.YAMLError`. With aliases, a few lines of text could become gigabytes.
    """

    _level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            self._refuse("an alias (*name) is not read; write its value out", event.start_mark)
        self._level += 1
        if self._level > _DEPTH:
            self._refuse(f"more than {_DEPTH} levels", self.peek_event().start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set[Hashable]()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, Hashable):
                if name in seen:
                    self._refuse(f"{name!r:.80} stands twice", key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        text = str(node.value)
        if len(text) > _NUMBER:
            self._refuse(f"a number of {len(text)} characters", node.start_mark)
        if node.tag.endswith(":int"):
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)

    def _refuse(self, problem: str, mark: yaml.Mark) -> None:
        raise yaml.constructor.ConstructorError(None, None, problem, mark)


for _name in ("int", "float"):
    PlainLoader.add_constructor(f"tag:yaml.org,2002:{_name}", PlainLoader.construct_number)
for _name in ("timestamp", "binary", "set", "omap", "pairs"):  # as any other unknown tag
    PlainLoader.add_constructor(f"tag:yaml.org,2002:{_name}", PlainLoader.construct_undefined)  # type: ignore[type-var]
PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":timestamp", ":merge"))]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, loader: type[PlainLoader] = PlainLoader) -> Any:
    """The value of a YAML text; :class:`ValueError`, in one line, for text that :class:`PlainLoader` refuses."""
    if len(text) > LIMIT:
        raise ValueError(f"it has {len(text)} characters, more than {LIMIT}")
    try:
        return yaml.load(text, loader)
    except Exception as error:  # beside YAMLError, the constructors of the library raise several kinds
        raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from error


def read_yaml(path: str | os.PathLike) -> Any:
    """:func:`parse_yaml` of a regular file; also :class:`OSError`."""
    return parse_yaml(read_text(path, LIMIT).removeprefix("\ufeff"))


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(value: Any) -> str:
    """YAML text that :func:`parse_yaml` reads: without aliases, names in the order of ``value``."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False)
