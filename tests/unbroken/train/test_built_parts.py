"""Layers that are added or replaced after `run.track`: refused before the loop, named at the save in mid-run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unbroken.errors import UsageError
from unbroken.train import Exit, open_run, read_checkpoint

Change = Callable[[Any, torch.optim.Optimizer], object]


def another_head(model: Any, optimizer: torch.optim.Optimizer) -> None:
    model[1] = nn.Linear(2, 1)


def an_adapter(model: Any, optimizer: torch.optim.Optimizer) -> None:
    model.append(nn.Linear(1, 1))
    optimizer.add_param_group({"params": [*model[2].parameters()]})


def a_norm_less(model: Any, optimizer: torch.optim.Optimizer) -> None:
    model[0].register_parameter("bias", None)


WORDS = {another_head: "1.weight, 1.bias is another one", an_adapter: "came later", a_norm_less: "0.bias went away"}


def session(
    folder: Path, *, before: Change | None = None, after: Change | None = None, mid: Change | None = None
) -> Any:
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with open_run(folder, tag="t", save_every=1, save_every_s=None) as run:
        if before is not None and run.step >= 2:
            before(model, optimizer)
        run.track(model=model, optimizer=optimizer)
        if after is not None:
            after(model, optimizer)
        for step in run.steps(6):
            if mid is not None and step == 2:
                mid(model, optimizer)
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if run.step == 3 and mid is not None:
                run.stop("the test")
    return read_checkpoint(folder / "t/iter_6.pth")["state_dict"]


@pytest.mark.parametrize("change", WORDS)
def test_what_is_changed_between_track_and_the_loop_is_refused_before_anything_is_written(
    tmp_path: Path, change: Change
) -> None:
    with pytest.raises(Exit) as refused:
        session(tmp_path, after=change)
    assert refused.value.code == UsageError.exit_code
    said = str(refused.value.__cause__)
    assert "is not what it was when it was tracked" in said and WORDS[change] in said, said
    assert not [*tmp_path.rglob("*.pth")]


@pytest.mark.parametrize("change", WORDS)
def test_what_is_changed_in_mid_run_is_named_once_at_its_save_and_goes_on_where_it_is_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change
) -> None:
    with pytest.raises(Exit):
        session(tmp_path, mid=change)
    out = capsys.readouterr().out
    said = [line for line in out.splitlines() if "`model` is not what it was" in line]
    assert len(said) == 1 and WORDS[change] in said[0] and "where run.step tells how far the run is" in said[0], out
    saved = session(tmp_path, before=change)
    assert ("2.weight" in saved) is (change is an_adapter) and ("0.bias" in saved) is (change is not a_norm_less)
