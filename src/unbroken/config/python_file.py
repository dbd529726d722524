"""A config in Python syntax, with its bases merged in: its statements assign, and do nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.config.config_file import ConfigFile, Place, read_text, refuse_circle
from unbroken.config.merge import merge, merged_places
from unbroken.config.meter import FILE_BYTES, Meter, TooMuch, plain_copy
from unbroken.config.python_expressions import (
    ALLOWED,
    WHAT_FAILS,
    Scope,
    bind,
    evaluate,
    take_environment,
    words_of_file,
)
from unbroken.config.python_operations import BINARY
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
    """Read a config that is text inside of another file, as MMEngine keeps it; nothing in it is executed.

    It stands alone: nothing on this machine is its base or its environment.

    Args:
        text: In Python's syntax.
        where: The file that it is in, for errors.
    Returns:
        Its data.
    Raises:
        ConfigError: It cannot be read, is based on other files, or is too large.
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
                nodes = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
                named = [_base_path(node, path) for node in nodes]
            case _:
                pass
    return named


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


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The places of all keys so far; `base` are those of the merged bases."""

    places: dict[str, Place] = field(default_factory=dict)
    base: Mapping[str, Place] = field(default_factory=dict)

    def assigned(self, key: str, value: ast.expr, scope: Scope) -> None:
        """Note that a key now holds the value of an expression."""
        scope.meter.spend(len(self.places) // 10)
        fresh: dict[str, Place] = {}
        for full, place in _written(key, value, self, scope):
            scope.meter.note_key(full)
            fresh[full] = place
        for old in [place for place in self.places if place == key or place.startswith(f"{key}.")]:
            del self.places[old]
        self.places.update(fresh)


def _written(key: str, node: ast.expr, trace: Trace, scope: Scope) -> Iterator[tuple[str, Place]]:
    yield key, scope.place(node)
    match node:
        case ast.Dict(keys=names, values=values):
            for name, value in zip(names, values):
                yield from _entry(key, name, value, trace, scope)
        case ast.Call(func=ast.Name(id="dict"), keywords=keywords):
            for keyword in keywords:
                name = None if keyword.arg is None else ast.copy_location(ast.Constant(keyword.arg), keyword)
                yield from _entry(key, name, keyword.value, trace, scope)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            for position, element in enumerate(elements):
                if isinstance(element, ast.Starred):
                    break  # where the following ones come to stand is not known from the syntax
                yield from _written(f"{key}.{position}", element, trace, scope)
        case ast.Name(id=name):
            yield from _copied(name, key, trace.places, scope)
        case ast.Attribute() if (source := ast.unparse(node)).startswith("_base_."):
            yield from _copied(source.removeprefix("_base_."), key, trace.base, scope)
        case _:
            return


def _entry(key: str, name: ast.expr | None, value: ast.expr, trace: Trace, scope: Scope) -> Iterator[tuple[str, Place]]:
    if name is None:  # `**something`: its keys come to stand directly here
        below = (found for found in _written(key, value, trace, scope) if found[0] != key)
        yield from below
    elif isinstance(name, ast.Constant):
        full = f"{key}.{name.value!s}"
        yield from _written(full, value, trace, scope)
        yield full, scope.place(name)


def _copied(source: str, key: str, places: Mapping[str, Place], scope: Scope) -> Iterator[tuple[str, Place]]:
    scope.meter.spend(len(places))
    for place in [place for place in places if place.startswith(f"{source}.")]:
        yield key + place[len(source) :], places[place]


_HINTS: dict[type[ast.stmt], tuple[str, str]] = {
    ast.If: ("an `if` statement", "Use a conditional expression: `x = a if condition else b`."),
    ast.For: ("a `for` statement", "Use a comprehension: `x = [... for y in z]`."),
    ast.While: ("a `while` statement", "Use a comprehension: `x = [... for y in z]`."),
    ast.Import: ("an import", f"Imports would run code. {ALLOWED}"),
    ast.ImportFrom: ("an import", f"Imports would run code. {ALLOWED}"),
    ast.FunctionDef: ("a function", ALLOWED),
    ast.ClassDef: ("a class", ALLOWED),
}


def carry_out(statement: ast.stmt, scope: Scope, trace: Trace) -> None:
    """Carry out one statement at the top level of a config."""
    try:
        _carry_out(statement, scope, trace)
    except WHAT_FAILS as error:  # to take a number apart, or to remember where so many keys were written
        raise scope.refuse(statement, f"this cannot be worked out: {error}", do="") from error


def _carry_out(statement: ast.stmt, scope: Scope, trace: Trace) -> None:
    match statement:
        case ast.Assign(targets=targets, value=value):
            _assign(targets, value, scope, trace)
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            _assign([target], value, scope, trace)
        case ast.AugAssign():
            _assign_in_place(statement, scope, trace)
        case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
            return
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            return  # it says something while a config is executed, and changes nothing
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=holder)) as call):
            evaluate(call, scope)
            if (key := _key_of(holder)) is not None:
                # After `.update(...)` and the like the lines of what is inside are not known; the whole is here.
                trace.assigned(key, ast.copy_location(ast.Constant(None), call), scope)
        case ast.Delete(targets=targets):
            for name in targets:
                if not (isinstance(name, ast.Name) and name.id in scope.names):
                    raise scope.refuse(statement, "`del` is for names assigned above", do="")
                del scope.names[name.id]
        case _:
            what, do = _HINTS.get(type(statement), (f"this statement ({type(statement).__name__})", ALLOWED))
            raise scope.refuse(statement, f"a config cannot contain {what}", do=do)


def _assign(targets: list[ast.expr], value: ast.expr, scope: Scope, trace: Trace) -> None:
    result = evaluate(value, scope)
    for target in targets:
        bind(target, result, scope)
        _note(target, value, scope, trace)


def _note(target: ast.expr, value: ast.expr, scope: Scope, trace: Trace) -> None:
    if isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        exact = len(parts) == len(target.elts)
        for place, name in enumerate(target.elts):
            _note(name, parts[place] if exact else value, scope, trace)
    elif (key := _key_of(target)) is not None:
        trace.assigned(key, value, scope)


def _key_of(target: ast.expr) -> str | None:
    """Return `model['backbone']['depth']` as a dotted key; None when an index is computed."""
    match target:
        case ast.Name(id=name):
            return name
        case ast.Subscript(value=holder, slice=ast.Constant(value=(str() | int()) as index)):
            above = _key_of(holder)
            return None if above is None else f"{above}.{index}"
        case _:
            return None


def _assign_in_place(statement: ast.AugAssign, scope: Scope, trace: Trace) -> None:
    if type(statement.op) not in BINARY or not isinstance(statement.target, ast.Name | ast.Subscript):
        raise scope.refuse(statement, "a config cannot contain this assignment")
    before = evaluate(statement.target, scope)
    try:
        after = _combined(before, type(statement.op), evaluate(statement.value, scope))
    except WHAT_FAILS as error:
        raise scope.refuse(statement, f"this cannot be worked out: {error}", do="") from error
    bind(statement.target, after, scope)
    evaluate(statement.target, scope)  # weighs what has grown
    _note(statement.target, ast.copy_location(ast.Constant(None), statement), scope, trace)


def _combined(before: Any, op: type[ast.operator], value: Any) -> Any:
    """A list grows in place, as in Python: other names of the same list see it."""
    if op is ast.Add and isinstance(before, list) and isinstance(value, list | tuple):
        before.extend(list(value))
        return before
    return BINARY[op](before, value)
