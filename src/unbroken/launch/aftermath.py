"""What a session left behind, from the journal alone: pure, for whoever starts the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unbroken.launch.job import Start


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """The last session of a run: its name ("" if there was none), whether it saved, the furthest step ever saved."""

    session: str
    saved: bool
    saved_step: int


def aftermath(events: Sequence[Mapping[str, Any]]) -> Aftermath:
    """What the last session that is in the journal left."""
    begun = [number for number, event in enumerate(events) if event.get("event") == "session"]
    saves = [number for number, event in enumerate(events) if _is_save(event)]
    return Aftermath(
        session=str(events[begun[-1]].get("session", "")) if begun else "",
        saved=bool(begun) and any(number > begun[-1] for number in saves),
        saved_step=max((int(events[number].get("step") or 0) for number in saves), default=0),
    )


def going_on(start: Start, left: Aftermath) -> Start:
    """From where a run goes on: starting over, or from an old file, is meant once.

    Until something was saved, an old file is still all there is.
    """
    return replace(start, fresh=False, exact=None if left.saved else start.exact)


def _is_save(event: Mapping[str, Any]) -> bool:
    return event.get("event") == "saved" and event.get("kind") == "checkpoint"
