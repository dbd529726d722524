"""One run at a glance, from its records alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unbroken.checkpoint.structure import read_structure
from unbroken.cli.tables import size_text
from unbroken.journal import read_steps
from unbroken.report.sessions import how_it_ended
from unbroken.run import Candidate, Survey, layout_of, survey
from unbroken.run.layout import looks_like_a_run, own
from unbroken.storage import PARTIAL_SUFFIX

DEPTH = 6


@dataclass(frozen=True, kw_only=True)
class SessionStory:
    """One session: how it began, which steps it did, how it ended."""

    name: str
    verdict: str
    first: int
    last: int
    ended: str


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What `ls` and `show` say about a run."""

    directory: Path
    id: str
    tag: str
    recipe: str
    status: str  # running, finished, stopped, killed, lost, never started; left by another program
    step: int
    total: int | None
    best: str
    last_seen: str
    size_bytes: int
    parent: Mapping[str, Any] | None
    config: Path | None  # of the last session, as data
    command: str  # that goes on with the run
    sessions: tuple[SessionStory, ...]
    candidates: tuple[Candidate, ...]
    accepted: tuple[str, ...]  # changes of meaning that the user wanted, and after which step
    evaluations: tuple[tuple[int, Mapping[str, float]], ...]

    def row(self) -> tuple[str, ...]:
        """A line of `ls`."""
        step = f"{self.step}/{self.total}" if self.total else str(self.step)
        seen = self.last_seen[:19].replace("T", " ")
        size = size_text(self.size_bytes)
        return (self.tag, self.status, step, self.best, seen, str(len(self.sessions)), size, str(self.directory))

    def as_data(self, *, full: bool = False) -> dict[str, Any]:
        """The same as data."""
        data: dict[str, Any] = {
            "tag": self.tag,
            "recipe": self.recipe,
            "status": self.status,
            "step": self.step,
            "total": self.total,
            "best": self.best,
            "last_seen": self.last_seen,
            "sessions": len(self.sessions),
            "size_bytes": self.size_bytes,
            "folder": str(self.directory),
            "id": self.id,
            "parent": dict(self.parent) if self.parent else None,
        }
        if full:
            data["accepted"] = list(self.accepted)
            data["config"] = str(self.config) if self.config else None
            data["command"] = self.command
            data["sessions"] = [vars(session) for session in self.sessions]
            data["files"] = [
                {"file": c.name, "step": c.step, "kind": c.kind, "state": c.state, "reason": c.reason}
                for c in self.candidates
            ]
            data["evaluations"] = [{"step": step, **values} for step, values in self.evaluations]
        return data


def find_runs(root: Path) -> Iterator[Path]:
    """Folders below `root` that hold a run, ours or one that another program left; archived histories are left out."""
    for folder, names, _ in os.walk(root):
        here = Path(folder)
        if (own(here) / "run.json").is_file() or looks_like_a_run(here):
            yield here
            names[:] = []
        elif len(here.relative_to(root).parts) >= DEPTH:
            names[:] = []
        names[:] = sorted(name for name in names if name != "archive" and not name.endswith(PARTIAL_SUFFIX))


def overview_of(directory: Path) -> Overview:
    """Gather everything `ls` and `show` say about one run."""
    facts = survey(directory, layout_of(directory))
    records = list(read_steps(own(directory) / "metrics.jsonl"))
    sessions = tuple(_sessions(facts, records))
    evaluations = {r["step"]: r["evaluation"] for r in records if "evaluation" in r}
    newest = facts.newest_good
    steps = [int(r["step"]) for r in records[-1:]]
    return Overview(
        directory=directory,
        id=facts.record.id if facts.record else "",
        tag=facts.record.tag if facts.record else directory.name,
        recipe=facts.record.recipe if facts.record else "",
        status=_status(facts, newest),
        step=max([*steps, newest.step if newest else 0]) if facts.held else (newest.step if newest else 0),
        total=_total(newest),
        best=_best(newest),
        last_seen=str(facts.events[-1].get("time", "")) if facts.events else _written(newest),
        size_bytes=sum(
            path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink()
        ),
        parent=facts.record.parent if facts.record else None,
        config=max((own(directory) / "configs").glob("*.json"), default=None),
        command=next((str(e.get("command", "")) for e in reversed(facts.events) if e.get("event") == "session"), ""),
        sessions=sessions,
        candidates=facts.candidates,
        accepted=_accepted(newest),
        evaluations=tuple(sorted(evaluations.items())),
    )


def _status(facts: Survey, newest: Candidate | None) -> str:
    if facts.held:
        return "running"
    last = str(facts.events[-1].get("event")) if facts.events else ""
    if facts.has_history and facts.newest_good is None:
        return "lost"  # no checkpoint that could be continued from is here
    if facts.finished_at is not None:
        return "finished"
    if last == "stopped":
        return "stopped"
    if not facts.events and newest is not None and newest.kind == "foreign checkpoint":
        return f"left by {newest.format_name.partition(' ')[0]}"
    if not facts.events:
        return "never started"
    released = facts.holder is not None and facts.holder.released
    return "stopped" if released else "killed"


def _sessions(facts: Survey, records: Sequence[Mapping[str, Any]]) -> Iterator[SessionStory]:
    steps: dict[str, list[int]] = {}
    for record in records:
        if "evaluation" not in record:
            steps.setdefault(str(record.get("session")), []).append(int(record["step"]))
    names = list(facts.sessions)
    for name in names:
        events = [event for event in facts.events if event.get("session") == name]
        began = next((event["plan"]["verdict"].lower() for event in events if event.get("event") == "session"), "?")
        done = steps.get(name, [])
        running = facts.held and name == names[-1]
        yield SessionStory(
            name=name,
            verdict=began,
            first=min(done, default=0),
            last=max(done, default=0),
            ended="running" if running else how_it_ended(events),
        )


def _total(newest: Candidate | None) -> int | None:
    total = newest.inside.get("total") if newest else None
    return total if isinstance(total, int) else None


def _accepted(newest: Candidate | None) -> tuple[str, ...]:
    listed = newest.inside.get("accepted") if newest else None
    return tuple(f"{item['words']}, after step {item['step']}" for item in listed or ())


def _written(newest: Candidate | None) -> str:
    """When a file of another program was written: all there is to say when it was seen last."""
    if newest is None:
        return ""
    return datetime.fromtimestamp(newest.path.stat().st_mtime, tz=UTC).isoformat(timespec="seconds")


def _best(newest: Candidate | None) -> str:
    if newest is not None and newest.kind == "foreign checkpoint":
        score = read_structure(newest.path).metrics.get("best_score")  # of MMEngine; OpenPCDet remembers none
        return "" if score is None else f"{score:.4g}"
    best = newest.inside.get("best") if newest else None
    if not isinstance(best, Mapping):
        return ""
    return f"{best['metric']} {best['value']:.4g} @ {best['step']}"
