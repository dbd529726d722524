"""What differs between configs, key by key, and what each change does: pure comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from unbroken.config.effect import Effect, Effects, most_severe


class Absent(Enum):
    """The value of a key on the side that does not have it."""

    ABSENT = "(absent)"  # the only one; shown as `(absent)`

    def __str__(self) -> str:
        return "(absent)"

    __repr__ = __str__


ABSENT: Final = Absent.ABSENT  # the value of a key on the side that does not have it
DEEPEST = 60  # sections in sections; what a stranger's file has below is compared as a whole


@dataclass(frozen=True)
class Change:
    """One key that differs between two configs; shown as `lr: 0.1 -> 0.01 (schedule)`.

    Args:
        key: Dotted, digits being positions in a list.
        old: Value before; `ABSENT` where there was none.
        new: Value now; `ABSENT` where there is none.
        effect: What the change does to a run that has weights.
    """

    key: str
    old: Any
    new: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.key}: {self.old!r} -> {self.new!r} ({self.effect})"

    def as_data(self) -> dict[str, Any]:
        """Return the same facts for `--json`."""
        sides = {"old": self.old, "new": self.new}
        return {"key": self.key, "effect": str(self.effect)} | {
            name: str(value) if value is ABSENT else value for name, value in sides.items()
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One key whose values are not all the same.

    Args:
        key: Dotted, digits being positions in a list.
        values: One for each config, in their order; `ABSENT` where one does not have it.
    """

    key: str
    values: tuple[Any, ...]

    def as_data(self) -> dict[str, Any]:
        """Return the same for `--json`: an absent value is None there, and its place listed under "absent"."""
        return {
            "key": self.key,
            "values": [None if value is ABSENT else value for value in self.values],
            "absent": [place for place, value in enumerate(self.values) if value is ABSENT],
        }


def changes(old: Mapping[str, Any], new: Mapping[str, Any], effects: Effects) -> tuple[Change, ...]:
    """Return what differs between two canonical configs, the most severe first, then by key.

    Args:
        old: The config of the run so far.
        new: The present config.
        effects: Those of the schema. A key that it does not know (of another version) counts as a change of meaning:
            what it did cannot be judged any more. One that came after `old` was written had there the value that the
            schema says.
    Example:
        >>> from unbroken.config import Effect, Effects, changes
        >>> known = Effects(fields={"width": Effects(own=Effect.SHAPE), "lr": Effects(own=Effect.SCHEDULE)})
        >>> [str(change) for change in changes({"lr": 0.1, "width": 8}, {"lr": 0.2, "width": 16}, known)]
        ['width: 8 -> 16 (shape)', 'lr: 0.1 -> 0.2 (schedule)']
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
    """Return the most severe effect among the changes; None when nothing changed.

    Args:
        found: What `changes` gave.
    """
    return most_severe(change.effect for change in found)


def _rank(change: Change) -> tuple[int, list[tuple[int, int, str]]]:
    """Severity first; then the key, with positions in lists in the order of numbers, not of text."""
    parts = change.key.split(".")
    return change.effect.severity, [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]


def differences(configs: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    """Return the keys that differ between any number of configs, in their order; nothing for fewer than two.

    This needs no schema: the configs may be of different programs, or of versions whose schema is gone.

    Args:
        configs: Trees; what means the same (see `same`) is no difference, and a whole section that one does not have is
            absent key by key.
    Example:
        >>> from unbroken.config import differences
        >>> [(each.key, each.values) for each in differences([{"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0}])]
        [('lr', (0.1, 0.2))]
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
    """Tell whether two plain values mean the same: (1,) and [1], 1 and 1.0, nan and nan do, 1 and True do not.

    Args:
        old: A value, list or dict.
        new: The value that it is compared with.
    Returns:
        True also for equal dicts in another order.
    """
    match old, new:
        case Mapping(), Mapping():
            return old.keys() == new.keys() and all(same(old[name], new[name]) for name in old)
        case ((list() | tuple()), (list() | tuple())):
            return len(old) == len(new) and all(map(same, old, new))
        case _:
            both_nan = old != old and new != new
            return isinstance(old, bool) == isinstance(new, bool) and bool(old == new or both_nan)


def value_at(tree: Any, key: str, default: Any = ABSENT) -> Any:
    """Return the value of a dotted key.

    Args:
        tree: Dicts and lists in each other.
        key: Digits are positions in a list: "pipeline.0.type".
        default: What is returned where there is none.
    Example:
        >>> from unbroken.config import value_at
        >>> value_at({"pipeline": [{"type": "Resize"}]}, "pipeline.0.type")
        'Resize'
    """
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
    """Yield every dotted key of a canonical config, sections and positions in lists of sections among them.

    Args:
        tree: The config, or a part of it.
        under: Key of that part, before which it is put.
    """
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
