"""One run at a glance, from its records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.fields import count_of, numbers_of
from unbroken.journal import read_steps
from unbroken.jsonlines import finite
from unbroken.run import Candidate, MissingFile, Survey, layout_seen
from unbroken.run.damage import Damage
from unbroken.run.history import how_it_ended, score_of
from unbroken.run.layout import own
from unbroken.run.program import Program, program_changes, programs_of
from unbroken.run.summary import LOST, NOT_REACHABLE, summary_of
from unbroken.run.survey import survey


@dataclass(frozen=True, kw_only=True)
class SessionStory:
    """One session: how it began, which steps it did, how it ended."""

    name: str
    verdict: str
    first: int
    last: int
    ended: str


@dataclass(frozen=True, kw_only=True)
class RecordedProgram:
    """The program of a session, and what of it is not as in the session before."""

    session: str
    program: Program
    changes: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        """The same as data."""
        return {"session": self.session, "changed": list(self.changes), **self.program.as_plain()}


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What `show` says about a run."""

    directory: Path
    id: str
    tag: str
    recipe: str
    status: str  # as in a summary
    trouble: str  # why it is not reachable
    step: int
    total: int | None
    best: str
    last_seen: str
    size_bytes: int
    parent: Mapping[str, Any] | None
    config: Path | None  # of the last session, as data
    command: str  # that goes on with the run
    programs: tuple[RecordedProgram, ...]  # of the sessions that recorded theirs
    sessions: tuple[SessionStory, ...]
    candidates: tuple[Candidate, ...]
    missing: tuple[MissingFile, ...]  # that the records know of
    accepted: tuple[str, ...]  # changes of meaning that the user wanted, and after which step
    evaluations: tuple[tuple[int, Mapping[str, float]], ...]
    damage: tuple[Damage, ...]  # records that cannot be used

    def as_data(self) -> dict[str, Any]:
        """The same as data."""
        return {
            "tag": self.tag,
            "recipe": self.recipe,
            "status": self.status,
            "trouble": self.trouble,
            "step": self.step,
            "total": self.total,
            "best": self.best,
            "last_seen": self.last_seen,
            "size_bytes": self.size_bytes,
            "folder": str(self.directory),
            "id": self.id,
            "parent": dict(self.parent) if self.parent else None,
            "accepted": list(self.accepted),
            "config": str(self.config) if self.config else None,
            "command": self.command,
            "programs": [recorded.as_data() for recorded in self.programs],
            "sessions": [vars(session) for session in self.sessions],
            "files": [
                {"file": c.name, "step": c.step, "kind": c.kind, "state": c.state, "reason": c.reason}
                for c in self.candidates
            ]
            + [
                {"file": m.name, "step": m.step, "kind": m.kind, "state": "missing", "reason": m.words}
                for m in self.missing
            ],
            "damage": [str(item) for item in self.damage],
            "evaluations": [finite({"step": step, **values}) for step, values in self.evaluations],
        }


def overview_of(directory: Path) -> Overview:
    """Gather everything `show` says about one run; unlike in a listing, the newest checkpoints are verified."""
    layout = layout_seen(directory)[0]
    facts, summary = survey(directory, layout), summary_of(directory)
    newest = facts.newest_good
    inside = newest.inside if newest is not None else {}
    records = list(read_steps(own(directory) / "metrics.jsonl"))
    best = score_of(inside.get("best")) or summary.best
    steps = [newest.step if newest else 0, *([summary.step] if facts.held else [])]
    return Overview(
        directory=directory,
        id=summary.id,
        tag=summary.tag,
        recipe=summary.recipe,
        status=_status(facts, summary.status),
        trouble=facts.unreachable,
        step=summary.step if facts.unreachable else max(steps),
        total=count_of(inside.get("total")) or summary.total,
        best=f"{best.metric} {best.value:.4g} @ {best.step}" if best is not None else "",
        last_seen=summary.last_seen,
        size_bytes=summary.size_bytes,
        parent=summary.parent,
        config=max((own(directory) / "configs").glob("*.json"), default=None),
        command=next((str(e.get("command", "")) for e in reversed(facts.events) if e.get("event") == "session"), ""),
        programs=tuple(_programs(facts)),
        sessions=tuple(_sessions(facts, records)),
        candidates=facts.candidates,
        missing=facts.missing,
        accepted=_accepted(inside),
        evaluations=_evaluations(records),
        damage=facts.damage,
    )


def _status(facts: Survey, status: str) -> str:
    if facts.held:
        return status
    if facts.unreachable:
        return NOT_REACHABLE
    return LOST if facts.has_history and facts.newest_good is None else status


def _sessions(facts: Survey, records: Sequence[Mapping[str, Any]]) -> Iterator[SessionStory]:
    steps: dict[str, list[int]] = {}
    for record in records:
        if "evaluation" not in record and (step := count_of(record.get("step"))) is not None:
            steps.setdefault(str(record.get("session")), []).append(step)
    told: dict[str, list[Mapping[str, Any]]] = {}
    for event in facts.events:
        told.setdefault(str(event.get("session")), []).append(event)
    # A launch that moved this history aside and the command that brought it back are no sessions of it.
    moved = {"archiving", "restored"}
    names = [name for name in facts.sessions if name in steps or {e.get("event") for e in told[name]} - moved]
    for name in names:
        events = told[name]
        plan = next((event.get("plan") for event in events if event.get("event") == "session"), None)
        done = steps.get(name, [])
        running = facts.held and name == names[-1]
        yield SessionStory(
            name=name,
            verdict=str(plan.get("verdict", "?")).lower() if isinstance(plan, Mapping) else "?",
            first=min(done, default=0),
            last=max(done, default=0),
            ended="running" if running else how_it_ended(events),
        )


def _programs(facts: Survey) -> Iterator[RecordedProgram]:
    before: Program | None = None
    for session, program in programs_of(facts.events).items():
        changes = program_changes(before, program) if before is not None else []
        yield RecordedProgram(session=session, program=program, changes=tuple(changes))
        before = program


def _evaluations(records: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, Mapping[str, float]], ...]:
    found = {count_of(r.get("step")): numbers_of(r["evaluation"]) for r in records if "evaluation" in r}
    return tuple(sorted((step, values) for step, values in found.items() if step is not None))


def _accepted(inside: Mapping[str, Any]) -> tuple[str, ...]:
    listed = inside.get("accepted")
    found = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list | tuple) else []
    return tuple(f"{item.get('words')}, after step {item.get('step')}" for item in found)
