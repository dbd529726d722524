"""The values that a tracked dict or deque holds come back as what they were, or are refused when they are tracked."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.unbroken.train.restored_trainings import CUT, Bfloat, Training, cut, inputs, refusal, require_exact, session
from unbroken.errors import UsageError
from unbroken.train.state.parts import require_part

VALUES = [
    np.float32(0.1),
    np.float64(0.1),
    np.float16(-0.0),
    np.int64(-3),
    np.uint8(200),
    np.bool_(True),
    deque([1, np.float32(2.5), torch.ones(2)], maxlen=3),
    deque([deque([1])]),
    frozenset({1, ("a", 2.5)}),
    {1, 2},
    (np.float32(0.1), [np.int8(1)]),
]


@pytest.mark.parametrize("key", ["kept", "scheduler"])  # of ours, and of other tools
def test_what_a_tracked_dict_holds_comes_back_as_the_type_it_was_to_the_bit(tmp_path: Path, key: str) -> None:
    class Holding(Bfloat):
        def __init__(self, values: Any) -> None:
            super().__init__()
            self.kept: dict[str, Any] = {"values": values}

        def parts(self) -> dict[str, Any]:
            return {key: self.kept, **super().parts()}

    rest = Holding(None)
    cut(tmp_path, Holding(VALUES))
    session(tmp_path, rest)
    back = rest.kept["values"]
    assert repr(back) == repr(VALUES)
    assert [*map(type, back)] == [*map(type, VALUES)]
    assert [*map(type, (back[6][1], back[10][0], back[10][1][0]))] == [np.float32, np.float32, np.int8]
    (file, *_) = (path for path in (tmp_path / "t").glob("iter_*.pth"))
    torch.load(file, weights_only=True)  # safe to open for anyone


@pytest.mark.parametrize(
    "value",
    [
        datetime.date(2026, 11, 30),
        datetime.timedelta(1),
        np.datetime64("2026-11-30"),
        np.longdouble(1),
        1j,
        b"bytes",
        {np.int64(1): 2},
        {np.float32(0.1)},
        np.arange(2, dtype=">i4"),
        torch.eye(2).to_sparse(),
        nn.Linear(1, 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_come_back_as_it_was_is_refused_by_its_place_when_it_is_tracked(value: Any) -> None:
    with pytest.raises(UsageError, match=r"kept\.deep\.other(\[1\])?: "):
        require_part("kept", {"deep": {"other": [0, value]}})


class Twice(Bfloat):
    def track(self, run: Any) -> None:
        super().track(run)
        run.track(model=nn.Linear(1, 1))


class Late(Bfloat):
    def track(self, run: Any) -> None:
        super().track(run)
        self.run = run

    def step(self, number: int) -> None:
        super().step(number)
        if number == 1:
            self.run.track(ema=torch.optim.swa_utils.AveragedModel(self.model))


class Lazy(Bfloat):
    def track(self, run: Any) -> None:
        run.track(model=nn.Sequential(nn.LazyLinear(3)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Twice, "run.track: `model` is tracked already, and would be lost"),
        (Late, "run.track: `ema` is tracked after the loop began"),
        (Lazy, "model: it has lazy layers, whose shapes are not known yet"),
    ],
)
def test_what_no_later_session_could_restore_is_refused_at_once(
    tmp_path: Path, make: Callable[[], Training], words: str
) -> None:
    assert words in refusal(tmp_path, make())


class Remembering(Bfloat):
    """What it saw is kept in a deque that is tracked as it is, as a replay memory is; one entry is trained."""

    def __init__(self, capacity: int = 4) -> None:
        super().__init__()
        self.memory: deque[Any] = deque([torch.ones(4, requires_grad=True)], maxlen=capacity)
        self.first = self.memory[0]

    def parts(self) -> dict[str, Any]:
        return {**super().parts(), "memory": self.memory}

    def step(self, number: int) -> None:
        super().step(number)
        if number < CUT - 1:
            self.memory.append((inputs(number).mean(), np.float32(number)))
        with torch.no_grad():
            self.first += self.memory[-1][0] * number

    def at_end(self) -> list[torch.Tensor]:
        return [*super().at_end(), self.first, *(each for each, _ in [*self.memory][1:])]


def test_a_deque_is_tracked_as_it_is_and_filled_in_place(tmp_path: Path) -> None:
    require_exact(tmp_path, Remembering)
    cut(tmp_path / "other", Remembering())
    said = refusal(tmp_path / "other", Remembering(capacity=5))
    assert "memory: expected a deque of at most 5, found a deque of at most 4" in said


def test_a_trained_tensor_in_a_deque_in_another_form_is_refused_by_its_place(tmp_path: Path) -> None:
    cut(tmp_path, Remembering())
    other = Remembering()
    other.memory[0] = torch.ones(3, requires_grad=True)
    assert "memory[0]: expected (3,) float32, found (4,) float32" in refusal(tmp_path, other)
