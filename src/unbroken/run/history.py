"""What a run's events add up to: how far, how good, how long; a pure function that no garbled event can stop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

from unbroken.clock import local_moment
from unbroken.fields import count_of, number_of, numbers_of
from unbroken.journal import NO_SESSION, Event
from unbroken.journal.events import Failed, Finished, Stopped


@dataclass(frozen=True, kw_only=True)
class Score:
    """How good the weights after a step were found to be."""

    metric: str
    value: float
    step: int


@dataclass
class History:
    """The sum of the events; what a later session did not continue from (steps beyond where it began) is left out."""

    total: int | None = None
    scores: list[Score] = field(default_factory=list)  # each the best of its time
    evaluations: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    saved: dict[str, int] = field(default_factory=dict)  # checkpoints that were not removed, with their steps
    finished_at: int | None = None
    last_event: str = ""
    first_time: str = ""
    last_time: str = ""
    times: dict[str, tuple[str, str]] = field(default_factory=dict)  # session -> first and last sign

    @property
    def best(self) -> Score | None:
        """The best of what the run goes on from."""
        return self.scores[-1] if self.scores else None

    def trained_s(self, *, until: float | None = None) -> float | None:
        """Seconds from the begin to the last sign of each session, summed; `until` is a later sign of the last one."""
        spans = [(seconds_of(first), seconds_of(last)) for first, last in self.times.values()]
        known = [(first, last) for first, last in spans if first is not None and last is not None]
        if not known:
            return None
        if until is not None and spans[-1][0] is not None:
            known[-1] = known[-1][0], max(known[-1][1], until)
        return sum(max(last - first, 0.0) for first, last in known)


def history_of(events: Iterable[Event]) -> History:
    """Add the events up, oldest first."""
    history = History()
    for event in events:
        kind = event.get("event")
        if not isinstance(kind, str):
            continue
        if event.get("session") != NO_SESSION:  # what a person did between sessions is no sign of one
            history.last_event = kind
            _note_time(history, event)
        if kind in READERS:
            READERS[kind](history, event)
    return history


def how_it_ended(events: Sequence[Event]) -> str:
    """How a session ended, by the last of its own events that says so."""
    match next((event for event in reversed(events) if isinstance(event, Finished | Stopped | Failed)), None):
        case Finished():
            return "finished"
        case Stopped(reason=reason):
            return f"stopped by {reason}"
        case Failed(error=error) if str(error).startswith("KeyboardInterrupt"):  # Ctrl-C twice
            return "interrupted"
        case Failed(error=error):
            return shorten(f"failed: {error}", 80, placeholder=" ...")
    return "killed"


def score_of(best: Any) -> Score | None:
    """A recorded score, or None for what is none."""
    best = best if isinstance(best, Mapping) else {}
    value, step = number_of(best.get("value")), count_of(best.get("step"))
    return None if value is None or step is None else Score(metric=str(best.get("metric")), value=value, step=step)


def seconds_of(time: str) -> float | None:
    """An ISO time as seconds since 1970; None where it is none."""
    moment = local_moment(time)
    return moment.timestamp() if moment is not None else None


def _note_time(history: History, event: Event) -> None:
    time, session = event.get("time"), event.get("session")
    if not isinstance(time, str):
        return
    history.first_time, history.last_time = history.first_time or time, time
    if not isinstance(session, str):
        return
    if session in history.times:
        history.times[session] = history.times[session][0], time
    elif event.get("event") == "session":
        history.times[session] = time, time


def _session(history: History, event: Event) -> None:
    history.finished_at = None  # it was taken up again: to go further, or from an earlier step
    history.total = count_of(event.get("total")) or history.total
    plan = event.get("plan")
    plan = plan if isinstance(plan, Mapping) else {}
    after = count_of(plan.get("step")) if plan.get("verdict") in ("Resume", "Finished") else 0
    if after is not None:
        history.scores = [score for score in history.scores if score.step <= after]
        history.evaluations = [item for item in history.evaluations if item[0] <= after]
    if "best" in event:  # what the file says that it goes on from: its own history may lie in another folder
        best = score_of(event["best"])
        history.scores = [best] if best is not None else []


def _evaluated(history: History, event: Event) -> None:
    step, metrics = count_of(event.get("step")), numbers_of(event.get("metrics"))
    if step is None:
        return
    history.evaluations.append((step, metrics))
    name = event.get("metric", next(iter(metrics)) if len(metrics) == 1 else None)
    if event.get("best") is True and isinstance(name, str) and name in metrics:
        history.scores.append(Score(metric=name, value=metrics[name], step=step))


def _saved(history: History, event: Event) -> None:
    step = count_of(event.get("step"))
    if event.get("kind") == "checkpoint" and step is not None:
        history.finished_at = None
        history.saved[str(event.get("file"))] = step


def _removed(history: History, event: Event) -> None:
    history.saved.pop(str(event.get("file")), None)


def _finished(history: History, event: Event) -> None:
    history.finished_at = count_of(event.get("step"))
    history.total = history.finished_at if history.finished_at is not None else history.total


def _timing(history: History, event: Event) -> None:
    history.total = count_of(event.get("total")) or history.total


READERS = {
    "session": _session,
    "evaluated": _evaluated,
    "saved": _saved,
    "removed": _removed,
    "finished": _finished,
    "timing": _timing,
}
