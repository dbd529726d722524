"""Edits of real configs: every key, the other values that the schema accepts for it, and what the schema says of it.

Works on canonical configs, which have every default filled in, and on any schema: numbers are scaled, switches are
flipped, words are replaced by those that the annotation lists, lists are turned round, shortened and lengthened. What a
type alone cannot tell (that two keys must change together, what a missing section looks like) is given by hand.
"""

from __future__ import annotations

import copy
import pprint
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from unbroken.config import Effect, Section
from unbroken.config.schema import effect_of_field, sections_in

Place = tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Edit:
    """New values for some keys; `name` is for people."""

    name: str
    values: tuple[tuple[Place, Any], ...]

    @property
    def places(self) -> frozenset[Place]:
        return frozenset(place for place, _ in self.values)

    def clashes(self, other: Edit) -> bool:
        """Whether both touch the same key, or one a section that the other is in."""
        return any(a[: len(b)] == b[: len(a)] for a in self.places for b in other.places)

    def __repr__(self) -> str:
        return self.name


def dotted(place: Place) -> str:
    return ".".join(place)


def split(key: str) -> Place:
    return tuple(key.split("."))


def at(tree: Any, place: Place, default: Any = None) -> Any:
    for part in place:
        try:
            tree = tree[int(part)] if isinstance(tree, list | tuple) else tree[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return default
    return tree


def edited(tree: Mapping[str, Any], edits: Iterable[Edit]) -> dict[str, Any]:
    """The config with these edits."""
    result = copy.deepcopy(dict(tree))
    for edit in edits:
        for place, value in edit.values:
            *above, last = place
            below = at(result, tuple(above))
            below[int(last) if isinstance(below, list) else last] = copy.deepcopy(value)
    return result


def leaves(tree: Any, under: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every key that holds no keys itself; a list is one value, unless it is a list of sections."""
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from leaves(value, (*under, str(name)))
    elif isinstance(tree, list | tuple) and tree and all(isinstance(item, Mapping) for item in tree):
        for number, value in enumerate(tree):
            yield from leaves(value, (*under, str(number)))
    else:
        yield under, tree


def sections(tree: Any, under: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every key that holds keys: sections, and lists of sections."""
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping):
        pairs = tree.items()
    elif isinstance(tree, list | tuple) and tree and all(isinstance(item, Mapping) for item in tree):
        pairs = enumerate(tree)
    else:
        return
    if under:
        yield under, tree
    for name, value in pairs:
        yield from sections(value, (*under, str(name)))


def differing(old: Any, new: Any) -> set[Place]:
    """The keys without keys below them whose value is not the same on both sides, or only on one."""
    one, other = dict(leaves(old)), dict(leaves(new))
    absent = object()
    return {place for place in one.keys() | other.keys() if not _same(one.get(place, absent), other.get(place, absent))}


def _same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


def as_python(tree: Mapping[str, Any]) -> str:
    """The config as a file of the aerial application."""
    return "".join(f"{key} = {pprint.pformat(value, width=110)}\n" for key, value in tree.items())


# -- what the schema says ----------------------------------------------------------------------------------------------


def declared(config: Section, key: str) -> Effect | None:
    """The effect written nearest to a key in the classes of a validated config; of a section, the worst inside."""
    value: Any = config
    found: Effect | None = None
    for part in split(key):
        if isinstance(value, Section):
            if part not in type(value).model_fields:
                return None
            found = effect_of_field(type(value).model_fields[part]) or found
            value = getattr(value, part)
        elif isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, tuple) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return found
    return found or min(_effects_in(value), key=lambda effect: effect.severity, default=None)


def _effects_in(value: Any) -> Iterator[Effect]:
    if isinstance(value, Section):
        for name, info in type(value).model_fields.items():
            own = effect_of_field(info)
            if own is Effect.IGNORED:
                continue
            if own is not None:
                yield own
            yield from _effects_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _effects_in(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _effects_in(item)


def words_of(config: Section, place: Place) -> list[Any]:
    """The values that the annotation of a key lists."""
    value: Any = config
    annotation: Any = None
    for part in place:
        if isinstance(value, Section):
            annotation = type(value).model_fields[part].annotation
            value = getattr(value, part)
        elif isinstance(value, Mapping):
            annotation, value = get_args(annotation)[-1] if get_args(annotation) else None, value.get(part)
        elif isinstance(value, tuple):
            value = value[int(part)]
    return list(_literals(annotation))


def _literals(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    if annotation is not None and not sections_in(annotation):
        for part in get_args(annotation):
            yield from _literals(part)


# -- other values ------------------------------------------------------------------------------------------------------

OF_NOTHING = (1, 2, 0.5, "x", [32, 32], [1.0, 2.0])  # what a key without a value might hold


def others(value: Any, words: Sequence[Any] = ()) -> Iterator[Any]:
    """Other values of the same type."""
    yield from (word for word in words if not _same(word, value))
    match value:
        case bool():
            yield not value
        case int():
            yield from dict.fromkeys([value + 1, value * 2, value // 2, value - 1])
        case float():
            yield from dict.fromkeys([value * 2, value / 2, value * 0.9, value + 0.25])
        case str() if not words:
            yield from (f"{value}_2", value.swapcase())
        case None:
            yield from OF_NOTHING
        case list() | tuple():
            yield from _other_lists(list(value), words)


def _other_lists(items: list[Any], words: Sequence[Any]) -> Iterator[Any]:
    yield items[::-1]
    if items:
        yield items[:-1]
        yield [*items, copy.deepcopy(items[-1])]
    for number, item in enumerate(items):
        for other in others(item, words):
            yield [*items[:number], other, *items[number + 1 :]]
    if items and all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
        yield [item * 2 for item in items]


def single_edits(tree: Mapping[str, Any], config: Section, by_hand: Mapping[str, Sequence[Any]]) -> Iterator[Edit]:
    """One key at a time: what may or may not be accepted. `by_hand` adds values for a key."""
    seen: set[str] = set()
    for place, value in (*leaves(tree), *sections(tree)):
        key = dotted(place)
        if isinstance(value, Mapping) and value:
            found: Iterable[Any] = (None,)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            found = [list(value)[::-1], list(value)[:-1], list(value)[1:], [*value, copy.deepcopy(value[-1])]]
        else:
            found = others(value, words_of(config, place))
        for new in (*by_hand.get(key, ()), *found):
            name = f"{key}: {value!r} -> {new!r}"
            if not _same(new, value) and name not in seen:
                seen.add(name)
                yield Edit(name, ((place, new),))


def linked(name: str, **values: Any) -> Edit:
    """Keys that have to change together; `__` stands for a dot."""
    return Edit(name, tuple((split(key.replace("__", ".")), value) for key, value in values.items()))
