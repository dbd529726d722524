"""A run in short, from its records and the sizes of its files: what `ls` shows, sorts and filters by.

No checkpoint is read where its manifest is there and says the right size. Only a file without one (of another program,
copied here, or left by a kill between a file and its manifest) is opened, to see which step it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unbroken.clock import utc_text
from unbroken.fields import count_of
from unbroken.journal.file import read_lines_backwards
from unbroken.run.candidates import Candidate
from unbroken.run.history import Score
from unbroken.run.locate import find_runs
from unbroken.run.view import METRICS, RunView, view_of

LOST, NEVER_STARTED, NOT_REACHABLE = "lost", "never started", "not reachable"

__all__ = ["Score", "Summary", "find_runs", "summary_of"]


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


def summary_of(run: Path | RunView) -> Summary:
    """Look at one run; whatever is garbled or missing in its records is left out, never an error."""
    view = view_of(run)
    history, furthest = view.history, view.furthest
    if furthest is not None and furthest.kind == "foreign checkpoint" and not history.last_event:
        return _foreign(view, furthest)
    sign_s = _changed_s(view.own / METRICS) if view.held else None
    name = view.name
    tag = view.stated_text("tag") or name
    last_step, last = history.evaluations[-1] if history.evaluations else (None, {})
    parent = view.stated.get("parent")
    status = _status(view)
    trouble = view.unreachable if status in (LOST, NEVER_STARTED) else ""
    here = max(furthest.step, 0) if furthest is not None else 0
    saved = max((step or 0 for step in history.saved.values()), default=0) if trouble else here
    return Summary(
        directory=view.directory,
        label=tag if tag == name else name,
        id=view.stated_text("id"),
        tag=tag,
        recipe=view.stated_text("recipe"),
        status=NOT_REACHABLE if trouble else status,
        step=max(here, _last_step(view.own)) if view.held else saved,
        total=history.total,
        best=history.best,
        last=last,
        last_step=last_step,
        began=history.first_time or view.stated_text("created"),
        last_seen=_later(history.last_time, sign_s),
        sessions=len(history.times),
        trained_s=history.trained_s(until=sign_s),
        size_bytes=view.size_bytes,
        parent=parent if isinstance(parent, Mapping) else None,
        trouble=trouble,
    )


def _foreign(view: RunView, furthest: Candidate) -> Summary:
    from unbroken.run.foreign import left_behind

    known, name = left_behind(view.directory, furthest), view.name
    return Summary(
        directory=view.directory,
        label=name,
        id="",
        tag=name,
        recipe="",
        status=f"left by {furthest.format_name.partition(' ')[0]}",
        step=max(furthest.step, 0),
        total=None,
        best=known.best,
        last=known.last,
        last_step=known.last_step,
        began="",
        last_seen=known.last_seen,
        sessions=0,
        trained_s=None,
        size_bytes=view.size_bytes,
        parent=None,
    )


def _status(view: RunView) -> str:
    history = view.history
    if view.held:
        return "running"
    if view.is_lost:
        return LOST  # no checkpoint that could be continued from is here
    if history.finished is not None:
        return "finished"
    if history.last_event == "stopped":
        return "stopped"
    if not history.last_event:
        return NEVER_STARTED
    return "stopped" if view.holder is not None and view.holder.released else "killed"


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
