"""A config in Python syntax, with its bases merged in."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.config.config_file import ConfigFile, Place
from unbroken.config.merge import merge, merged_places
from unbroken.config.meter import FILE_BYTES, Meter, TooMuch, plain_copy
from unbroken.config.python_places import Trace
from unbroken.config.python_scope import Scope
from unbroken.config.python_statements import carry_out
from unbroken.config.python_words import take_environment, words_of_file
from unbroken.config.source_text import read_text, refuse_circle
from unbroken.errors import ConfigError
from unbroken.text import plain

RESERVED = ("filename", "text", "pretty_text", "env_variables")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What all files of one config share."""

    environment: Mapping[str, str]
    meter: Meter


def read_python(path: Path, *, environment: Mapping[str, str]) -> ConfigFile:
    """Read a config in Python syntax; its syntax tree is evaluated, nothing is executed."""
    return _read(path, Reader(environment=environment, meter=Meter()), chain=(), named_in="")


def read_python_text(text: str, where: Path) -> dict[str, Any]:
    """Read a config that is text inside of another file, as MMEngine keeps it; `where` names that file in errors.

    It is read as a file is, never executed, and stands alone: nothing on this machine is its base or its environment.
    """
    reader = Reader(environment={}, meter=Meter())
    try:
        reader.meter.open_file(len(text))
        if len(text) > FILE_BYTES:
            raise TooMuch(f"the config in it is longer than {FILE_BYTES:,} characters")
        module = _parse(text, where)
        if _bases(module, where):
            raise ConfigError(where, "the config in it is based on other files")
        return _evaluated(module, where, {}, None, reader)[0]
    except TooMuch as error:
        raise ConfigError(where, str(error)) from error


def _read(path: Path, reader: Reader, *, chain: tuple[Path, ...], named_in: object) -> ConfigFile:
    resolved = path.resolve()
    refuse_circle(resolved, chain, named_in=named_in)
    text, words = take_environment(read_text(path, reader.meter, named_in=named_in), reader.environment)
    module = _parse(text, path)
    bases = [_read(base, reader, chain=(*chain, resolved), named_in=place) for base, place in _bases(module, path)]
    base = _joined(bases, path)
    own, places = _evaluated(module, path, words | words_of_file(path), base if bases else None, reader)
    return ConfigFile(
        path=path,
        tree=merge(base.tree, own, places),
        places=merged_places(base.places, places, own),
        sources=tuple(dict.fromkeys((path, *base.sources))),
    )


def _parse(text: str, path: Path) -> ast.Module:
    try:
        return ast.parse(text, filename=str(path))
    except SyntaxError as error:
        wide = re.search(r"invalid character '(.)'", error.msg or "")
        do = (
            f"It is a full-width character: type {plain(wide[1])} instead."
            if wide and plain(wide[1]) != wide[1]
            else ""
        )
        raise ConfigError(Place(path, error.lineno or 0), f"this is not Python syntax: {error.msg}", do=do) from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise ConfigError(path, f"this cannot be parsed: {str(error) or 'it is nested too deeply'}") from error


def _bases(module: ast.Module, path: Path) -> list[tuple[Path, Place]]:
    """Find `_base_ = ...` without evaluating anything: other expressions may need what it brings."""
    named: list[tuple[Path, Place]] = []
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="_base_")], value=value):
                named = [_base_path(node, path) for node in _base_nodes(value)]
            case _:
                pass
    return named


def _base_nodes(value: ast.expr) -> list[ast.expr]:
    return list(value.elts) if isinstance(value, ast.List | ast.Tuple) else [value]


def _base_path(node: ast.expr, path: Path) -> tuple[Path, Place]:
    place = Place(path, node.lineno)
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        raise ConfigError(place, "`_base_` is a path or a list of paths, written out")
    if "::" in node.value:
        raise ConfigError(
            place,
            "a base inside an installed package is not read here",
            do="Copy that file next to this one.",
        )
    return path.parent / node.value, place


def _joined(bases: list[ConfigFile], path: Path) -> ConfigFile:
    """Join several bases; none may say what another one says already."""
    tree: dict[str, Any] = {}
    places: dict[str, Place] = {}
    for base in bases:
        twice = sorted(tree.keys() & base.tree.keys())
        if twice:
            raise ConfigError(
                path,
                f"two bases define the same: {', '.join(f'`{name}`' for name in twice)} "
                f"({places.get(twice[0])} and {base.places.get(twice[0])})",
                do="Let one of them have it, or base one on the other.",
            )
        tree |= base.tree
        places |= base.places
    return ConfigFile(path=path, tree=tree, places=places, sources=tuple(s for base in bases for s in base.sources))


def _evaluated(
    module: ast.Module, path: Path, words: Mapping[str, Any], base: ConfigFile | None, reader: Reader
) -> tuple[dict[str, Any], dict[str, Place]]:
    scope = Scope(path=path, base=base.tree if base else None, words=words, meter=reader.meter)
    trace = Trace(base=base.places if base else {})
    for statement in module.body:
        carry_out(statement, scope, trace)
    # A name that begins with an underscore helps to write the others and is no key of the config.
    own = {name: plain_copy(value) for name, value in scope.names.items() if not name.startswith("_")}
    for name in sorted(own.keys() & set(RESERVED)):
        raise ConfigError(trace.places.get(name, path), f"`{name}` is a reserved name", do="Choose another.")
    return own, {key: place for key, place in trace.places.items() if key.split(".")[0] in own}
