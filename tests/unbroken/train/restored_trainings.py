"""Small trainings that are cut and resumed, and what is asked of them at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unbroken.errors import DamagedFile, Incompatible, UsageError
from unbroken.train import PlainConsole, open_run
from unbroken.train.stop import Exit

STEPS, CUT = 6, 3


class Said(PlainConsole):
    """What the sessions say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines += text.splitlines()


class Training:
    """Something with parts and a step; `at_end` is what must be equal to the bit."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

    def parts(self) -> dict[str, Any]:
        return {"model": self.model}

    def track(self, run: Any) -> None:
        run.track(**self.parts())

    def step(self, number: int) -> None:
        raise NotImplementedError

    def at_end(self) -> list[torch.Tensor]:
        return [tensor.detach().clone() for tensor in (*self.model.parameters(), *self.model.buffers())]


def inputs(number: int) -> torch.Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(number))


def session(folder: Path, training: Training, *, until: int = STEPS, console: Said | None = None) -> list[str]:
    """A session that trains up to `until`, and what it said."""
    console = console or Said()
    with open_run(folder, tag="t", save_every_s=None, console=console) as run:
        training.track(run)
        for number in run.steps(STEPS):
            training.step(number)
            run.end_step()
            if run.step == until and until < STEPS:
                run.stop("the test")
    return console.lines


def cut(folder: Path, training: Training) -> None:
    """A session that is stopped after some of the steps."""
    with pytest.raises(Exit):
        session(folder, training, until=CUT)


def refusal(folder: Path, training: Training) -> str:
    """What a session says that is refused before it trains."""
    console = Said()
    with pytest.raises(Exit) as refused:
        session(folder, training, console=console)
    assert refused.value.code in (UsageError.exit_code, DamagedFile.exit_code, Incompatible.exit_code)
    assert not any(line.startswith("resume ") for line in console.lines)
    return "\n".join(console.lines)


def require_exact(folder: Path, make: Callable[[], Training]) -> list[str]:
    """Raise unless a training that was cut ends as one in peace; what its second session said."""
    peace, rest = make(), make()
    session(folder / "peace", peace)
    cut(folder / "cut", make())
    said = session(folder / "cut", rest)
    for one, other in zip(peace.at_end(), rest.at_end(), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    return said


class Wide(torch.optim.Optimizer):
    """Momentum in float32, whatever the type of the weights; some of it in a list, as LBFGS has it."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.01})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for each in group["params"]:
                state = self.state[each]
                if not state:
                    state["m"], state["older"] = torch.zeros_like(each, dtype=torch.float32), []
                state["m"].mul_(0.9).add_(each.grad.float())
                state["older"] = [*state["older"][-2:], state["m"] / 3]
                each.sub_((group["lr"] * (state["m"] + sum(state["older"]))).to(each.dtype))


class Bfloat(Training):
    def __init__(self) -> None:
        super().__init__()
        self.model = self.model.bfloat16()
        self.optimizer = Wide(self.model.parameters())

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer}

    def step(self, number: int) -> None:
        self.optimizer.zero_grad()
        self.model(inputs(number).bfloat16()).float().square().mean().backward()
        self.optimizer.step()

    def at_end(self) -> list[torch.Tensor]:
        states = self.optimizer.state.values()
        return [*super().at_end(), *(state["m"] for state in states), *(each for s in states for each in s["older"])]
