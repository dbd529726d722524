"""Where the keys of a Python config were written, followed through names and bases as the syntax shows it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from unbroken.config.config_file import Place
from unbroken.config.python_scope import Scope


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
        for old in [place for place in self.places if _is_below(place, key)]:
            del self.places[old]
        self.places.update(fresh)


def _is_below(key: str, above: str) -> bool:
    return key == above or key.startswith(f"{above}.")


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
