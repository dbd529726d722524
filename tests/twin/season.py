"""A notebook host: sessions in empty folders, whose outputs come back read-only, under other names, as inputs."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes import PATIENCE_S, STDOUT, Popen, environment, python
from tests.twin.killing import run_to_end
from unbroken.journal import read_steps

POLL_S = 0.02
HOW_COMMITTED = ("whole", "nested", "renamed", "bare", "packed")


@dataclass
class Working:
    """One session: its own copy of the program, what is mounted, and where its run will be."""

    number: int
    program: Path
    inputs: Path
    run: Path
    known: frozenset[str]
    fresh: bool
    process: Popen | None = None
    began_s: float = 0.0
    first_step_s: float = 0.0
    returncode: int = 0

    @property
    def output(self) -> str:
        """What the process said so far."""
        return self.log.read_text("utf-8")

    @property
    def log(self) -> Path:
        return self.program.parent.parent / f"said_{self.number}.txt"

    def records(self) -> list[dict[str, Any]]:
        """What this session recorded so far."""
        path = self.run / "unbroken" / "metrics.jsonl"
        return [one for one in (read_steps(path) if path.exists() else []) if one["session"] not in self.known]

    def steps(self) -> list[int]:
        """The steps of this session so far."""
        return [record["step"] for record in self.records() if "evaluation" not in record]

    def evaluated(self) -> list[int]:
        """The steps that this session evaluated so far."""
        return [record["step"] for record in self.records() if "evaluation" in record]

    def checkpoints(self) -> int:
        """How many checkpoints are there by now."""
        return sum(not path.name.startswith(("best_", "latest.")) for path in self.run.rglob("*.pth"))

    def wait(self, until: Callable[[], bool]) -> bool:
        """Wait for an instant of this session; False when it was over before."""
        assert self.process is not None
        give_up = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < give_up:
            if not self.first_step_s and self.steps():
                self.first_step_s = time.monotonic() - self.began_s
            if until():
                return True
            time.sleep(POLL_S)
        return False

    def end(self, how: signal.Signals | None = None) -> None:
        """End it by a signal, or let it end."""
        assert self.process is not None
        if how is not None:
            self.process.send_signal(how)
        self.wait(lambda: False)
        self.returncode = self.process.wait(timeout=PATIENCE_S)


@dataclass
class Host:
    """What makes working folders of a template, and inputs of what lay in them when a session was over."""

    folder: Path
    template: Path
    run: Path  # where the run is, within the program's folder
    chance: random.Random
    outputs: list[Path] = field(default_factory=list)
    sessions: list[Working] = field(default_factory=list)
    mounted_before: dict[str, Any] = field(default_factory=dict)
    ways: list[str] = field(default_factory=list)  # to commit that are still to come: each has its turn

    def session(self, command: Sequence[object], *, mounts: str, fresh: bool = False, **extra: str) -> Working:
        """Begin a session in an empty folder, with `all` earlier outputs or only the `last` one mounted.

        Where its deadline is about how long a beginning takes, that has to be a whole one: `fresh`.
        """
        number = len(self.sessions) + 1
        program = self.folder / f"working_{number}" / self.template.name
        shutil.copytree(self.template, program)
        inputs = self.folder / f"input_{number}"
        inputs.mkdir()
        for output in self.outputs if mounts == "all" else self.outputs[-1:]:
            shutil.copytree(output, inputs, dirs_exist_ok=True)  # with their times and their missing permissions
        self.mounted_before = contents(inputs)
        known = frozenset(one["session"] for path in inputs.rglob("metrics.jsonl") for one in read_steps(path))
        working = Working(number, program, inputs, program / self.run, known, fresh)
        self.sessions.append(working)
        working.began_s = time.monotonic()
        with working.log.open("wb") as log:
            working.process = Popen(
                [str(word) for word in command],
                fresh=fresh,
                cwd=program,
                env=environment(UNBROKEN_SEARCH_PATH=str(inputs), **extra),
                stdout=log,
                stderr=STDOUT,
            )
        return working

    def commit(self, working: Working) -> str:
        """Keep what lies in a session's folder as the host does, and see that its inputs are untouched; returns how."""
        assert contents(working.inputs) == self.mounted_before, "something below the mounts was changed"
        has_checkpoint = any(working.run.rglob("*.pth"))
        if not self.ways:
            self.ways = self.chance.sample(HOW_COMMITTED, len(HOW_COMMITTED))
        how = self.ways.pop() if has_checkpoint else self.chance.choice(HOW_COMMITTED[:2])
        slug = f"{self.chance.choice(['notebook', 'commit', 'output of'])}{self.chance.randrange(16**8):08x}"
        output = self.folder / f"output_{working.number}"
        place = output / (Path("notebooks", "somebody", slug) if how == "nested" else slug)
        match how:
            case "whole" | "nested":
                shutil.copytree(working.program, place / working.program.name, symlinks=True)
            case "renamed":
                shutil.copytree(working.run, place / f"{working.run.name}_v3 (1)", symlinks=True)
            case "bare":
                shutil.copytree(working.run, place, symlinks=True)
            case "packed":
                packed = self.folder / f"packed_{working.number}.zip"
                done = run_to_end(python("-m", "unbroken", "pack", working.run, packed, "--max-size", "20GB"))
                assert done.returncode == 0, done.output
                with zipfile.ZipFile(packed) as file:
                    file.extractall(place)
        self.outputs.append(output)
        strip(output, self.chance)
        return how


def strip(output: Path, chance: random.Random) -> None:
    """No links, no dot files, no empty folders, any times, no permission to write."""
    for path in sorted(output.rglob("*"), reverse=True):
        if path.is_symlink() or (path.name.startswith(".") and path.is_file()):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for path in sorted(output.rglob("*"), reverse=True):
        moment = chance.randint(0, 2_000_000_000)
        os.utime(path, (moment, moment))
        path.chmod(0o555 if path.is_dir() else 0o444)


def cut_off_newest(output: Path, chance: random.Random) -> str:
    """Truncate the newest checkpoint in an output; returns its name."""
    found = sorted(output.rglob("iter_*.pth"), key=lambda path: int(path.stem.split("_")[1]))
    assert len(found) > 1, "there is none to fall back on"
    times = found[-1].stat()
    found[-1].chmod(0o644)
    os.truncate(found[-1], chance.randrange(1, times.st_size))
    os.utime(found[-1], ns=(times.st_atime_ns, times.st_mtime_ns))
    found[-1].chmod(0o444)
    return found[-1].name


def contents(folder: Path) -> dict[str, Any]:
    """Every file and folder below: its bytes, time and permissions."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }
