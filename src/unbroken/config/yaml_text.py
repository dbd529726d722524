"""The plain data of one YAML text, and the line of each of its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from unbroken.config.config_file import Place
from unbroken.config.meter import Meter
from unbroken.errors import ConfigError

# 5e-4 is a number to people and to YAML 1.2; YAML 1.1, which PyYAML reads, asks for 5.0e-4.
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with 5e-4 as a number, dates as text, and no key twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the shape that PyYAML asks for
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is written twice: one of the two values would be lost silently."""
        _refuse_duplicates(node)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def load(text: str, path: Path, meter: Meter) -> tuple[dict[str, Any], dict[str, Place]]:
    """Return the mapping that a YAML text is, and the place of each key."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = {} if node is None else loader.construct_document(node)
        meter.weigh(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(path, mark.line + 1) if mark else Place(path)
        raise ConfigError(place, f"this is not right: {error.problem or error}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(path, f"this cannot be read as YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(path, "a config is a mapping of keys to values", found=f"a {type(data).__name__}")
    return data, {} if node is None else dict(_places(node, "", path))


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            raise yaml.MarkedYAMLError(
                problem=f"the key `{key.value}` is in this mapping twice, first in line {seen[key.value]}",
                problem_mark=key.start_mark,
            )
        seen[key.value] = key.start_mark.line + 1


def _places(node: yaml.Node, key: str, path: Path) -> Iterator[tuple[str, Place]]:
    if isinstance(node, yaml.MappingNode):
        pairs = [(name.value, name, value) for name, value in node.value if isinstance(name, yaml.ScalarNode)]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(str(position), value, value) for position, value in enumerate(node.value)]
    else:
        return
    for name, where, value in pairs:
        full = f"{key}.{name}" if key else name
        yield full, Place(path, where.start_mark.line + 1)
        yield from _places(value, full, path)
