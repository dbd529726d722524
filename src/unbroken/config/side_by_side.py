"""What differs between any number of configs, key by key, in the order of the configs: a pure comparison.

Unlike `changes`, this needs no schema: the configs may be of different programs, or of versions whose schema is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unbroken.config.difference import ABSENT, same

DEEPEST = 60  # sections in sections; what a stranger's file has below is compared as a whole


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


def differences(configs: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    """The keys that differ between the configs, sections and lists of sections taken apart; nothing for fewer than two.

    `same` decides: (1,) and [1], 1 and 1.0 mean the same, 1 and True do not. A whole section that one config does not
    have counts as absent key by key.
    """
    return tuple(_differing("", tuple(configs), DEEPEST)) if len(configs) > 1 else ()


def _differing(key: str, values: tuple[Any, ...], depth: int) -> Iterator[Difference]:
    here = [value for value in values if value is not ABSENT]
    if depth and all(isinstance(value, Mapping) for value in here) and any(here):
        for name in dict.fromkeys(name for section in here for name in section):
            inner = tuple(ABSENT if value is ABSENT else value.get(name, ABSENT) for value in values)
            yield from _differing(f"{key}.{name}" if key else str(name), inner, depth - 1)
    elif depth and len(here) == len(values) and _same_kinds(here):
        for place, inner in enumerate(zip(*values)):
            yield from _differing(f"{key}.{place}" if key else str(place), inner, depth - 1)
    elif len(here) < len(values) or not _all_same(here):
        yield Difference(key=key, values=values)


def _same_kinds(lists: Sequence[Any]) -> bool:
    """Lists of sections that still stand for the same things in the same order: pipelines, schedules."""
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
