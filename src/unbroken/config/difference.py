"""What differs between configs, key by key, and what each change does: pure comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
DEEPEST = 60  # sections in sections; what a stranger's file has below is compared as a whole


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


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One dotted key whose values are not all the same; `ABSENT` where a config does not have it."""

    key: str
    values: tuple[Any, ...]  # one for each config, in their order

    def as_data(self) -> dict[str, Any]:
        """The same for `--json`; an absent value is left out of `values` by being said as such."""
        return {
            "key": self.key,
            "values": [None if value is ABSENT else value for value in self.values],
            "absent": [place for place, value in enumerate(self.values) if value is ABSENT],
        }


def changes(old: Mapping[str, Any], new: Mapping[str, Any], effects: Effects) -> tuple[Change, ...]:
    """List what differs between two canonical configs, the most severe first, then by key.

    A key that the schema does not know (written by another version) counts as a change of meaning: what it
    did cannot be judged any more, so it must not pass unseen. One that came after `old` was written had there the
    value that the schema says.
    """
    found = []
    for difference in _differing("", (old, new), apart=False):
        key, (before, after) = difference.key, difference.values
        since = effects.since_of(key) if before is ABSENT else None
        if since is not None and same(since.before, after):
            continue
        effect = effects.find(key) or Effect.MEANING
        if effect is not Effect.IGNORED:
            found.append(Change(key, since.before if since else before, after, effect))
    return tuple(sorted(found, key=_rank))


def worst(found: Iterable[Change]) -> Effect | None:
    """Return the most severe effect among the changes; None when nothing changed."""
    return most_severe(change.effect for change in found)


def _rank(change: Change) -> tuple[int, list[tuple[int, int, str]]]:
    """Severity first; then the key, with positions in lists in the order of numbers, not of text."""
    parts = change.key.split(".")
    return change.effect.severity, [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]


def differences(configs: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    """The keys that differ between any number of configs, in their order; nothing for fewer than two.

    This needs no schema: the configs may be of different programs, or of versions whose schema is gone. `same` decides:
    (1,) and [1], 1 and 1.0 mean the same, 1 and True do not. A whole section that one config does not have counts as
    absent key by key.
    """
    return tuple(_differing("", tuple(configs), apart=True)) if len(configs) > 1 else ()


def _differing(key: str, values: tuple[Any, ...], *, apart: bool, depth: int = DEEPEST) -> Iterator[Difference]:
    """Take sections apart down to the keys that differ; one that some config lacks only where `apart`."""
    here = [value for value in values if value is not ABSENT]
    everywhere = len(here) == len(values)
    if depth and (apart or everywhere) and all(isinstance(value, Mapping) for value in here) and any(here):
        for name in dict.fromkeys(name for section in here for name in section):
            inner = tuple(ABSENT if value is ABSENT else value.get(name, ABSENT) for value in values)
            yield from _differing(_join(key, name), inner, apart=apart, depth=depth - 1)
    elif depth and everywhere and _stand_for_the_same(here):
        for place, inner in enumerate(zip(*values)):
            yield from _differing(_join(key, place), inner, apart=apart, depth=depth - 1)
    elif not everywhere or not _all_same(here):
        yield Difference(key=key, values=values)


def _stand_for_the_same(lists: Sequence[Any]) -> bool:
    """Lists of sections of the same types in the same order, such as pipelines and schedules."""
    if not all(isinstance(value, list | tuple) and len(value) == len(lists[0]) > 0 for value in lists):
        return False
    return all(
        all(isinstance(section, Mapping) for section in row)
        and all(same(row[0].get("type"), section.get("type")) for section in row)
        for row in zip(*lists)
    )


def _all_same(values: Sequence[Any]) -> bool:
    try:
        return all(same(values[0], value) for value in values[1:])
    except RecursionError:  # a stranger's file, deeper than anyone writes: as text it can still be told apart
        return False


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


def leaves(
    tree: Any, key: str = "", *, splits: Callable[[Sequence[Any]], bool] = lambda _: False
) -> Iterator[tuple[str, Any]]:
    """Every single value with its dotted key: sections are taken apart, and the lists of which `splits` says so.

    A section that is empty, or in which a name is no text, is a value itself.
    """
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping) and all(isinstance(name, str) for name in tree):
        inside = tree.items()
    elif isinstance(tree, list | tuple) and splits(tree):
        inside = enumerate(tree)
    if not inside:
        yield key, tree
    for name, value in inside:
        yield from leaves(value, _join(key, name), splits=splits)


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
