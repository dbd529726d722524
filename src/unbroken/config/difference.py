"""The difference between two configs, key by key, each with what it does: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from unbroken.config.effect import Effect, Effects, most_severe


class Absent(Enum):
    """The value of a key on the side that does not have it."""

    ABSENT = "(absent)"

    def __str__(self) -> str:
        return "(absent)"

    __repr__ = __str__


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True)
class Change:
    """One key that differs between two configs."""

    key: str
    old: Any
    new: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.key}: {self.old!r} -> {self.new!r} ({self.effect})"

    def as_data(self) -> dict[str, Any]:
        """The same facts for `--json`."""
        sides = {"old": self.old, "new": self.new}
        return {"key": self.key, "effect": str(self.effect)} | {
            name: str(value) if value is ABSENT else value for name, value in sides.items()
        }


def changes(old: Mapping[str, Any], new: Mapping[str, Any], effects: Effects) -> tuple[Change, ...]:
    """List what differs between two canonical configs, the most severe first, then by key.

    A key that the schema does not know (written by another version) counts as a change of meaning: what it
    did cannot be judged any more, so it must not pass unseen. One that came after `old` was written had there the
    value that the schema says.
    """
    found = (
        Change(key, before, after, effects.find(key) or Effect.MEANING)
        for key, before, after in _with_earlier_values(_differing("", old, new), effects)
    )
    return tuple(sorted((c for c in found if c.effect is not Effect.IGNORED), key=_rank))


def worst(found: Iterable[Change]) -> Effect | None:
    """Return the most severe effect among the changes; None when nothing changed."""
    return most_severe(change.effect for change in found)


def _rank(change: Change) -> tuple[int, list[tuple[int, int, str]]]:
    """Severity first; then the key, with positions in lists in the order of numbers, not of text."""
    parts = change.key.split(".")
    return change.effect.severity, [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]


def _with_earlier_values(found: Iterator[tuple[str, Any, Any]], effects: Effects) -> Iterator[tuple[str, Any, Any]]:
    for key, before, after in found:
        since = effects.since_of(key) if before is ABSENT else None
        if since is None:
            yield key, before, after
        elif not same(since.before, after):
            yield key, since.before, after


def _differing(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys((*old, *new)):
            yield from _differing(_join(key, name), old.get(name, ABSENT), new.get(name, ABSENT))
    elif _comparable_by_element(old, new):
        for place, (before, after) in enumerate(zip(old, new)):
            yield from _differing(_join(key, place), before, after)
    elif not same(old, new):
        yield key, old, new


def _comparable_by_element(old: Any, new: Any) -> bool:
    """Lists of sections that still stand for the same things in the same order: pipelines, schedules."""
    both = isinstance(old, list | tuple) and isinstance(new, list | tuple)
    return (
        both
        and len(old) == len(new) > 0
        and all(
            isinstance(a, Mapping) and isinstance(b, Mapping) and same(a.get("type"), b.get("type"))
            for a, b in zip(old, new)
        )
    )


def same(old: Any, new: Any) -> bool:
    """Tell whether two plain values mean the same: (1,) and [1], 1 and 1.0, nan and nan do, 1 and True do not."""
    match old, new:
        case Mapping(), Mapping():
            return old.keys() == new.keys() and all(same(old[name], new[name]) for name in old)
        case ((list() | tuple()), (list() | tuple())):
            return len(old) == len(new) and all(map(same, old, new))
        case _:
            both_nan = old != old and new != new
            return isinstance(old, bool) == isinstance(new, bool) and bool(old == new or both_nan)


def value_at(tree: Any, key: str, default: Any = ABSENT) -> Any:
    """The value of a dotted key, digits being positions in a list; `default` where there is none."""
    for part in key.split("."):
        if isinstance(tree, Mapping):
            tree = tree.get(part, default)
        elif isinstance(tree, list | tuple) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return default
    return tree


def keys_of(tree: Any, under: str = "") -> Iterator[str]:
    """Every dotted key of a canonical config, sections and positions in lists of sections among them."""
    if isinstance(tree, Mapping):
        items: Iterable[tuple[object, Any]] = tree.items()
    elif isinstance(tree, list | tuple) and all(isinstance(item, Mapping) for item in tree):
        items = enumerate(tree)
    else:
        return
    for name, value in items:
        yield _join(under, name)
        yield from keys_of(value, _join(under, name))


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
