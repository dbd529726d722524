"""At every request to the disk of every kind of session, a kill or a power cut loses nothing that was acknowledged.

The sessions are recorded once (conftest); a model of the disk then gives, for every request, what a kill before it,
in the middle of it, or a power cut at that moment may leave. Each of these folders is laid out and launched again.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.crash.faulty_disk import Request, UnsyncedDisk
from tests.crash.remains import Image, Link, Medium, change, lay_out
from tests.crash.sessions import RUN, SCORES, STEPS, Session, begin_only, crash, job_in, relocated, train, without_lock
from tests.twin.killing import differences, evaluations, step_records
from unbroken.journal import read_events, read_steps
from unbroken.launch import Finished, Fresh, Job, Plan, Resume, decide, gather
from unbroken.train.state.serialise import read_tree

KINDS = ("first", "resume", "fresh", "fresh twice", "set aside", "step back", "copy", "copy over damage")
SEED = 20250101
CONTINUED_TO_THE_END = 12  # of each kind of session
REALLY_KILLED = 9
TOOK = re.compile(rb'started in [^\n]*|"start":\{[^}]*\}')  # in a log, and in a journal
LAUNCHED = 60  # of each kind of session

opened: list[str] = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)


@dataclass
class Promised:
    """What was acknowledged up to an instant: events on the medium, the step saved, the best score saved."""

    step: int
    events: set[tuple[str, str, str]]
    score: float = 0.0
    whole: dict[bytes, int | float] = field(default_factory=dict)  # content of each finished file -> step or score
    pending: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def note(self, request: Request, medium: Medium) -> None:
        """Take one request's promise in."""
        if request.kind == "write" and request.path.name == "journal.jsonl":
            self.pending.setdefault(request.file, []).extend(_parsed(request.data))
        elif request.kind == "sync":
            for event in self.pending.pop(request.file, []):
                self._acknowledge(event)
        elif request.kind == "rename" and str(request.target).endswith(".pth") and request.path.suffix == ".partial":
            self.note_files(medium.now())

    def note_files(self, image: Image) -> None:
        """Remember the content of every finished file, to know it again wherever it is moved to."""
        for name, content in image.items():
            if name.endswith(".pth") and isinstance(content, bytes):
                step = int(Path(name).stem.rsplit("_", 1)[-1])
                self.whole[content] = SCORES[step] if "best_" in name else step

    def _acknowledge(self, event: dict[str, Any]) -> None:
        self.events.add(_identity(event))
        if event["event"] == "saved" and event["kind"] == "checkpoint":
            self.step = max(self.step, event["step"])
        elif event["event"] == "saved":
            self.score = max(self.score, SCORES[event["step"]])


@dataclass(frozen=True)
class State:
    """One folder that a fault may leave."""

    session: Session
    words: str
    image: Image
    step: int
    score: float
    events: frozenset[tuple[str, str, str]]
    whole: dict[bytes, int | float]

    def at(self, root: Path) -> Job:
        """Lay the folder out, and launch the same job there."""
        lay_out(self.image, root)
        return job_in(root, relocated(self.session.again, root))


def states_of(session: Session) -> Iterator[State]:
    """Every different folder that a fault at any instant of a session may leave.

    Folders that differ only in what no launch reads (half-written files, readable logs) count as one.
    """
    seen: set[int] = set()
    before = [content for name, content in session.before.items() if name.endswith("journal.jsonl")]
    known = {_identity(event) for content in before if isinstance(content, bytes) for event in _parsed(content)}
    promised = Promised(session.floor, known)
    promised.note_files(session.before)
    for number, words, medium, coming in session.instants():
        if number:
            promised.note(session.requests[number - 1], medium)
        if number and coming is not None and _goes_on(session.requests[number - 1], coming):
            continue
        images = [("kill", medium.now()), *medium.after_power_cut()]
        if coming is not None and coming.kind == "write":
            images.append(("kill in the middle of a write", medium.torn(coming)))
        for fault, image in images:
            key = hash((promised.step, promised.score, len(promised.events), _essence(image)))
            if key in seen:
                continue
            seen.add(key)
            yield State(
                session,
                f"{session.name}: {fault}, after request {number} ({words})",
                image,
                promised.step,
                promised.score,
                frozenset(promised.events),
                promised.whole,
            )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fresh twice"])  # which is always Fresh
def test_after_every_instant_the_next_launch_continues_from_what_was_acknowledged(
    sessions: dict[str, Session], tmp_path: Path, kind: str
) -> None:
    states, wrong = list(states_of(sessions[kind])), []
    root, there = tmp_path / "state", {}
    job = job_in(root, relocated(sessions[kind].again, root))
    for state in states:
        there = change(there, state.image, root)  # deciding changes nothing, so only what differs is laid out
        opened.clear()
        try:
            plan = decide(job, gather(job))
        except Exception as error:  # noqa: BLE001 - any error at all is a finding here
            wrong.append(f"{state.words}: {error!r}")
        else:
            wrong += [f"{state.words}: {problem}" for problem in problems(state, plan, root / RUN)]
        unread = [name for name in opened if name.endswith((".partial", ".going", ".log"))]
        assert not unread, "what differs between states that count as one was read"
    print(f"{kind}: {len(sessions[kind].requests)} requests, {len(states)} different states")
    assert not wrong, f"{len(wrong)} of {len(states)}\n" + "\n".join(wrong[:40])


def problems(state: State, plan: Plan, run: Path) -> Iterator[str]:
    """Everything that is not as promised."""
    if not isinstance(plan, Resume | Finished | Fresh):
        yield f"refused: {plan.reasons}"
    elif isinstance(plan, Fresh) and state.step and not state.session.again.fresh:
        yield f"fresh, after step {state.step} was saved"
    elif not isinstance(plan, Fresh) and plan.source.step < state.step:
        yield f"step {plan.source.step}, after step {state.step} was saved"
    names = {name: content for name, content in state.image.items() if name.endswith(".pth")}
    here = {name: content for name, content in names.items() if Path(name).parent == Path(RUN)}
    if state.step and not state.session.again.search:
        whole = [state.whole.get(content) for name, content in here.items() if "iter_" in name and "best_" not in name]
        if not any(step is not None and step >= 2 for step in whole):
            yield "no whole checkpoint is there"
    if state.score:
        scores = [state.whole.get(content, 0.0) for name, content in here.items() if "best_" in name]
        if not any(score >= state.score for score in scores):
            yield f"the best weights ({state.score}) are gone"
    yield from _lost_records(state, run)
    if state.session.start.fresh or state.session.start.exact or "damage" in state.session.name:
        old = {content for name, content in state.session.before.items() if Path(name).match("iter_*.pth")}
        if not old <= set(names.values()):
            yield "a file of the old history is gone"


def _lost_records(state: State, run: Path) -> Iterator[str]:
    """Journal and metrics are readable, and hold everything up to the acknowledged step."""
    journals = [run / "unbroken" / "journal.jsonl", *run.glob("archive/*/unbroken/journal.jsonl")]
    events = {_identity(event) for path in journals for event in read_events(path)}
    if not state.events <= events:
        yield f"{len(state.events - events)} events are gone from the journal: {sorted(state.events - events)[:3]}"
    steps = {record["step"] for path in journals for record in read_steps(path.with_name("metrics.jsonl"))}
    if state.step and not state.session.again.search and not set(range(1, state.step + 1)) <= steps:
        yield f"metrics of steps {sorted(set(range(1, state.step + 1)) - steps)} are gone"


@pytest.mark.parametrize("kind", KINDS)
def test_a_launch_at_any_instant_tidies_up_and_can_itself_be_followed_by_another(
    sessions: dict[str, Session], tmp_path: Path, kind: str
) -> None:
    wrong, states = [], sampled(states_of(sessions[kind]), LAUNCHED)
    for state in states:
        root = tmp_path / "state"
        job = state.at(root)
        begin_only(job, UnsyncedDisk(), day=20)
        unended = [*(root / RUN).rglob("*.partial"), *(root / RUN).rglob("*.going")]
        left = [path for path in unended if "archive" not in path.parts]
        wrong += [f"{state.words}: {path.name} is still there" for path in left]
        after = replace(state, image=_image_of_checkpoints(root))
        if job.start.fresh:  # what was acknowledged lies in the archive now
            after = replace(after, step=0, score=0.0)
        wrong += [
            f"{state.words}, launched: {problem}" for problem in problems(after, decide(job, gather(job)), root / RUN)
        ]
        shutil.rmtree(root)
    print(f"{kind}: {len(states)} states launched, seed {SEED}")
    assert not wrong, f"{len(wrong)} of {len(states)}\n" + "\n".join(wrong[:40])


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_continued_after_a_fault_ends_bit_for_bit_as_if_there_had_been_none(
    sessions: dict[str, Session], tmp_path: Path, kind: str
) -> None:
    print(f"seed {SEED}")
    whole = sessions["first"].root / RUN
    for state in sampled(states_of(sessions[kind]), CONTINUED_TO_THE_END):
        root = tmp_path / "state"
        train(state.at(root), UnsyncedDisk(), day=20)
        run = root / RUN
        assert differences(read_tree(run / f"iter_{STEPS}.pth"), read_tree(whole / f"iter_{STEPS}.pth")) == [], (
            state.words
        )
        assert step_records(run) == step_records(whole), state.words
        assert evaluations(run) == evaluations(whole), state.words
        shutil.rmtree(root)


def test_a_process_that_really_stops_leaves_what_the_model_of_the_disk_says(
    sessions: dict[str, Session], tmp_path_factory: pytest.TempPathFactory
) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for turn in range(REALLY_KILLED):
        session = chance.choice(list(sessions.values()))
        number = chance.randrange(len(session.requests))
        # A path as long as the recorded one: the journal holds it.
        left = crash(session, tmp_path_factory.mktemp(f"recorded{turn}", numbered=False), number, "before")
        assert sizes(left) == sizes(session.at(number)), f"{session.name}, request {number}"


def sampled(states: Iterator[State], count: int) -> list[State]:
    """Some of the states, always the same ones."""
    every = list(states)
    return random.Random(SEED).sample(every, min(count, len(every)))


def sizes(image: Image) -> dict[str, Any]:
    """Names and lengths: what is in the files holds names made from chance. How long a start took does not count."""
    return {n: len(TOOK.sub(b"", c)) if isinstance(c, bytes) else c for n, c in without_lock(image).items()}


def _image_of_checkpoints(root: Path) -> Image:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.pth") if not path.is_symlink()
    }


def _essence(image: Image) -> tuple[Any, ...]:
    unread = (".partial", ".going", ".log", "scalars.json")
    return tuple((n, bool(c) if n.endswith(unread) and not isinstance(c, Link) else c) for n, c in image.items())


def _goes_on(request: Request, coming: Request) -> bool:
    """Whether this instant lies between two writes to the same half-written file, of which nothing is read."""
    same = request.kind == coming.kind == "write" and request.file == coming.file
    return same and request.path.suffix == ".partial"


def _parsed(lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines() if line.strip()]


def _identity(event: dict[str, Any]) -> tuple[str, str, str]:
    return (str(event.get("time")), str(event.get("session")), str(event.get("event")))
