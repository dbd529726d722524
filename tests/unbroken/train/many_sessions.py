"""Sessions of one small run, each forked from this process and killed after a few steps, with what each opened."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.unbroken.run.runs_in_short import SetClock
from unbroken.config import Effects
from unbroken.launch import Job
from unbroken.train import launch
from unbroken.train.arguments import SessionOptions
from unbroken.train.cadence import Every
from unbroken.train.record.console import PlainConsole

STEPS, SAVE_EVERY = 3, 2  # one step of each session is lost with it, and done again
TAG = "tiny"
KILLED = 9
_opened: list[str] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


sys.addaudithook(_hear)


def opened(act: Any, run: Path) -> list[str]:
    """What of a run's files an act opens, by name below its folder."""
    global _opened
    _opened = found = []
    try:
        act()
    finally:
        _opened = None
    return [str(Path(name).relative_to(run)) for name in found if Path(name).is_relative_to(run)]


def warm_up() -> None:
    """What a first step imports is imported here, and not again in each fork."""
    torch.set_num_threads(1)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(torch.ones(1)).backward()
    optimizer.step()


def session(root: Path, number: int, *, keep_last: int | None) -> list[str]:
    """One session that is killed after its steps; what it opened before the first of them.

    Each begins a minute after the one before it, by a clock that stands still: how many of them share a second, and so
    a row of `experiments_log.txt` or the stem of a name, is not left to the speed of the machine.
    """
    seen = root / "opened.json"
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            clock = SetClock(datetime(2026, 11, 1, 8, tzinfo=UTC) + timedelta(minutes=number))
            _train(root, seen, clock, keep_last=keep_last)
        finally:
            traceback.print_exc()
            os._exit(1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == KILLED, ended
    return list(json.loads(seen.read_text()))


def _train(root: Path, seen: Path, clock: SetClock, *, keep_last: int | None) -> None:
    held: list[Any] = []
    job = Job(
        recipe="open_run",
        tag=TAG,
        directory=root / TAG,
        config={"lr": 0.01},
        effects=Effects(),
        seed=0,
        keep_last=keep_last,
    )
    options = SessionOptions(every=Every(steps=SAVE_EVERY), save_every_s=None, save_beside=True, exits=True)

    def begin() -> None:
        run = launch(job, console=PlainConsole(), clock=clock, options=options)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        run.__enter__()
        run.track(model=model, optimizer=optimizer)
        data = [torch.tensor([number / 8]) for number in range(8)]
        batches = iter(run.batches(data, batch_size=2, steps=10_000))
        held.extend((run, model, optimizer, batches, next(batches)))

    began = time.perf_counter()
    seen.write_text(json.dumps(opened(begin, root / TAG)))
    (root / "began.json").write_text(json.dumps((time.perf_counter() - began) * 1e3))
    run, model, optimizer, batches, batch = held
    for _ in range(STEPS):
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(loss=1.0)
        batch = next(batches)
    run.wait_for_saves()
    os._exit(KILLED)
