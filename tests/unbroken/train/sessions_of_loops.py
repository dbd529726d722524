"""Loops that are trained in processes of their own, stopped by real signals, and compared to the last bit."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # loaded once, as the next one is, not by each process that is forked
from torch import nn

import unbroken.train.record.event_records  # noqa: F401
from unbroken.train import Exit, TrainingRun, differences, open_run, read_checkpoint

Loop = Callable[[TrainingRun, int], Iterator[None]]  # the run and a number of workers; yields after each step

SAVE_EVERY = 3


class Net:
    """A model whose bits say which batches it has seen, in which order, and what was drawn for them."""

    def __init__(self, run: TrainingRun) -> None:
        self.model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        run.track(model=self.model, optimizer=self.optimizer)
        self._run = run

    def step(self, batch: torch.Tensor) -> None:
        """One step."""
        loss = self.model(batch.reshape(-1, 1).float().sin()).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._run.end_step(loss=loss, batch=batch.double().sum())


def train(folder: Path, loop: Loop, *, workers: int, at: int = 0, number: int = 0) -> int:
    """Train in a process of its own, which is sent a signal after so many of its steps; returns how it ended."""
    if (pid := os.fork()) == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(folder.with_suffix(".log"), "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - it ends with the process
            torch.set_num_threads(1)
            warnings.simplefilter("default")  # of libraries that the loop uses, as a script's user has them
            torch.seed()  # what a new process begins with is nothing to rely on
            with open_run(folder, tag="t", save_every=SAVE_EVERY, save_every_s=None, seed=3) as run:
                for done, _ in enumerate(loop(run, workers), start=1):
                    if done == at:
                        run.wait_for_saves()
                        os.kill(os.getpid(), number)
            code = 0
        except Exit as ending:
            code = int(ending.code or 0)
        except BaseException:  # noqa: BLE001 - what it says belongs to the test
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def said(folder: Path) -> str:
    """What its sessions printed."""
    return folder.with_suffix(".log").read_text("utf-8")


def steps(folder: Path) -> dict[int, dict[str, Any]]:
    """The last record of each step."""
    lines = (folder / "t/unbroken/metrics.jsonl").read_text("utf-8").splitlines()
    return {record["step"]: record for record in map(json.loads, lines) if "epoch" in record}


def difference(one: Path, other: Path) -> str:
    """What differs between two finished runs, in their last checkpoints or their records; "" for nothing."""
    states = [read_checkpoint(max((folder / "t").glob("iter_*.pth"), key=_step)) for folder in (one, other)]
    found = list(differences(*states))
    assert all(isinstance(record["loss"], float) for record in steps(one).values()), "a NaN would hide all"
    for step, record in steps(one).items():
        again = steps(other).get(step, {})
        found += [f"step {step}: {name}" for name in record if name != "session" and record[name] != again.get(name)]
    return "\n".join(found)


def cut(folder: Path, loop: Loop, *, workers: tuple[int, int, int] = (0, 0, 0)) -> None:
    """Train in three sessions with so many workers: one is killed, one is stopped, one goes to the end."""
    ended = [train(folder, loop, workers=workers[0], at=5, number=signal.SIGKILL)]
    ended.append(train(folder, loop, workers=workers[1], at=4, number=signal.SIGTERM))
    ended.append(train(folder, loop, workers=workers[2]))
    assert ended == [-signal.SIGKILL, 75, 0], (ended, said(folder))


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("iter_"))
