"""Sessions of one tiny training, recorded request by request, and what each must leave at every instant."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.crash.faulty_disk import Crash, FaultyDisk, Request, When
from tests.crash.remains import Image, Medium, lay_out, look
from tests.hidden import APPS, TESTS, hidden
from unbroken.config import Effect, Effects
from unbroken.errors import UsageError
from unbroken.launch import Job, Start
from unbroken.storage import Disk
from unbroken.train import BatchSettings, Every, Task, Validation, fit, launch
from unbroken.train.arguments import SessionOptions
from unbroken.train.loop.training_run import TrainingRun

STEPS, SAVE_EVERY, KEEP_LAST = 8, 2, 2
SCORES = {2: 0.5, 4: 0.7, 6: 0.6, 8: 0.9}  # up, up, down, up: kept bests, replaced bests, a refused best
RUN = "run"


class Ticking:
    """A clock on which every look takes a tenth of a second, so that a session's requests are the same each time."""

    def __init__(self, began: datetime) -> None:
        self._began, self._looks = began, 0

    def now(self) -> datetime:
        self._looks += 1
        return self._began + timedelta(seconds=self._looks / 10)

    def monotonic_s(self) -> float:
        self._looks += 1
        return self._looks / 10

    def pause_s(self, seconds: float) -> None:
        self._looks += round(10 * seconds)


class Silent:
    """A console that keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: Any, line: str) -> None:
        """Not shown."""

    def close(self) -> None:
        """Nothing to undo."""


class Noisy(torch.utils.data.Dataset[torch.Tensor]):
    """Ten samples, each drawn with fresh noise from the global streams."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index / 10.0, 1.0]) + 0.1 * torch.randn(2)


def job_in(root: Path, start: Start | None = None) -> Job:
    """The launch of the tiny training in `root/run`."""
    return Job(
        recipe="tests.crash",
        tag="tiny",
        directory=root / RUN,
        config={"width": 2, "lr": 0.01},
        effects=Effects(own=Effect.DATA),
        seed=3,
        total_steps=STEPS,
        keep_last=KEEP_LAST,
        start=start or Start(),
        command="train tiny",
    )


def start_session(job: Job, disk: Disk, *, day: int) -> TrainingRun:
    """Launch; each session has a day of its own, so that names made from the clock differ."""
    return launch(
        job,
        console=Silent(),
        clock=Ticking(datetime(2025, 1, day, 12, tzinfo=UTC)),
        disk=disk,
        options=SessionOptions(every=Every(steps=SAVE_EVERY), log_every=4),
    )


def task_of(run: TrainingRun) -> Task:
    """A model of a few numbers with everything that has state: dropout, moments, schedule, evaluation."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return Task(
        model=model,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5),
        dataset=Noisy(),
        batch_size=4,
        loss=lambda batch: {"loss": model(batch).square().mean()},
        steps=STEPS,
        batches=BatchSettings(shuffle="stream"),
        validation=Validation(
            evaluate=lambda _progress, poll: {"score": SCORES[run.step]}, every=Every(steps=2), best="score"
        ),
    )


def train(job: Job, disk: Disk, *, day: int) -> None:
    """One session to its end; what other tests have imported by then stands in no record of its program."""
    with hidden(TESTS), hidden(APPS):
        _fit(start_session(job, disk, day=day))


def _fit(session: TrainingRun) -> None:
    """A function that has no variable for the disk: the loop would look at each of its requests for changes."""
    with session as run:
        if not run.finished:
            fit(run, task_of(run))


def begin_only(job: Job, disk: Disk, *, day: int) -> TrainingRun:
    """A session that ends with its first batch in hand: everything a launch changes is done."""
    # Without a step it says that nothing was trained.
    with hidden(TESTS), hidden(APPS), suppress(UsageError), start_session(job, disk, day=day) as run:
        task = task_of(run)
        run.track(**task.parts())
        if not run.finished:
            batches = run.batches(task.dataset, batch_size=4, steps=STEPS, shuffle="stream")
            next(batches, None)
            batches.close()
    return run


@dataclass(frozen=True, kw_only=True)
class Session:
    """A recorded session: what was there before, what was asked of the disk, how the job can be launched again."""

    name: str
    day: int
    before: Image
    root: Path
    requests: tuple[Request, ...]
    start: Start
    again: Start
    floor: int = 0  # the step that no later launch may fall behind, whatever this session did

    @property
    def after(self) -> Image:
        """What the whole session leaves."""
        medium = Medium(self.root, self.before)
        for request in self.requests:
            medium.apply(request)
        return medium.now()

    def at(self, number: int) -> Image:
        """What a kill before the request of that number leaves."""
        medium = Medium(self.root, self.before)
        for request in self.requests[:number]:
            medium.apply(request)
        return medium.now()

    def first(self, kind: str, ending: str) -> int:
        """The number of the first request of a kind on a path that ends so."""
        return next(
            number
            for number, request in enumerate(self.requests)
            if request.kind == kind and str(request.target or request.path).endswith(ending)
        )

    def instants(self) -> Iterator[tuple[int, str, Medium, Request | None]]:
        """Every instant: the state after each number of requests, and the request that comes next."""
        medium = Medium(self.root, self.before)
        yield 0, "before everything", medium, self.requests[0]
        for number, request in enumerate(self.requests, 1):
            medium.apply(request)
            yield number, str(request), medium, self.requests[number] if number < len(self.requests) else None


def record(
    name: str,
    folder: Path,
    *,
    day: int,
    before: Image | None = None,
    start: Start | None = None,
    again: Start | None = None,
    floor: int = 0,
) -> Session:
    """Run one session without faults and keep its requests; the model of the disk must agree with the disk."""
    root = folder / name
    lay_out(before or {}, root)
    disk = FaultyDisk()
    train(job_in(root, relocated(start or Start(), root)), disk, day=day)
    session = Session(
        name=name,
        day=day,
        before=before or {},
        root=root,
        requests=tuple(disk.requests),
        start=start or Start(),
        again=again or start or Start(),
        floor=floor,
    )
    assert without_lock(session.after) == without_lock(look(root))
    return session


def crash(session: Session, folder: Path, number: int, when: When) -> Image:
    """Run a session again until it really dies at a request; what it leaves."""
    root = folder / session.name
    lay_out(session.before, root)
    disk = FaultyDisk(crash_at=number, when=when)
    with pytest.raises(Crash):
        train(job_in(root, relocated(session.start, root)), disk, day=session.day)
    assert disk.dead
    disk.bury()
    gc.collect()  # lets go of the lock, as the death of a process does
    return look(root)


def without_lock(image: Image) -> dict[str, Any]:
    """The image without the lock file, which is made past the disk."""
    return {name: content for name, content in image.items() if not name.endswith("/lock")}


def damaged(image: Image, name: str) -> Image:
    """The image with one byte of a file changed."""
    content = image[name]
    assert isinstance(content, bytes)
    middle = len(content) // 2
    return {**image, name: content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]}


def relocated(start: Start, root: Path) -> Start:
    """The same wishes for the run in `root`: a relative `exact` is a name in the run's folder."""
    return replace(start, exact=root / RUN / start.exact) if start.exact else start
