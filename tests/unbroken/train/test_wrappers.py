"""A session goes on whether its model is wrapped or not, whatever the one before did; older files with prefixes too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

from unbroken.train import open_run, read_checkpoint
from unbroken.train.state import parts
from unbroken.train.state.modes import buffers_of

STEPS, CUT = 4, 2


class Network(nn.Sequential):
    """Has a buffer that its state leaves out, in a layer that may be wrapped."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        self[2].register_buffer("seen", torch.zeros(1), persistent=False)


def within(model: nn.Sequential) -> nn.Module:
    model[2] = nn.DataParallel(model[2])
    return model


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "bare": lambda model: model,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": nn.DataParallel,
    "compiled and parallel": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    "a layer of it": within,
}
PAIRS = [
    *(("bare", each) for each in WRAPPERS),
    ("parallel", "bare"),
    ("a layer of it", "bare"),
    ("compiled", "parallel"),
]


@pytest.mark.parametrize(("first", "then"), PAIRS)
def test_a_wrapper_may_come_or_go_between_two_sessions(tmp_path: Path, first: str, then: str) -> None:
    def session(tag: str, wrapper: str, until: int) -> Network:
        model = Network()
        layer: Any = model[2]
        optimizer = optim.AdamW(model.parameters(), lr=0.1)
        wrapped = WRAPPERS[wrapper](model)
        with open_run(tmp_path, tag=tag, save_every=CUT) as run:
            run.track(model=wrapped, optimizer=optimizer)
            for step in run.steps(STEPS):
                model(torch.full((2, 3), 1.0 + step)).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                layer.seen += step
                run.end_step()
                if run.step == until:
                    break
        return model

    session("peace", "bare", STEPS)
    session("cut", first, CUT)
    session("cut", then, STEPS)
    ends = [read_checkpoint(tmp_path / tag / f"iter_{STEPS}.pth") for tag in ("peace", "cut")]
    assert [*ends[1]["state_dict"]] == [*Network().state_dict()]
    assert all(torch.equal(ends[0]["state_dict"][name], ends[1]["state_dict"][name]) for name in Network().state_dict())
    assert torch.equal(*(end["unbroken"]["buffers"]["model"]["2.seen"] for end in ends))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_orig_mod.module."])
def test_a_state_that_was_saved_with_prefixes_is_taken_all_the_same(prefix: str) -> None:
    model, other = Network(), Network(seed=1)
    state = {f"{prefix}{name}": value for name, value in other.state_dict().items()}
    parts.check({"model": model}, {"model": state}, "file")
    parts.restore({"model": model}, {"model": state}, "file", buffers={"model": buffers_of(other)}, ours=True)
    assert torch.equal(model[0].weight, other[0].weight)
