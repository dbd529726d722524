"""What TensorBoard's HParams tab shows of a run: the settings of its newest session, one row for the whole run.

TensorBoard's readers keep the first settings that they meet in a folder. So they lie in a file that is read before all
others and is replaced by each session: after a resume under another config the row shows what counts now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unbroken.config import Effect, Effects
from unbroken.config.difference import leaves
from unbroken.text import printable, shortened
from unbroken.train.record import event_records

FILE = "events.out.tfevents.0000000000.settings"  # its name sorts before those of all sessions
MOST_SETTINGS = 60  # columns; more make the page slow
MOST_CHARACTERS = 100  # of a text, with the names
Setting = bool | float | str
# What is changed between experiments comes first, what hardly ever is last.
USEFUL_FIRST = (Effect.SCHEDULE, Effect.DATA, Effect.MEANING, Effect.SHAPE, Effect.FREE, Effect.IGNORED)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The row of one run: `group` is its name there, `begun_s` when the run began, in seconds since 1970."""

    group: str
    begun_s: float
    values: Mapping[str, Setting] = field(default_factory=dict)

    def as_file(self, *, ended_s: float | None) -> bytes:
        """The content of the file; `ended_s` is when the run was finished, None while it is not."""
        return event_records.settings(self.values, group=self.group, begun_s=self.begun_s, ended_s=ended_s)


def settings_of(
    config: Mapping[str, Any], effects: Effects, *, chosen: Mapping[str, str] | None = None
) -> dict[str, Setting]:
    """The single values of a config by dotted key, lists of them as text; the `chosen` keys first, at most sixty."""
    found = [(key, _setting(value)) for key, value in leaves(config, splits=_holds_sections) if key]
    found.sort(key=lambda item: (item[0] not in (chosen or {}), *_usefulness(item[0], effects)))
    return {setting_text(key): value for key, value in found[:MOST_SETTINGS]}


def _holds_sections(values: Sequence[Any]) -> bool:
    return any(isinstance(item, Mapping) for item in values)


def _setting(value: Any) -> Setting:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and _is_a_number(value):
        return float(value)
    return setting_text(str(list(value) if isinstance(value, tuple) else value))


def setting_text(text: str) -> str:
    """A text of bounded length, without control characters."""
    return printable(shortened(text, MOST_CHARACTERS))


def _is_a_number(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _usefulness(key: str, effects: Effects) -> tuple[bool, int, bool, str]:
    """Which of two keys comes first: kinds (`type`) and what stands in lists of sections are rarely what differs."""
    effect, parts = effects.find(key), key.split(".")
    place = USEFUL_FIRST.index(effect) if effect is not None else len(USEFUL_FIRST)
    return parts[-1].lower() in ("type", "name"), place, any(part.isdigit() for part in parts), key
