"""A config in YAML, with every `_BASE_CONFIG_` merged in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unbroken.config.config_file import ConfigFile, Place, read_text, refuse_circle
from unbroken.config.meter import DEPTH, Meter, TooMuch
from unbroken.errors import ConfigError
from unbroken.storage import is_ordinary
from unbroken.text import plain

BASE = "_BASE_CONFIG_"


def read_yaml(path: Path) -> ConfigFile:
    """Read a YAML config; a mapping with `_BASE_CONFIG_: file` starts from that file, its own keys on top."""
    return _read(path, Meter(), chain=(), named_in="")


def _read(path: Path, meter: Meter, *, chain: tuple[Path, ...], named_in: object) -> ConfigFile:
    resolved = path.resolve()
    refuse_circle(resolved, chain, named_in=named_in)
    own, own_places = load(read_text(path, meter, named_in=named_in), path, meter)
    overlay = _Overlay(path=path, own_places=own_places, meter=meter, chain=(*chain, resolved))
    tree = overlay.laid_over({}, own, "")
    return ConfigFile(
        path=path,
        tree=tree,
        places=overlay.places | own_places,
        sources=tuple(dict.fromkeys((path, *overlay.sources))),
    )


@dataclass(frozen=True, kw_only=True)
class _Overlay:
    """One file on its way over the bases it names; `places` and `sources` collect what the bases bring."""

    path: Path
    own_places: dict[str, Place]
    meter: Meter
    chain: tuple[Path, ...]
    places: dict[str, Place] = field(default_factory=dict)
    sources: list[Path] = field(default_factory=list)

    def laid_over(self, below: dict[str, Any], own: dict[str, Any], key: str) -> dict[str, Any]:
        """Update `below` with the base that `own` names, one level deep, then merge `own` on top of both."""
        merged = dict(below)
        if BASE in own:
            merged |= self._based(own[BASE], key)
        for name, value in own.items():
            if name != BASE:
                merged[name] = self._merged(merged.get(name), value, _join(key, name))
        return merged

    def _merged(self, below: Any, value: Any, key: str) -> Any:
        if not isinstance(value, dict):
            self._forget(key)
            return value
        if not isinstance(below, dict | None):
            raise ConfigError(
                self.own_places.get(key, self.path),
                f"`{key}` is a mapping here and something else in the base",
                expected=f"something like {below!r:.60}",
                found="a mapping",
            )
        return self.laid_over(below or {}, value, key)

    def _based(self, named: Any, key: str) -> dict[str, Any]:
        place = self.own_places.get(_join(key, BASE), Place(self.path))
        base = _read(find_base(named, self.path, place), self.meter, chain=self.chain, named_in=place)
        self.sources.extend(base.sources)
        for name in base.tree:
            self._forget(_join(key, name))
        self.places.update({_join(key, inside): found for inside, found in base.places.items()})
        return base.tree

    def _forget(self, key: str) -> None:
        try:
            self.meter.spend(len(self.places) // 10)
        except TooMuch as error:
            raise ConfigError(self.own_places.get(key, self.path), str(error)) from error
        for replaced in [known for known in self.places if known == key or known.startswith(f"{key}.")]:
            del self.places[replaced]


def find_base(named: Any, path: Path, place: Place) -> Path:
    """Look for a base beside the file that names it, in each folder above, then in the current folder.

    The folders above come first, so that a file in an application's tree has the same base wherever one stands.
    """
    if not isinstance(named, str):
        raise ConfigError(place, f"`{BASE}` is the path of a file", found=repr(named))
    relative = Path(named.replace("\\", "/"))
    tried = [folder / relative for folder in (*path.absolute().parents, Path.cwd())]
    for candidate in tried:
        if is_ordinary(candidate):
            return candidate
    listed = "".join(f"\n  {candidate}" for candidate in dict.fromkeys(tried))
    raise ConfigError(place, f"the base {named} is in none of the places tried:{listed}")


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


# 5e-4 is a number to people and to YAML 1.2; YAML 1.1, which PyYAML reads, asks for 5.0e-4.
FULL_WIDTH = re.compile("[：，［］｛｝＂＇＃“”‘’]")  # punctuation that a Chinese keyboard writes
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")


MERGE = "tag:yaml.org,2002:merge"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
LONGEST_NUMBER = 400  # characters; 1:00:00 is one too, to the base of 60, and takes the square of its length
NODES = 20_000  # keys and values as written; each takes a tenth of a millisecond to read
# What PyYAML raises for a value that is not what its tag says, such as `!!int ""`; of its own errors it tells the line.
MISREAD = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with 5e-4 as a number, dates as text, no key twice, and an end to what it may ask for."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the shape that PyYAML asks for
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, meter: Meter) -> None:
        super().__init__(text)
        self._meter = meter
        self._nodes = self._depth = 0
        self._unfolded: dict[int, int] = {}  # by id of a mapping: its pairs, those it merges as often as it names them
        self._merging: set[int] = set()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse more, or deeper, than any config has while it is read: afterwards would be too late."""
        self._nodes += 1
        self._depth += 1
        if self._nodes > NODES or self._depth > DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML has no types
            limit = f"more than {NODES:,} keys and values" if self._nodes > NODES else f"values nested {DEPTH} deep"
            raise yaml.MarkedYAMLError(problem=f"{limit}, as in no real config", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_scalar_node(self, anchor: dict[Any, yaml.Node]) -> yaml.ScalarNode:
        """Refuse a number whose reading alone would take minutes."""
        node = super().compose_scalar_node(anchor)
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise yaml.MarkedYAMLError(problem="a number that is far too long", problem_mark=node.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Name the line of a value that is not what its tag says."""
        try:
            return super().construct_object(node, deep=deep)
        except MISREAD as error:
            raise yaml.MarkedYAMLError(
                problem=f"this is no {node.tag.rpartition(':')[2]}: {error}"[:200], problem_mark=node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is written twice: one of the two values would be lost silently."""
        _refuse_duplicates(node)
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):  # 1 and 0x1, yes and true
            raise yaml.MarkedYAMLError(problem="two of its keys mean the same", problem_mark=node.start_mark)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Lay the mappings that `<<` names below the node's own keys, the first of several on top.

        Each key stands in the result once, so that merges of merges do not multiply; what they would have multiplied
        to is weighed all the same, because what is merged is also read again by people.
        """
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:value":
                key.tag = "tag:yaml.org,2002:str"  # a key that is `=`
        merges = [(key, value) for key, value in node.value if key.tag == MERGE]
        if not merges:
            return
        if id(node) in self._merging:
            raise yaml.MarkedYAMLError(problem="a mapping is merged into itself", problem_mark=merges[0][0].start_mark)
        self._merging.add(id(node))
        pairs: dict[object, tuple[yaml.Node, yaml.Node]] = {}
        unfolded = len(node.value)
        for key, value in merges:
            for source in reversed(_sources(key, value)):
                self.flatten_mapping(source)
                unfolded += self._unfolded.get(id(source), len(source.value))
                pairs |= {_identity(name): (name, inner) for name, inner in source.value}
            try:
                self._meter.spend(unfolded)
            except TooMuch as error:
                raise yaml.MarkedYAMLError(problem=str(error), problem_mark=key.start_mark) from error
        own = {_identity(key): (key, value) for key, value in node.value if key.tag != MERGE}
        node.value = list((pairs | own).values())
        self._unfolded[id(node)] = unfolded
        self._merging.discard(id(node))


def _sources(key: yaml.Node, value: yaml.Node) -> list[yaml.MappingNode]:
    """The mappings that `<<` names: one, or a list of them."""
    named = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if not all(isinstance(node, yaml.MappingNode) for node in named):
        raise yaml.MarkedYAMLError(problem="only mappings can be merged", problem_mark=key.start_mark)
    return list(named)


def _identity(key: yaml.Node) -> object:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def load(text: str, path: Path, meter: Meter) -> tuple[dict[str, Any], dict[str, Place]]:
    """Return the mapping that a YAML text is, and the place of each key."""
    try:
        loader = _Loader(text, meter)
        node = loader.get_single_node()
        data = {} if node is None else loader.construct_document(node)
        if not isinstance(data, dict):
            raise ConfigError(path, "a config is a mapping of keys to values", found=f"a {type(data).__name__}")
        for key, (name, _) in zip(data, node.value if node is not None else ()):
            _weigh(meter, {key: data[key]}, name)
        return data, {} if node is None else dict(_places(node, "", path, meter))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(path, mark.line + 1) if mark else Place(path)
        what = f"this cannot be read as YAML: {error.problem or error}"
        raise ConfigError(place, what, do=_meant(text, mark.line) if mark else "") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(path, f"this cannot be read as YAML: {error}") from error


def _meant(text: str, line: int) -> str:
    """What was meant where a text is no YAML: a fault of one line is often noticed in the next."""
    near = text.splitlines()[max(0, line - 1) : line + 1]
    if near and near[-1][: len(near[-1]) - len(near[-1].lstrip())].count("\t"):
        return "Indent with spaces: YAML takes no tabs."
    wide = next((found[0] for each in reversed(near) if (found := FULL_WIDTH.search(each))), "")
    return f"{wide} is a full-width character: type {plain(wide) or chr(34)} instead." if wide else ""


def _weigh(meter: Meter, value: dict[Any, Any], node: yaml.Node) -> None:
    try:
        meter.weigh(value)
    except (ValueError, TypeError) as error:
        raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error


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


def _places(node: yaml.Node, key: str, path: Path, meter: Meter) -> Iterator[tuple[str, Place]]:
    if isinstance(node, yaml.MappingNode):
        pairs = [(name.value, name, value) for name, value in node.value if isinstance(name, yaml.ScalarNode)]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(str(position), value, value) for position, value in enumerate(node.value)]
    else:
        return
    for name, where, value in pairs:
        full = f"{key}.{name}" if key else name
        meter.note_key(full)
        yield full, Place(path, where.start_mark.line + 1)
        yield from _places(value, full, path, meter)
