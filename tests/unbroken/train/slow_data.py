"""A script that trains on data that is slow, hangs, is validated: python slow_data.py FOLDER WHAT WORKERS."""

import sys
import time
from pathlib import Path

import torch
from torch import nn

from unbroken.config import Effect, Effects
from unbroken.launch import Job
from unbroken.storage import Disk
from unbroken.train import Every, PlainConsole, launch, open_run
from unbroken.train.arguments import SessionOptions
from unbroken.train.data.one_pass import one_pass
from unbroken.train.loop.training_run import TrainingRun

FOLDER, WHAT, WORKERS = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
FOREVER_S = 1000.0


def touch(name: str) -> None:
    (FOLDER / name).touch()


class Numbers:
    def __init__(self, hangs_at: int = -1) -> None:
        self.hangs_at = hangs_at

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.hangs_at:
            touch("waiting")
            time.sleep(FOREVER_S)
        return torch.full((1,), float(index))


def slow_rename(disk: Disk, source: Path, target: Path) -> None:
    if target.name == "iter_4.pth":
        touch("waiting")
        time.sleep(2)
    RENAME(disk, source, target)


def opened() -> TrainingRun:
    """Waiting in the middle of a step, the session has less patience than others have."""
    if WHAT != "step":
        return open_run(FOLDER / "runs", tag="t", save_every=4, save_every_s=None, log_every=1)
    job = Job(
        recipe="slow", tag="t", directory=FOLDER / "runs" / "t", config={}, effects=Effects(own=Effect.DATA), seed=1
    )
    options = SessionOptions(every=Every(steps=4), log_every=1, exits=True, patience_s=2.0)
    return launch(job, console=PlainConsole(), options=options)


if WHAT == "save":
    RENAME, Disk.rename = Disk.rename, slow_rename  # type: ignore[method-assign]

with opened() as run:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    if WHAT == "loading":
        touch("waiting")
        time.sleep(FOREVER_S)
    run.track(model=model, optimizer=optimizer)
    data = Numbers(6 if WHAT in ("data", "step") else -1)
    for number, batch in enumerate(run.batches(data, batch_size=1, epochs=2, shuffle=False, workers=WORKERS), 1):
        loss = model(batch).square().mean()
        loss.backward()
        if WHAT == "step" and number % 4:
            continue
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(loss=loss)
        if WHAT == "validation" and run.step == 3:
            for _ in one_pass(Numbers(5), batch_size=1, workers=WORKERS):
                run.poll()
        if WHAT == "going":
            touch("waiting")
            time.sleep(0.05)
