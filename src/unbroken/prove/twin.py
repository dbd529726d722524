"""A twin: the same command once more in a place of its own, in peace or with kills, and what it left there."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.errors import UsageError
from unbroken.journal import Event, read_events, read_steps
from unbroken.journal.events import SessionBegan
from unbroken.launch.host import Trial, environment_of
from unbroken.prove.kills import Kill
from unbroken.prove.trial import Start, TrialSession, run_session
from unbroken.run import layout_seen
from unbroken.run.layout import OWN_FOLDER, own
from unbroken.storage import Disk
from unbroken.train import FoundCheckpoint, furthest_checkpoint

FEWEST = 2  # steps: a training of one has nothing to resume
Records = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all twins of a proof have in common."""

    command: tuple[str, ...]
    scratch: Path
    until: int
    save_every: int
    patience_s: float
    environment: Mapping[str, str]
    start: Start = subprocess.Popen


@dataclass(frozen=True, kw_only=True)
class RunSeen:
    """A run as its twin left it: the last record of each step and of each evaluation, and its furthest checkpoint."""

    name: str
    steps: Records
    evaluations: Records
    reached: int
    resumed: tuple[int, ...]  # the steps after which sessions went on
    checkpoint: Path | None
    keys: Mapping[str, str]  # of the checkpoint: under which key a part stands

    @property
    def is_fed(self) -> bool:
        """Whether its batches come from `run.batches`: the records know their samples."""
        return any(record.get("samples") for record in self.steps.values())


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What was trained, how it was killed, and how its last session ended."""

    runs: tuple[RunSeen, ...]
    kills: tuple[Kill, ...]
    sessions: tuple[TrialSession, ...] = field(repr=False)
    is_over: bool  # it came as far as it was to come

    @property
    def steps(self) -> int:
        """The steps that were done, over all runs."""
        return sum(run.reached for run in self.runs)

    @property
    def last(self) -> TrialSession:
        """The session that ended it."""
        return self.sessions[-1]

    @property
    def resumed(self) -> tuple[int, ...]:
        """The steps after which sessions went on, over all runs."""
        return tuple(step for run in self.runs for step in run.resumed)

    def not_tracked(self) -> list[str]:
        """What the sessions said is not tracked, each once."""
        return list(dict.fromkeys(line for session in self.sessions for line in session.not_tracked()))


def train(
    setup: Setup, name: str, kills: Sequence[Kill] = (), *, workers: int | None = None, hash_seed: str = ""
) -> Twin:
    """Train one twin to its end, through all its kills; it ends early where a session ends as none should."""
    place = setup.scratch / name
    Disk().make_folder(place)
    done: list[Kill] = []
    sessions: list[TrialSession] = []
    is_over = False
    waiting: list[Kill | None] = [*kills, None]
    while waiting and not is_over:
        kill = waiting.pop(0)
        told = {} if kill is None else {k: getattr(kill, k) for k in ("run", "after", "signal", "share")}
        trial = Trial(
            place=str(place / "runs"), until=setup.until, save_every=setup.save_every, workers=workers, **told
        )
        session = run_session(
            setup.command,
            environment_of(trial, setup.environment, hash_seed=hash_seed),
            place=place / "runs",
            output=place / f"session-{len(sessions) + 1}.txt",
            patience_s=setup.patience_s,
            start=setup.start,
        )
        sessions.append(session)
        # By what is saved: a killed session may have recorded the last step, and lost it.
        is_over = session.code == 0 or any(_saved_step(path.parent) >= setup.until for path in _own_folders(place))
        if kill is not None and (session.was_killed or (session.ended_well and not is_over)):
            done.append(kill)
        elif not session.ended_well:
            break
    return Twin(runs=tuple(map(_seen, _in_order(place))), kills=tuple(done), sessions=tuple(sessions), is_over=is_over)


def require_trained(twin: Twin) -> None:
    """Raise UsageError unless a twin in peace opened a run and came to steps that can be compared."""
    session = twin.last
    said = f"; its last words:\n  {session.last_words()}" if session.last_words() else ", and nothing was printed"
    ending = f"exit code {session.code}" if session.code >= 0 else f"signal {-session.code}"
    after = f"after {twin.steps} steps"
    if session.hung:
        what, do = f"the command hangs {after}: it prints and records nothing", "Give it longer: --patience 30m."
    elif "EOFError" in session.last_words():
        what, do = (
            f"the command asks for input {after}, and a proof has nobody to answer",
            "Start it without questions.",
        )
    elif not session.ended_well:
        what, do = f"in peace, the command ends with {ending} {after}", "Make it train first, then prove it."
    elif not twin.runs:
        what = f"the command ended ({ending}) without opening a run"
        do = "A proof needs a loop that uses open_run(...): docs/own-loop.md."
    elif not twin.is_over:
        what = f"in peace, the command stops by itself ({ending}) {after}, before its end"
        do = "Let it train on, then prove it."
    elif max(run.reached for run in twin.runs) < FEWEST:
        what = f"no run of the command has more than {FEWEST - 1} step: there is nothing to resume"
        do = f"A proof needs a run of at least {FEWEST} steps."
    else:
        return
    raise UsageError("unbroken prove", what + said, do=do)


def _own_folders(place: Path) -> list[Path]:
    return list((place / "runs").glob(f"*/{OWN_FOLDER}"))


def _in_order(place: Path) -> list[Path]:
    """The runs of a twin, in the order in which they began; a run that only began to begin is none."""
    begun = [(events[0]["time"], path.parent) for path in _own_folders(place) if (events := _events(path.parent))]
    return [path for _, path in sorted(begun)]


def _events(run: Path) -> Sequence[Event]:
    path = own(run) / "journal.jsonl"
    return read_events(path) if path.is_file() else ()


def _saved(run: Path) -> FoundCheckpoint | None:
    """The furthest checkpoint; None before the first one."""
    with suppress(UsageError):
        return furthest_checkpoint(run, layout_seen(run)[0])
    return None


def _saved_step(run: Path) -> int:
    return saved.step if (saved := _saved(run)) is not None else 0


def _seen(run: Path) -> RunSeen:
    steps: dict[int, Mapping[str, Any]] = {}
    evaluations: dict[int, Mapping[str, Any]] = {}
    metrics, layout = own(run) / "metrics.jsonl", layout_seen(run)[0]
    for record in read_steps(metrics) if metrics.is_file() else ():
        (evaluations if "evaluation" in record else steps)[record["step"]] = record
    plans = [event.plan or {} for event in _events(run) if isinstance(event, SessionBegan)]
    return RunSeen(
        name=run.name,
        steps=steps,
        evaluations=evaluations,
        reached=max(steps, default=0),
        resumed=tuple(plan["step"] for plan in plans if plan.get("verdict") == "Resume"),
        checkpoint=saved.path if (saved := _saved(run)) is not None else None,
        keys=layout.keys,
    )
