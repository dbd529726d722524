"""Gradients that a loop leaves to the next step are part of the state, those that it sets to zero first are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unbroken.train.sessions_of_loops import Loop, cut, difference, said, train
from unbroken.train import TrainingRun, read_checkpoint

Begin = Callable[[torch.optim.Optimizer, int], None]  # what stands before the backward pass of a step


def over(begin: Begin, *, fade: float = 1.0) -> Loop:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(torch.arange(24), batch_size=2, workers=workers, epochs=1):
            loss = model(batch.reshape(-1, 1).float().sin()).square().mean()
            begin(optimizer, run.step)
            loss.backward()
            optimizer.step()
            for weight in model.parameters():
                if fade != 1.0 and weight.grad is not None:
                    weight.grad.mul_(fade)
            run.log(loss=loss)
            yield

    return loop


def never(_optimizer: torch.optim.Optimizer, _step: int) -> None: ...


def every_third(optimizer: torch.optim.Optimizer, step: int) -> None:
    if step % 3 == 0:
        optimizer.zero_grad()


def to_none(optimizer: torch.optim.Optimizer, _step: int) -> None:
    optimizer.zero_grad()


def to_zero(optimizer: torch.optim.Optimizer, _step: int) -> None:
    optimizer.zero_grad(set_to_none=False)


@pytest.mark.parametrize("loop", [over(never), over(never, fade=0.5), over(every_third)], ids=["all", "fade", "third"])
def test_what_each_step_adds_to_comes_back(tmp_path: Path, loop: Loop) -> None:
    """To forget `zero_grad` is a mistake that many scripts have, and no reason to train another model after a kill."""
    assert train(tmp_path / "peace", loop, workers=0) == 0, said(tmp_path / "peace")
    cut(tmp_path / "cut", loop, workers=(2, 0, 2))
    assert not (found := difference(tmp_path / "peace", tmp_path / "cut")), (found, said(tmp_path / "cut"))


@pytest.mark.parametrize("begin", [to_none, to_zero])
def test_gradients_that_the_next_step_begins_anew_are_in_no_checkpoint(tmp_path: Path, begin: Begin) -> None:
    assert train(tmp_path / "run", over(begin), workers=0) == 0, said(tmp_path / "run")
    assert not read_checkpoint(tmp_path / "run/t/iter_6.pth")["unbroken"].get("gradients")
    assert train(tmp_path / "adds", over(never), workers=0) == 0
    assert read_checkpoint(tmp_path / "adds/t/iter_6.pth")["unbroken"]["gradients"]
