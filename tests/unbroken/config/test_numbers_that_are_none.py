"""Values that are no ordinary numbers: nan is itself, and a config that holds it has not changed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from unbroken.config import Effects, changes, differences, same
from unbroken.config.effect import Effect
from unbroken.launch import Resume
from unbroken.train import TrainingRun, open_run


def odd() -> dict[str, Any]:
    """A config of such values, each made anew: one nan is not another, as an object."""
    nan, inf = float("nan"), float("inf")
    return {
        "nan": nan, "inf": inf, "minus": -inf, "zero": -0.0, "tiny": 5e-324, "huge": 10**30, "pair": (1, nan),
        "list": [nan, {"type": "a", "value": nan}], "pipeline": [{"type": "a", "value": nan}, {"type": nan}],
        "section": {"below": {"nan": nan, "inf": [inf, [nan]]}},
    }  # fmt: skip


def test_nan_is_itself_wherever_it_stands() -> None:
    assert same(odd(), odd()) and not changes(odd(), odd(), Effects(own=Effect.SHAPE)) and not differences([odd()] * 2)
    assert not differences([odd(), odd()])


@pytest.mark.parametrize("other", [0.0, math.inf, None, "nan", True])
def test_nan_is_nothing_else(other: object) -> None:
    assert not same(math.nan, other) and not same(other, math.nan)
    assert [change.key for change in changes({"a": math.nan}, {"a": other}, Effects(own=Effect.DATA))] == ["a"]


def session(root: Path, steps: int, *, tag: str = "odd") -> TrainingRun:
    """One session of a loop whose config holds such values."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    effects = dict.fromkeys(odd(), "shape") | {"steps": "free"}
    with open_run(root, tag=tag, config={**odd(), "steps": steps}, effects=effects) as run:
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(torch.arange(16.0).view(8, 2), batch_size=2, steps=steps):
            optimizer.zero_grad()
            loss = model(batch).mean()
            loss.backward()
            optimizer.step()
            run.end_step(loss=loss)
    return run


def test_a_resume_under_the_same_odd_config_reports_no_change(tmp_path: Path) -> None:
    session(tmp_path, 1)
    resumed = session(tmp_path, 2)
    assert isinstance(resumed.plan, Resume) and resumed.step == 2
    assert [change.key for change in resumed.plan.changes] == ["steps"]


def test_a_run_of_the_same_odd_config_beside_it_is_recognised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(tmp_path, 1)
    session(tmp_path, 1, tag="oddd")
    assert "tag `odd` has this config" in capsys.readouterr().out
