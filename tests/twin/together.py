"""Starting one training as several processes, as a launcher does: each is told its rank in its environment."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, environment
from tests.twin.killing import Session
from unbroken.errors import STOPPED
from unbroken.journal import reached
from unbroken.run.layout import own

LOOKS_EVERY_S = 0.002


@dataclass
class Together:
    """The processes of one session, by rank."""

    processes: list[Popen]

    def wait(self) -> list[Session]:
        """How each of them ended, and what it printed."""
        said = [process.communicate(timeout=PATIENCE_S)[0] for process in self.processes]
        return [Session(process.returncode, text) for process, text in zip(self.processes, said)]

    def wait_for_step(self, run: Path, step: int) -> bool:
        """Wait until so many steps are recorded; False where the session ended before."""
        while all(process.poll() is None for process in self.processes):
            if reached(own(run) / "metrics.jsonl") >= step:
                return True
            time.sleep(LOOKS_EVERY_S)
        return False


def start(command: Sequence[str], size: int, *, cwd: Path | None = None, **extra: str) -> Together:
    """Start a training on `size` processes."""
    if size == 1:
        return Together([_process(command, cwd, extra)])
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **extra}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **common} for rank in range(size)]
    return Together([_process(command, cwd, told) for told in ranks])


def free_port() -> int:
    """A port at which processes of this machine can meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def require_ended(sessions: Sequence[Session], code: int) -> None:
    """Every process ended with this exit code."""
    assert [each.returncode for each in sessions] == [code] * len(sessions), [each.output for each in sessions]


def run_together(command: Sequence[str], size: int, *, cwd: Path | None = None, **extra: str) -> list[Session]:
    """Run a training on `size` processes to its end."""
    return start(command, size, cwd=cwd, **extra).wait()


def kill_one(
    run: Path, command: Sequence[str], size: int, chance: random.Random, *, after: int, number: int, **extra: Any
) -> list[Session]:
    """Start it, send a signal to one process once `after` steps are recorded, and wait for all."""
    session = start(command, size, **extra)
    if session.wait_for_step(run, after):
        time.sleep(chance.uniform(0, 0.02))
        session.processes[chance.randrange(size)].send_signal(number)
    return session.wait()


def run_by_other_numbers(folder: Path, loop: Callable[..., list[str]]) -> None:
    """Train to the end twice, on 1, 2, 4, 3 and 1 processes: in `peace`, and `killed` once before each stop."""
    seed = 5
    print("seed", seed)
    chance = random.Random(seed)
    sizes = {1: 4, 2: 8, 4: 12, 3: 16}  # processes -> the step after which these stop; then one goes on to the end
    for name in ("peace", "killed"):
        root = folder / name
        for number, (size, until) in enumerate(sizes.items()):
            if name == "killed" and number:
                after = until - chance.randint(1, 3)
                kill_one(root / "t", loop(root, until), size, chance, after=after, number=signal.SIGKILL, PACE="0.03")
            require_ended(run_together(loop(root, until), size), STOPPED)
        require_ended(run_together(loop(root), 1), 0)


def _process(command: Sequence[str], cwd: Path | None, told: dict[str, str]) -> Popen:
    return Popen(command, cwd=cwd, env=environment(**told), stdout=PIPE, stderr=STDOUT, text=True)
