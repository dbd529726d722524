"""Killing real training processes at random instants, and comparing what is left with a run that nobody touched."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes import DEVNULL, PATIENCE_S, PIPE, STDOUT, Popen, environment, run_command
from tests.processes import python as python
from unbroken.journal import read_events, read_steps
from unbroken.run.layout import LAYOUTS
from unbroken.train import differences, read_checkpoint

SHORTEST_S = 0.0002  # between two looks for a save, which may last a few milliseconds


@dataclass
class Session:
    """One process: what it printed, how it ended."""

    returncode: int
    output: str


@dataclass
class Interrupted:
    """A run that was killed again and again until it was done."""

    kills: int
    kills_in_saves: int
    sessions: list[Session] = field(default_factory=list)


def run_to_end(command: Sequence[str], *, cwd: Path | None = None, **extra: str) -> Session:
    """Run a command to its end."""
    done = run_command(command, cwd=cwd, env=environment(**extra))
    return Session(done.returncode, done.stdout + done.stderr)


def lines_in(path: Path) -> int:
    """Lines that are in a file by now."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_until_done(
    run: Path,
    commands: Sequence[Sequence[str]],
    chance: random.Random,
    *,
    kills: int,
    steps_apart: int,
    cwd: Path | None = None,
    **extra: str,
) -> Interrupted:
    """Start any of `commands`, kill it some steps on or inside its next save; after `kills`, let it end."""
    result = Interrupted(kills=0, kills_in_saves=0)
    while result.kills < kills:
        process = Popen(
            chance.choice(commands), cwd=cwd, env=environment(**extra), stdout=PIPE, stderr=STDOUT, text=True
        )
        in_save = _wait_for_instant(process, run, chance, steps_apart=steps_apart)
        over = process.poll() is not None
        process.kill()
        output, _ = process.communicate()
        result.sessions.append(Session(process.returncode, output))
        if over:
            return result
        result.kills += 1
        result.kills_in_saves += in_save
    result.sessions.append(run_to_end(chance.choice(commands), cwd=cwd, **extra))
    return result


def kill_after_steps(run: Path, command: Sequence[str], *, steps: int, **extra: str) -> None:
    """Start a command and kill it once it has done so many steps."""
    process = Popen(command, env=environment(**extra), stdout=DEVNULL, stderr=DEVNULL)
    _wait(process, lambda: lines_in(run / "unbroken" / "metrics.jsonl") >= steps)
    process.kill()
    process.wait()


def kill_inside_a_save(run: Path, command: Sequence[str], *, after_steps: int) -> bool:
    """Start a command and kill it while it writes a checkpoint; False when the save was over before the kill."""
    process = Popen(command, env=environment(), stdout=DEVNULL, stderr=DEVNULL)
    wanted = lines_in(run / "unbroken" / "metrics.jsonl") + after_steps
    _wait(process, lambda: lines_in(run / "unbroken" / "metrics.jsonl") >= wanted)
    _wait(process, lambda: is_saving(run), pause_s=SHORTEST_S)
    process.kill()
    process.wait()
    return is_saving(run)


def is_saving(run: Path) -> bool:
    """Whether a checkpoint is being written, or its writing was cut off, wherever the run's layout has them."""
    folders = {layout.checkpoints(run) for layout in LAYOUTS}
    return any(
        name.endswith(".pth.partial") for folder in folders if folder.is_dir() for name in os.listdir(folder)
    )  # asked thousands of times a second: a glob would cost the training its core


def _wait_for_instant(process: Any, run: Path, chance: random.Random, *, steps_apart: int) -> bool:
    """Return when it is time to kill; True when a save was being written at that instant."""
    metrics = run / "unbroken" / "metrics.jsonl"
    wanted = lines_in(metrics) + chance.randint(1, steps_apart)
    in_save = chance.random() < 0.4
    if not _wait(process, lambda: lines_in(metrics) >= wanted):
        return False
    if in_save:
        return _wait(process, lambda: is_saving(run), pause_s=SHORTEST_S)
    time.sleep(chance.random() * 0.02)
    return False


def _wait(process: Popen, until: Callable[[], bool], *, pause_s: float = 0.002) -> bool:
    """Wait for an instant of a process; False when it was over before. Looks without a pause cost it half a core."""
    give_up = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < give_up:
        if until():
            return True
        time.sleep(pause_s)
    return False


def assert_twins(run: Path, twin: Path, file: str) -> None:
    """Weights, optimizer, schedule, random streams, best metric and every logged loss are the same, bit for bit."""
    assert differences(read_checkpoint(run / file), read_checkpoint(twin / file)) == []
    assert step_records(run) == step_records(twin)
    assert evaluations(run) == evaluations(twin)


def step_records(run: Path) -> dict[int, dict[str, Any]]:
    """The last record of every step, without the session's name."""
    records = {}
    for record in read_steps(run / "unbroken" / "metrics.jsonl"):
        if "evaluation" not in record:
            records[record["step"]] = {key: value for key, value in record.items() if key != "session"}
    return records


def evaluations(run: Path) -> dict[int, Any]:
    """The last record of every evaluation."""
    lines = read_steps(run / "unbroken" / "metrics.jsonl")
    return {record["step"]: record["evaluation"] for record in lines if "evaluation" in record}


def events(run: Path, name: str) -> list[dict[str, Any]]:
    """The run's events of one kind."""
    return [event for event in read_events(run / "unbroken" / "journal.jsonl") if event["event"] == name]
