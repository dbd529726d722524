"""A loop that forgets a part is found out by its repeated steps, whatever it calls its values, or if it has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unbroken.train import TrainingRun, open_run
from unbroken.train.record.probe import Probe, crc32_of


def train(folder: Path, *, tracked: bool, log: Callable[[TrainingRun, Any], None], killed_at: int | None) -> None:
    """Two networks and two optimizers; the momentum of the second one may be forgotten."""
    with open_run(folder, tag="t", save_every=5, save_every_s=None) as run:
        one, two = nn.Linear(2, 2), nn.Linear(2, 2)
        first, second = (torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in (one, two))
        run.track(one=one, two=two, first=first, **({"second": second} if tracked else {}))
        for batch in run.batches(torch.randn(40, 2), batch_size=2, steps=12):
            losses = one(batch).square().mean(), (two(batch) - 1).square().mean()
            for loss, optimizer in zip(losses, (first, second), strict=True):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            log(run, losses)
            run.wait_for_saves()
            if run.step == killed_at:
                raise KeyboardInterrupt


def unnamed(run: TrainingRun, losses: Any) -> None:
    run.end_step()


def named(run: TrainingRun, losses: Any) -> None:
    run.end_step(loss_d=losses[0], loss_g=losses[1])


@pytest.mark.parametrize("log", [named, unnamed])
@pytest.mark.parametrize("tracked", [True, False])
def test_it_is_named_what_was_compared_and_what_differs(
    tmp_path: Path, capsys: Any, tracked: bool, log: Callable[[TrainingRun, Any], None]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tracked=tracked, log=log, killed_at=8)
    train(tmp_path, tracked=tracked, log=log, killed_at=None)
    said = capsys.readouterr().out
    if tracked:
        values = "loss_d, loss_g, lr" if log is named else "lr"
        assert f"steps 6-8 replayed: bit-identical ({values} and a probe of the weights)" in said
    else:  # the losses of the first step after the save are still the same, the weights after it are not
        assert "step 6 differs from what the interrupted session recorded: a probe of the weights" in said
        assert "bit-identical" not in said


def test_the_probe_of_a_step_depends_on_what_is_trained_in_it_and_not_on_where_the_session_began() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    since_the_beginning = Probe({"model": model})
    model[0].requires_grad_(False)
    frozen = crc32_of(since_the_beginning.take())
    model[0].requires_grad_(True)  # unfrozen on the way
    assert crc32_of(since_the_beginning.take()) == crc32_of(Probe({"model": model}).take()) != frozen
