"""What a run's events add up to: how far, how good, how long, and which programs ran; no garbled event is an error.

A program is digests of its files, versions of its packages, its commit; never any content. It is recorded with its
session, and only once while it stays the same: a session of the same program names the session that recorded it. A
record that is missing or no program counts for nothing: of it nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from textwrap import shorten
from typing import Any

from unbroken.clock import local_moment
from unbroken.fields import BadField, count_of, number_of, numbers_of, typed
from unbroken.journal import NO_SESSION, Event
from unbroken.journal.events import (
    Evaluated,
    Failed,
    FileSaved,
    FilesLoaded,
    Removed,
    SessionBegan,
    Stopped,
    Timing,
    TrainingFinished,
)
from unbroken.quantities import counted


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
    saved: dict[str, int | None] = field(default_factory=dict)  # checkpoints that were not removed, with their steps
    finished: TrainingFinished | None = None  # where nothing was trained since
    last_event: str = ""
    first_time: str = ""
    last_time: str = ""
    times: dict[str, tuple[str, str]] = field(default_factory=dict)  # session -> first and last sign

    @property
    def best(self) -> Score | None:
        """The best of what the run goes on from."""
        return self.scores[-1] if self.scores else None

    @property
    def finished_at(self) -> int | None:
        """The step after which it was completed."""
        return self.finished.step if self.finished is not None else None

    @property
    def archiving(self) -> bool:
        """Whether the last thing that was begun here is the move of the journal itself into the archive.

        Where the line that says what was begun after it is damaged, those that follow still say that something was.
        """
        return self.last_event == "archiving"

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
        if event.session != NO_SESSION:  # what a person did between sessions is no sign of one
            history.last_event = event.name
            if event.time is not None:
                history.first_time, history.last_time = history.first_time or event.time, event.time
                if event.session in history.times or isinstance(event, SessionBegan):
                    history.times[event.session] = history.times.get(event.session, (event.time,))[0], event.time
        match event:
            case SessionBegan():
                _go_on(history, event)
            case Evaluated(step=int(step)):
                metrics = numbers_of(event.metrics)
                history.evaluations.append((step, metrics))
                only = next(iter(metrics)) if len(metrics) == 1 else None
                name = event.metric if "metric" in event else only
                if event.best and name is not None and name in metrics:
                    history.scores.append(Score(metric=name, value=metrics[name], step=step))
            case FileSaved(kind="checkpoint"):
                history.finished = None
                history.saved[event.file] = event.step
            case Removed(file=str(file)):
                history.saved.pop(file, None)
            case TrainingFinished():
                history.finished, history.total = event, event.step
            case Timing():
                history.total = event.total or history.total
    return history


def _go_on(history: History, event: SessionBegan) -> None:
    """A session takes the run up again: to go further, or from an earlier step."""
    history.finished = None
    history.total = event.total or history.total
    plan = event.plan or {}
    after = count_of(plan.get("step")) if plan.get("verdict") in ("Resume", "Finished") else 0
    if after is not None:
        history.scores = [score for score in history.scores if score.step <= after]
        history.evaluations = [item for item in history.evaluations if item[0] <= after]
    if "best" in event:  # what the file says that it goes on from: its own history may lie in another folder
        best = score_of(event.best)
        history.scores = [best] if best is not None else []


def how_it_ended(events: Sequence[Event]) -> str:
    """How a session ended, by the last of its own events that says so."""
    match next((event for event in reversed(events) if isinstance(event, TrainingFinished | Stopped | Failed)), None):
        case TrainingFinished():
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


# -- programs ----------------------------------------------------------------------------------------------------------


MOST_NAMED = 6  # differences of a kind, in a line
SHOWN_DIGITS = 7  # of a commit


@dataclass(frozen=True, kw_only=True)
class Program:
    """What ran. Files are named from the script's folder on, each with the first digits of its SHA-256.

    A file that could not be read has "" there: it was loaded, and is compared with nothing. `dirty` says whether files
    that git follows differ from the commit; None where git did not say.
    """

    main: str = ""  # one of `files`; "" where no file was run
    files: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    dirty: bool | None = None

    def as_plain(self) -> dict[str, Any]:
        """JSON-able data."""
        return asdict(self)

    def holds(self, other: Program) -> bool:
        """Whether another one is this one, as far as it is loaded."""
        return replace(other, files=self.files) == self and other.files.items() <= self.files.items()

    def compared(self) -> dict[str, str]:
        """All that tells two programs apart, by name."""
        commit = {"git commit": f"{self.commit}{' and changes' if self.dirty else ''}"} if self.commit else {}
        return {**{name: digest for name, digest in self.files.items() if digest}, **self.versions, **commit}

    def words(self) -> str:
        """`train.py and 3 more files, git commit 1a2b3c4 and changes, python 3.12.3, torch 2.12.0`."""
        first = self.main or next(iter(self.files), "")
        more = len(self.files) - 1
        files = [f"{first} and {counted(more, 'more file')}" if more > 0 else first] if first else []
        commit = [f"git commit {self.commit[:SHOWN_DIGITS]}{' and changes' if self.dirty else ''}"]
        versions = [f"{name} {self.versions[name]}" for name in ("python", "torch", "numpy") if name in self.versions]
        return ", ".join([*files, *(commit if self.commit else []), *versions])


@dataclass(frozen=True, kw_only=True)
class SessionProgram:
    """The program of the session that begins, asked for anew when more of it may be loaded; those of earlier ones."""

    look: Callable[[], Program] = Program
    earlier: Mapping[str, Program] = field(default_factory=dict)

    def recorded(self, now: Program) -> dict[str, Any]:
        """What the journal's line of a session says of its program."""
        known = reversed([*self.earlier.items()])
        same = next((name for name, program in known if program.holds(now)), None)
        return now.as_plain() if same is None else {"as_in": same}


def programs_of(events: Sequence[Event]) -> dict[str, Program]:
    """The programs of the sessions that recorded one, in their order, with what was loaded of them later."""
    found: dict[str, Program] = {}
    for event in events:
        match event:
            case SessionBegan(session=name, program=told) if told is not None:
                same = found.get(str(told.get("as_in")))
                with suppress(BadField):
                    found[name] = same if same is not None else typed(Program, told)
            case FilesLoaded(session=name, files=files) if name in found:
                found[name] = replace(found[name], files={**found[name].files, **(files or {})})
    return found


def program_changes(before: Program, now: Program) -> list[str]:
    """What differs, in words: files, then packages that both have loaded, then the commit."""
    both = [name for name, digest in now.files.items() if digest and before.files.get(name)]
    files = [name for name in both if before.files[name] != now.files[name]]
    if before.files and now.files:
        files += [f"{name} (new)" for name in now.files if name not in before.files]
    versions = [
        f"{name} {before.versions[name]} -> {version}"
        for name, version in now.versions.items()
        if before.versions.get(name, version) != version
    ]
    commits = (before.commit[:SHOWN_DIGITS], now.commit[:SHOWN_DIGITS])
    commit = ["git commit {} -> {}".format(*commits)] if all(commits) and before.commit != now.commit else []
    return [words for found in (files, versions, commit) for words in _first(found)]


def _first(found: Sequence[str]) -> list[str]:
    more = len(found) - MOST_NAMED
    return [*found[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])]
