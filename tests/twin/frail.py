"""A recipe whose training goes wrong as it is told: it runs out of memory, loses its numbers, crashes for good.

python -m unbroken train tests.twin.frail:frail RUN --crash segv@5 --times 1 ...
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unbroken import Job, OptionParser, Recipe, accidents, add_common_options, processes, saves, start_from
from unbroken.config import Effect, Effects
from unbroken.journal import read_events
from unbroken.launch import Environment, LaunchOptions
from unbroken.train import GradientSettings, Task

SIZE, STEPS, SAVE_EVERY = 20, 16, 3


class Samples:
    """Points of a line with noise of their own in each epoch; some may be no number, or end the process."""

    def __init__(self, bad: frozenset[int], deadly: int | None) -> None:
        self._bad, self._deadly = bad, deadly

    def __len__(self) -> int:
        return SIZE

    def sample(self, index: int, chance: np.random.Generator) -> Tensor:
        if index == self._deadly:
            os.kill(os.getpid(), signal.SIGSEGV)
        x = torch.from_numpy(chance.normal(index / SIZE, 0.1, 5).astype(np.float32))
        return x * float("nan") if index in self._bad else x


class Network(nn.Module):
    """A layer, perhaps normalised over the batch, perhaps with dropout, and a layer; memory for `most` samples."""

    def __init__(self, *, norm: bool, dropout: float) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 1)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.seen: list[int] = []

    def forward(self, x_BC: Tensor) -> Tensor:
        out: Tensor = self.two(self.dropout(torch.relu(self.norm(self.one(x_BC)))))
        return out


@dataclass
class Trouble:
    """What goes wrong in which step; how often in all is counted in a file, which survives the process."""

    kind: str
    step: int
    times: int
    marks: Path

    def due(self, step: int) -> bool:
        if step != self.step:
            return False
        done = len(self.marks.read_text()) if self.marks.exists() else 0
        if done >= self.times:
            return False
        self.marks.parent.mkdir(parents=True, exist_ok=True)
        with self.marks.open("a") as file:
            file.write("x")
        return True

    def happen(self) -> None:
        match self.kind:
            case "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise ValueError("the training code is wrong")
            case "oom":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore words")
            case "exit":
                os._exit(int(self.marks.suffix[1:] or 3))


def wait_for_save(run: Path, step: int) -> None:
    """A save is written beside the training, which may be faster; a crash that waits finds the same each time."""
    journal = run / "unbroken" / "journal.jsonl"
    while not any(event["event"] == "saved" and event["step"] == step for event in read_events(journal)):
        time.sleep(0.005)


def leave_room(megabytes: int) -> None:
    """Let the operating system refuse this process more than so much beyond what it has: a real lack of memory."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20, resource.RLIM_INFINITY))


def read(arguments: Sequence[str], environment: Environment) -> Job:
    found = OptionParser(prog="frail", allow_abbrev=False)
    found.add_argument("run", type=Path)
    found.add_argument("--steps", type=int, default=STEPS)
    found.add_argument("--batch", type=int, default=4)
    found.add_argument("--accumulate", type=int, default=1)
    found.add_argument("--workers", type=int, default=0)
    found.add_argument("--no-norm", action="store_true")
    found.add_argument("--dropout", type=float, default=0.0)
    found.add_argument("--memory", type=int, default=10**9, help="samples that fit at once")
    found.add_argument("--memory-from", type=int, default=1, help="... from this step on")
    found.add_argument("--room", type=int, default=0, help="MB that this process may still take; a sample needs 300")
    found.add_argument("--bad", type=int, action="append", default=[], help="a sample that is no number")
    found.add_argument("--deadly", type=int, help="a sample whose reading ends the process")
    found.add_argument("--lr", type=float, default=0.05)
    found.add_argument("--crash", default="", help="KIND@STEP: segv, kill, raise, oom, exit")
    found.add_argument("--times", type=int, default=1)
    found.add_argument("--slow", type=float, default=0.0, help="seconds of a step")
    add_common_options(found)
    options = found.parse_args(list(arguments))
    config = {key: getattr(options, key) for key in ("batch", "accumulate", "no_norm", "dropout", "lr")}
    return Job(
        recipe="frail",
        tag=options.tag or "frail",
        directory=options.run,
        config=config,
        effects=Effects(own=Effect.DATA),
        seed=5,
        total_steps=options.steps,
        samples_per_step=options.batch * options.accumulate,
        micro_batches=options.accumulate,
        start=start_from(options, environment),
        backup=options.backup,
        task="tests.twin.frail:build",
        options=LaunchOptions(
            **saves(options, steps=SAVE_EVERY),
            log_every=1,
            accidents=accidents(options),
            processes=processes(options),
            own=options,
        ),
        command=environment.command,
        environment=environment,
    )


def build(job: Job, _say: Callable[[str], None]) -> Task:
    asked: argparse.Namespace = job.options.own
    model = Network(norm=not asked.no_norm, dropout=asked.dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=asked.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step / 10))
    kind, _, at = asked.crash.partition("@")
    if asked.room:
        leave_room(asked.room)
    trouble = Trouble(kind, int(at or 0), asked.times, asked.run.with_suffix(".marks"))

    first_step = 0

    def loss(x_BC: Tensor) -> dict[str, Tensor]:
        nonlocal first_step
        step = schedule.last_epoch + 1
        first_step = first_step or step
        if asked.room:
            large = x_BC.sum(1, keepdim=True).repeat(1, 25_000_000)  # 100 MB a sample, and as much again twice
            x_BC = x_BC + 0 * (large * 2.0).mean(1, keepdim=True)
        out = model(x_BC)
        if asked.slow:
            time.sleep(asked.slow)
        if trouble.due(step):
            every = asked.save_every or SAVE_EVERY
            saved = (step - 1) // every * every
            if saved >= first_step and kind in ("segv", "kill", "exit"):
                wait_for_save(asked.run, saved)
            trouble.happen()
        if len(x_BC) > asked.memory and step >= asked.memory_from:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore words")
        return {"loss": (out - x_BC.sum(1, keepdim=True)).square().mean(), "size": torch.tensor(float(len(x_BC)))}

    return Task(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        dataset=Samples(frozenset(asked.bad), asked.deadly),
        batch_size=asked.batch,
        accumulate=asked.accumulate,
        workers=asked.workers,
        loss=loss,
        steps=asked.steps,
        gradients=GradientSettings(clip_norm=5.0),
    )


frail = Recipe(name="frail", read=read, usage=lambda: "")
