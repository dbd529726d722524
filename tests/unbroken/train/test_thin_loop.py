"""What a step of an own loop costs, counted and not timed: the calls that it makes beside those of the bare loop."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

from unbroken.train import open_run

SAMPLES, BATCH, STEPS = 4096, 16, 10


class Quiet:
    """A console that shows nothing."""

    def say(self, line: str) -> None: ...

    def step(self, report: object, line: str) -> None: ...

    def close(self) -> None: ...


class Points:
    """Samples made beforehand."""

    x = torch.ones(SAMPLES, 4)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.x[index]


def loop(folder: Path, kind: str) -> Generator[None, None, None]:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with open_run(folder, tag=kind, save_every_s=None, log_every=10**6, console=Quiet()) as run:
        run.track(model=model, optimizer=optimizer)
        batch = torch.ones(BATCH, 4)
        steps = run.steps(10**6) if kind == "steps" else run.batches(Points(), batch_size=BATCH, epochs=1)
        for given in steps:
            loss = model(batch if kind == "steps" else given).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.log(loss=loss)
            yield


def calls_of(steps: Iterator[None]) -> Counter[str]:
    """The functions of ours, and of the standard library, that some steps call: torch's own are no part of it."""
    calls = Counter[str]()

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and "torch" not in frame.f_code.co_filename:
            calls[frame.f_code.co_qualname] += 1

    for _ in islice(steps, 50):  # the first samples show what they draw from
        pass
    sys.setprofile(count)
    try:
        for _ in islice(steps, STEPS):
            pass
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(("kind", "most"), [("steps", 105), ("batches", 160)])
def test_a_step_makes_few_calls_besides_those_of_its_loop(tmp_path: Path, kind: str, most: int) -> None:
    with closing(loop(tmp_path, kind)) as steps:
        assert calls_of(steps).total() / STEPS <= most


@pytest.mark.parametrize("kind", ["steps", "batches"])
def test_the_streams_are_begun_once_for_a_step_and_for_reading_its_batch(tmp_path: Path, kind: str) -> None:
    with closing(loop(tmp_path, kind)) as steps:
        assert calls_of(steps)["_seed_python"] == STEPS
