"""What changing a key does to a run that already has weights, and the map from every key to its effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from unbroken.errors import ConfigError


class Effect(StrEnum):
    """What changing a key does to a run that already has weights, the most severe first."""

    SHAPE = "shape"  # they no longer fit: a resume is refused
    MEANING = "meaning"  # they fit, and stand for something else (classes, coordinates): refused
    DATA = "data"  # they continue, on other samples: said, exactness begins anew
    SCHEDULE = "schedule"  # they continue, at another pace: the rate before and after is shown
    FREE = "free"  # nothing
    IGNORED = "ignored"  # nothing reads the key; it is no part of a canonical config

    @property
    def severity(self) -> int:
        """Its place in that order, 0 for the most severe."""
        return _ORDER[self]


@dataclass(frozen=True)
class Instead:
    """Written at an ignored field (`Annotated[str, Effect.IGNORED, Instead("seed")]`).

    Args:
        what: Keys that say what the field would have said, or why nothing has to.
    """

    what: str


_ORDER = {effect: place for place, effect in enumerate(Effect)}


def most_severe(effects: Iterable[Effect]) -> Effect | None:
    """Pick the effect that decides when several apply; None when there is none."""
    return min(effects, key=lambda effect: effect.severity, default=None)


@dataclass(frozen=True, kw_only=True)
class Since:
    """Written at a field that was added later: what a config recorded without it meant.

    Args:
        before: Its value in such a config.
    """

    before: Any


@dataclass(frozen=True, kw_only=True)
class Effects:
    """The effect of every key of a schema, as a tree of plain data.

    Args:
        own: The effect of this key, and of those below that say nothing themselves; None: it says nothing.
        since: What earlier records meant, which do not have the key; None: nothing is known of that.
        fields: The keys below, by name.
        items: Stands for any position of a list and any name of a free mapping; None: there are none.
    """

    own: Effect | None = None
    since: Since | None = None
    fields: Mapping[str, Effects] = field(default_factory=dict)
    items: Effects | None = None

    def of(self, key: str) -> Effect:
        """Return the effect of a key; a whole section has the most severe effect found in it.

        Args:
            key: Dotted; "" for the whole.
        Raises:
            ConfigError: The schema has no such key.
        """
        found = self.find(key)
        if found is None:
            raise ConfigError(key, "no key of this schema has this name")
        return found

    def find(self, key: str) -> Effect | None:
        """Return the same, or None for a key that the schema does not know (of a config of an older version).

        Args:
            key: Dotted; "" for the whole.
        """
        inherited, node = self.own, self
        for part in key.split(".") if key else []:
            below = node.fields.get(part, node.items)
            if below is None:
                return inherited
            node = below
            inherited = _inherit(inherited, node.own)
        return inherited or node.worst_below()

    def since_of(self, key: str) -> Since | None:
        """Return what a record without this key meant; None where the schema does not say.

        Args:
            key: Dotted.
        """
        node = self
        for part in key.split("."):
            below = node.fields.get(part, node.items)
            if below is None:
                return None
            node = below
        return node.since

    def as_plain(self) -> dict[str, Any]:
        """Return the tree as JSON-able data; what says nothing is left out."""
        plain: dict[str, Any] = {"own": self.own.value} if self.own else {}
        plain |= {"since": self.since.before} if self.since else {}
        plain |= {"fields": {name: below.as_plain() for name, below in self.fields.items()}} if self.fields else {}
        return plain | ({"items": self.items.as_plain()} if self.items else {})

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Effects:
        """Return the tree of such data.

        Args:
            plain: What `as_plain` gave.
        """
        return cls(
            own=Effect(plain["own"]) if "own" in plain else None,
            since=Since(before=plain["since"]) if "since" in plain else None,
            fields={name: cls.of_plain(below) for name, below in plain.get("fields", {}).items()},
            items=cls.of_plain(plain["items"]) if "items" in plain else None,
        )

    def worst_below(self) -> Effect | None:
        """Return the most severe effect of any key in this part of the schema."""
        return most_severe(effect for effect in self._all() if effect is not Effect.IGNORED)

    def _all(self) -> Iterator[Effect]:
        if self.own:
            yield self.own
        for below in (*self.fields.values(), *([self.items] if self.items else [])):
            yield from below._all()


def _inherit(above: Effect | None, own: Effect | None) -> Effect | None:
    """What is ignored above is ignored below; otherwise the nearest effect counts."""
    return above if above is Effect.IGNORED else own or above


def combine(nodes: Iterable[Effects]) -> Effects:
    """Overlay the alternatives of a union: where several know a key, the most severe effect counts."""
    nodes = tuple(nodes)
    names = dict.fromkeys(name for node in nodes for name in node.fields)
    items = [node.items for node in nodes if node.items is not None]
    return Effects(
        own=most_severe(node.own for node in nodes if node.own),
        since=next((node.since for node in nodes if node.since), None),
        fields={name: combine(node.fields[name] for node in nodes if name in node.fields) for name in names},
        items=combine(items) if items else None,
    )
