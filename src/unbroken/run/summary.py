"""A run in short, from its records and the sizes of its files: what `ls` shows, sorts and filters by.

No checkpoint is read where its manifest is there and says the right size. Only a file without one (of another program,
copied here, or left by a kill between a file and its manifest) is opened, to see which step it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unbroken.clock import utc_text
from unbroken.fields import count_of
from unbroken.ids import is_name
from unbroken.journal import read_events, read_events_backwards
from unbroken.journal.file import read_lines_backwards
from unbroken.run.finding import find_runs
from unbroken.run.folder import Files, entries, files_of, json_of
from unbroken.run.furthest import Furthest, furthest_checkpoint
from unbroken.run.history import History, Score, history_of
from unbroken.run.layout import OWN_FOLDER
from unbroken.run.links import unreachable
from unbroken.run.record import layout_seen
from unbroken.storage.lock import is_held, read_holder

LOST, NEVER_STARTED, NOT_REACHABLE = "lost", "never started", "not reachable"

__all__ = ["Score", "Summary", "config_of", "find_runs", "summary_of"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A run in short."""

    directory: Path
    label: str  # the tag, or the folder's name where that is another: the folder was copied or renamed
    id: str
    tag: str
    recipe: str
    status: str  # running, finished, stopped, killed, lost, not reachable, never started; left by MMEngine or OpenPCDet
    step: int
    total: int | None
    best: Score | None
    last: Mapping[str, float]  # the newest evaluation
    last_step: int | None
    began: str  # ISO times; "" where unknown
    last_seen: str
    sessions: int
    trained_s: float | None  # from the begin to the last sign of each session, summed
    size_bytes: int
    parent: Mapping[str, Any] | None
    trouble: str = ""  # why it is not reachable


def summary_of(directory: Path) -> Summary:
    """Look at one run; whatever is garbled or missing in its records is left out, never an error."""
    return summary_and_files(directory)[0]


def summary_and_files(directory: Path) -> tuple[Summary, Files]:
    """The same, and what lies in the folder."""
    own = directory / OWN_FOLDER
    found = json_of(own / "run.json")
    record = found if isinstance(found, Mapping) else {}
    files = files_of(str(directory), record)
    history = _history(own)
    furthest = furthest_checkpoint(directory, files, run=_text(record, "id"), saved=history.saved)
    if furthest.program and furthest.path and not history.last_event:
        return _foreign(directory, furthest, furthest.path, files.size_bytes), files
    held = is_held(own)
    sign_s = _changed_s(own / "metrics.jsonl") if held else None
    name = _name(directory)
    tag = _text(record, "tag") or name
    last_step, last = history.evaluations[-1] if history.evaluations else (None, {})
    parent = record.get("parent")
    status = _status(own, history, furthest, held=held)
    trouble = unreachable(directory, layout_seen(directory)[0]) if status in (LOST, NEVER_STARTED) else ""
    saved = max(history.saved.values(), default=0) if trouble else furthest.step
    summary = Summary(
        directory=directory,
        label=tag if tag == name else name,
        id=_text(record, "id"),
        tag=tag,
        recipe=_text(record, "recipe"),
        status=NOT_REACHABLE if trouble else status,
        step=max(furthest.step, _last_step(own)) if held else saved,
        total=history.total,
        best=history.best,
        last=last,
        last_step=last_step,
        began=history.first_time or _text(record, "created"),
        last_seen=_later(history.last_time, sign_s),
        sessions=len(history.times),
        trained_s=history.trained_s(until=sign_s),
        size_bytes=files.size_bytes,
        parent=parent if isinstance(parent, Mapping) else None,
        trouble=trouble,
    )
    return summary, files


def config_of(directory: Path) -> Mapping[str, Any]:
    """The config of the last session, or what another program kept of its config; empty where there is none."""
    kept = directory / OWN_FOLDER / "configs"
    for name in _sessions_newest_first(directory):
        if isinstance(found := json_of(kept / f"{name}.json"), Mapping):
            return found
    from unbroken.run.foreign import foreign_config

    return foreign_config(directory)


def _foreign(directory: Path, furthest: Furthest, checkpoint: Path, size_bytes: int) -> Summary:
    from unbroken.run.foreign import left_behind

    known, name = left_behind(directory, checkpoint), _name(directory)
    return Summary(
        directory=directory,
        label=name,
        id="",
        tag=name,
        recipe="",
        status=f"left by {furthest.program}",
        step=furthest.step,
        total=None,
        best=known.best,
        last=known.last,
        last_step=known.last_step,
        began="",
        last_seen=known.last_seen,
        sessions=0,
        trained_s=None,
        size_bytes=size_bytes,
        parent=None,
    )


def _status(own: Path, history: History, furthest: Furthest, *, held: bool) -> str:
    if held:
        return "running"
    if furthest.lost:
        return LOST  # no checkpoint that could be continued from is here
    if history.finished_at is not None:
        return "finished"
    if history.last_event == "stopped":
        return "stopped"
    if not history.last_event:
        return NEVER_STARTED
    holder = read_holder(own)
    return "stopped" if holder is not None and holder.released else "killed"


def _history(own: Path) -> History:
    with suppress(OSError):
        return history_of(read_events(own / "journal.jsonl"))
    return History()


def _sessions_newest_first(directory: Path) -> Iterator[str]:
    own = directory / OWN_FOLDER
    with suppress(OSError):
        for event in read_events_backwards(own / "journal.jsonl"):
            if event.get("event") == "session" and is_name(event.get("session")):
                yield event["session"]
    names = sorted((entry.name for entry in entries(str(own / "configs"))), reverse=True)
    yield from (name.removesuffix(".json") for name in names if name.endswith(".json"))


def _last_step(own: Path) -> int:
    with suppress(OSError):
        steps = (count_of(record.get("step")) for record in read_lines_backwards(own / "metrics.jsonl"))
        return next((step for step in steps if step is not None), 0)
    return 0


def _later(time: str, sign_s: float | None) -> str:
    """The later of an ISO time and a sign of life."""
    if sign_s is None:
        return time
    sign = datetime.fromtimestamp(sign_s, tz=UTC)
    with suppress(ValueError, TypeError):
        known = datetime.fromisoformat(time)
        return time if known >= sign else utc_text(sign, timespec="milliseconds")
    return utc_text(sign, timespec="milliseconds")


def _changed_s(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _name(directory: Path) -> str:
    return directory.name or directory.absolute().name


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""
