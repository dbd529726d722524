"""What a step leaves on a device is not waited for: many steps are fetched together, and recorded to the last bit.

There is no device where these tests run: a kind of tensor that says it is elsewhere stands for one, and counts how
often its values are asked for. All that is done on it is done on the CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from unbroken.train import open_run

ELSEWHERE = torch.device("meta")


class Elsewhere(torch.Tensor):
    """A tensor on a device."""

    waits = 0  # how often one was waited for
    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=ELSEWHERE)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        here = tree_map(lambda each: each.inner if isinstance(each, Elsewhere) else each, args)
        if function is torch.ops.aten._local_scalar_dense.default:
            Elsewhere.waits += 1
            return function(*here)
        if function is torch.ops.aten._to_copy.default:
            Elsewhere.waits += 1
            return function(*here, **kwargs)
        made = function(*here, **kwargs)
        return tree_map(lambda each: Elsewhere(each) if isinstance(each, torch.Tensor) else each, made)


def train(folder: Path, *, steps: int, wrap: Any, log_every: int = 50, save_every: int | None = None) -> Path:
    torch.manual_seed(0)
    with open_run(folder, tag="t", save_every=save_every, save_every_s=None, log_every=log_every) as run:
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        for _step in run.steps(steps):
            for part in (0, 1):
                loss = model(torch.randn(4, 3)).square().mean() / 3
                loss.backward()
                run.log(loss=wrap(loss.detach()), part=wrap(torch.tensor(part)), half=wrap(loss.detach().bfloat16()))
            optimizer.step()
            optimizer.zero_grad()
            run.log(plain=0.1)
    return folder / "t"


def recorded(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "unbroken" / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "session"} for line in lines]


@pytest.fixture(autouse=True)
def _none_yet() -> None:
    Elsewhere.waits = 0


def test_the_values_of_many_steps_are_fetched_together_and_are_the_same(tmp_path: Path) -> None:
    ours = recorded(train(tmp_path / "elsewhere", steps=100, wrap=Elsewhere))
    assert 0 < Elsewhere.waits <= 150  # three types of numbers each time; of 600 values
    assert ours == recorded(train(tmp_path / "here", steps=100, wrap=lambda value: value))
    assert [line["step"] for line in ours] == [*range(1, 101)]


def test_before_a_save_all_is_recorded(tmp_path: Path) -> None:
    def wrap(value: torch.Tensor) -> torch.Tensor:
        done = tmp_path / "t" / "iter_30.pth"
        if done.exists():
            lines = (tmp_path / "t" / "unbroken" / "metrics.jsonl").read_text().splitlines()
            assert len(lines) >= 30
            raise KeyboardInterrupt
        return Elsewhere(value)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, steps=1000, wrap=wrap, save_every=30)


def test_a_loop_that_fails_leaves_the_record_of_its_whole_steps(tmp_path: Path) -> None:
    calls = iter(range(1000))

    def wrap(value: torch.Tensor) -> torch.Tensor:
        if next(calls) >= 6 * 7:
            raise ValueError("no more")
        return Elsewhere(value)

    with pytest.raises(ValueError, match="no more"):
        train(tmp_path, steps=100, wrap=wrap)
    assert [line["step"] for line in recorded(tmp_path / "t")] == [*range(1, 8)]
