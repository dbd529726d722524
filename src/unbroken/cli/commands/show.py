"""`show`: one run, from its records alone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.runs import add_run, run_folder
from unbroken.cli.tables import LONGEST_LINE, as_json_text, columns, step_text
from unbroken.clock import shown_time
from unbroken.errors import DamagedFile
from unbroken.fields import count_of, numbers_of
from unbroken.journal import Event
from unbroken.journal.events import Archiving, HistoryRestored, SessionBegan
from unbroken.jsonlines import finite
from unbroken.quantities import size_text
from unbroken.run import Candidate, MissingFile, RunRecord, RunView, Survey, read_record
from unbroken.run.history import Program, how_it_ended, program_changes, programs_of, score_of
from unbroken.run.locate import find_runs
from unbroken.run.record import Pin
from unbroken.run.summary import LOST, NOT_REACHABLE, summary_of
from unbroken.run.survey import Damage, damage_in_words, survey_of
from unbroken.run.view import looked_at
from unbroken.text import shown

MOST_COLUMNS = 6


def show_options(parser: CommandParser) -> None:
    """A run."""
    add_run(parser)
    add_json(parser)
    parser.add_examples("unbroken show RUN")


def show_command(options: argparse.Namespace) -> None:
    """One run: sessions, checkpoints with their state, metrics, where it came from."""
    found = overview_of(run_folder(options.run))
    lineage = _ancestors(found)
    if options.as_json:
        pinned = None if found.pinned is None else {name: pin.note for name, pin in found.pinned.items()}
        print(as_json_text(found.as_data() | {"lineage": lineage, "pinned": pinned}))
    else:
        print("\n".join(_story(found, lineage)))


def _story(run: Overview, lineage: Sequence[str]) -> list[str]:
    whose = f" ({run.recipe})" if run.recipe else ""
    lines = [f"{run.tag}{whose} - {run.status}", f"folder: {run.directory} ({size_text(run.size_bytes)})"]
    lines += [run.trouble] if run.trouble else []
    total = f" of {run.total}" if run.total else ""
    lines.append(f"step: {run.step}{total}")
    if run.best:
        lines.append(f"best: {run.best}")
    lines += [f"{'began from' if not place else 'which began from'}: {words}" for place, words in enumerate(lineage)]
    lines += [f"accepted: {words}" for words in run.accepted]
    if run.last_seen:
        lines.append(f"last seen: {shown_time(run.last_seen)}")
    if run.config is not None:
        lines.append(f"config: {run.config}")
    if run.command:
        lines.append(f"command: {run.command}")
    if run.programs:
        lines.append(f"program: {run.programs[-1].program.words()}")
    changed = [item for item in run.programs if item.changes]
    lines += [f"program changed in session {item.session}: {', '.join(item.changes)}" for item in changed]
    lines = [shown(line, LONGEST_LINE) for line in lines]
    rows = [(s.name, s.verdict, f"{s.first}-{s.last}" if s.last else "no step", s.ended) for s in run.sessions]
    lines += ["", "sessions", columns([("session", "began", "steps", "ended"), *rows])] if rows else []
    lines += ["", "files"]
    pins = run.pinned or {}
    files = [(c.name, step_text(c.step), c.kind, c.state, _how(c.reason, pins.get(c.name))) for c in run.candidates]
    files += [(m.name, step_text(m.step), m.kind, "missing", m.words) for m in run.missing]
    lines.append(columns([("file", "step", "kind", "state", "how"), *files]))
    lines += [shown(run.pins_trouble, LONGEST_LINE)] if run.pins_trouble else []
    lines += [f"damaged: {shown(words, LONGEST_LINE)}" for words in damage_in_words(run.damage)]
    if any(c.state == "unchecked" for c in run.candidates):
        lines.append(f"unchecked: not needed to go on; to read them all: unbroken verify {shown(run.directory)}")
    if run.status.startswith("left by"):
        lines.append(
            "to go on with it here: make it the folder of a training (the same work dir, or the same config and tag); "
            "`unbroken why` says from which file, and what that file lacks"
        )
    if run.evaluations:
        lines += ["", "evaluations", *_evaluation_table(run)]
    return lines


def _how(reason: str, pin: Pin | None) -> str:
    """How a file was judged, and that it is pinned."""
    pinned = "" if pin is None else f"pinned: {shown(pin.note)}" if pin.note else "pinned"
    return "; ".join(words for words in (reason, pinned) if words)


def _evaluation_table(run: Overview) -> list[str]:
    """The numbers that stand for an evaluation; those of parts of it, which have a path for a name, come after."""
    names = sorted(run.evaluations[-1][1], key=lambda name: "/" in name)
    chosen = names[:MOST_COLUMNS]
    table: list[tuple[str, ...]] = [("step", *chosen)]
    for step, values in run.evaluations:
        table.append((str(step), *(f"{values[name]:.4g}" if name in values else "" for name in chosen)))
    more = len(names) - len(chosen)
    return [columns(table), *([f"and {more} more numbers of each: --json"] if more else [])]


# -- what is known of it ----------------------------------------------------------------------------------------------


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
    pinned: Mapping[str, Pin] | None  # by file name; None where that cannot be known
    pins_trouble: str  # and why

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
    return looked_at(directory, _overview)


def _overview(view: RunView) -> Overview:
    directory, facts, summary = view.directory, survey_of(view), summary_of(view)
    newest = facts.newest_good
    inside = newest.inside if newest is not None else {}
    best = score_of(inside.get("best")) or summary.best
    pinned, pins_trouble = _pins(view)
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
        config=view.own / "configs" / view.config_names[-1] if view.config_names else None,
        command=next((e.command or "" for e in reversed(facts.events) if isinstance(e, SessionBegan)), ""),
        programs=tuple(_programs(facts)),
        sessions=tuple(_sessions(facts, view.steps)),
        candidates=facts.candidates,
        missing=facts.missing,
        accepted=_accepted(inside),
        evaluations=_evaluations(view.steps),
        damage=facts.damage,
        pinned=pinned,
        pins_trouble=pins_trouble,
    )


def _pins(view: RunView) -> tuple[Mapping[str, Pin] | None, str]:
    try:
        return view.pins, ""
    except DamagedFile as error:
        return None, str(error)


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
    told: dict[str, list[Event]] = {}
    for event in facts.events:
        told.setdefault(str(event.get("session")), []).append(event)
    # A launch that moved this history aside and the command that brought it back are no sessions of it.
    names = [
        name
        for name in facts.sessions
        if name in steps or not all(isinstance(event, Archiving | HistoryRestored) for event in told[name])
    ]
    for name in names:
        events = told[name]
        plan = next((event.plan for event in events if isinstance(event, SessionBegan)), None)
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


def _ancestors(run: Overview) -> list[str]:
    """Where a run came from, in words, the nearest first; as far as the runs are found beside this one."""
    known = _records_near(run)
    words: list[str] = []
    parent = run.parent
    while parent:
        words.append(_words(parent))
        record = known.pop(
            (str(parent.get("run") or ""), str(parent.get("tag") or "")), None
        )  # once: an edited record may lead back
        parent = record.parent if record is not None else None
    return words


def _records_near(run: Overview) -> dict[tuple[str, str], RunRecord]:
    """The records of the runs in the folder that holds this one, and in the one that holds its parent's file.

    By id and tag: a run that goes on under another tag keeps its id. What began with the same file is no ancestor.
    """
    roots = {run.directory.absolute().parent}
    if run.parent and run.parent.get("file"):
        roots |= set(list(Path(str(run.parent["file"])).absolute().parents)[1:3])
    near = (folder for root in sorted(roots) if root.is_dir() for folder in find_runs(root))
    found = (read_record(folder) for folder in near if folder != run.directory.absolute())
    return {(record.id, record.tag): record for record in found if record is not None and record.parent != run.parent}


def _words(parent: Mapping[str, Any]) -> str:
    where = f"step {parent['step']}" if isinstance(parent.get("step"), int) and parent["step"] >= 0 else ""
    whose = f"of `{parent['tag']}`" if parent.get("tag") else f"of run {parent['run']}" if parent.get("run") else ""
    digest = f"sha256 {str(parent['sha256'])[:12]}" if parent.get("sha256") else ""
    facts = ", ".join(part for part in (f"{where} {whose}".strip(), digest) if part)
    return f"{parent.get('file')}" + (f" ({facts})" if facts else "")
