"""A config that fits its schema, as plain data; the typed sections are made when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from unbroken.config.effect import Effects

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Validated(Generic[S]):
    """A config that fits its schema.

    Args:
        typed: Makes the section that all others hang from.
        canonical: JSON-able, with every default filled in and no ignored key.
        ignored: The ignored keys that the user gave, each with what to set instead ("" where there is nothing).
        effects: Those of the schema.
    """

    typed: Callable[[], S] = field(compare=False, repr=False)
    canonical: dict[str, Any]
    ignored: Mapping[str, str] = field(default_factory=dict)
    effects: Effects = field(default_factory=Effects)

    @cached_property
    def value(self) -> S:
        """The section that all others hang from, typed."""
        return self.typed()

    @property
    def ignored_in_words(self) -> tuple[str, ...]:
        """Each ignored key with what to set instead, where there is such a thing."""
        return tuple(f"{key} (set {instead})" if instead else key for key, instead in self.ignored.items())
