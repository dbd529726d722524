"""What a resumed session says of its state is, to the last bit, what the session before it saved, wherever it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
        run.track(**training.parts())
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


def test_moments_keep_the_type_they_were_saved_in_beside_weights_of_another(tmp_path: Path) -> None:
    require_exact(tmp_path, Bfloat)


class Temperature(Training):
    """A temperature that is learned, as in soft actor-critic: in a variable, in an optimizer and in a tracked dict."""

    def __init__(self) -> None:
        super().__init__()
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.offset = nn.Parameter(torch.zeros(3))
        self.mean, self.power, self.seen = torch.zeros(4), np.zeros(4), defaultdict[str, int](int)
        self.optimizer = torch.optim.Adam([self.log_alpha, self.offset], lr=0.1)
        self.kept: dict[str, Any] = {
            "log_alpha": self.log_alpha,
            "deep": {"rows": [self.offset, (self.mean, self.power)]},
            "seen": self.seen,
            "grows": torch.zeros(0),
            "best": self.model.state_dict(),
        }

    def parts(self) -> dict[str, Any]:
        return {"kept": self.kept, "model": self.model, "temperature": self.optimizer}

    def step(self, number: int) -> None:
        self.optimizer.zero_grad()
        (
            self.log_alpha.exp() * inputs(number).sum() + (self.offset * self.log_alpha).sum() + self.mean.sum()
        ).backward()
        self.optimizer.step()
        self.mean.lerp_(inputs(number).mean(0), 0.1)
        self.power += inputs(number).square().mean(0).numpy()
        self.seen[f"step {number}"] += 1
        self.kept["grows"] = torch.cat([self.kept["grows"], self.mean])
        if number == CUT - 1:
            self.kept["best"] = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        with torch.no_grad():
            next(self.model.parameters()).add_(float(self.mean.sum()))

    def at_end(self) -> list[torch.Tensor]:
        own = [self.log_alpha, self.offset, self.mean, torch.from_numpy(self.power), self.kept["grows"]]
        return [*super().at_end(), *(each.detach() for each in own), *self.kept["best"].values()]


def test_a_tensor_in_a_tracked_dict_is_filled_so_that_its_variable_and_its_optimizer_have_it(tmp_path: Path) -> None:
    require_exact(tmp_path, Temperature)


def test_what_is_filled_stays_the_object_that_it_was(tmp_path: Path) -> None:
    cut(tmp_path, Temperature())
    rest = Temperature()
    session(tmp_path, rest)
    assert rest.kept["log_alpha"] is rest.log_alpha and rest.log_alpha.requires_grad
    assert rest.kept["deep"]["rows"][0] is rest.offset and rest.kept["seen"] is rest.seen
    assert rest.seen == {f"step {number}": 1 for number in range(STEPS)}


@pytest.mark.parametrize("other", [torch.zeros(2, requires_grad=True), torch.zeros(1).double().requires_grad_()])
def test_a_trained_tensor_of_a_dict_in_another_form_is_refused_by_its_place(
    tmp_path: Path, other: torch.Tensor
) -> None:
    cut(tmp_path, Temperature())
    rest = Temperature()
    rest.kept["log_alpha"] = other
    assert re.search(r"kept\.log_alpha: expected .*, found \(1,\) float32", refusal(tmp_path, rest))
    assert not float(other.detach().sum()) and not float(rest.offset.detach().sum())


class Centring(nn.Module):
    """A running mean that is no part of the `state_dict`, a mask that is a view, and a cache that comes with use."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4), persistent=False)
        self.register_buffer("mask", torch.ones(1).expand(4), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "peak"):
            self.register_buffer("peak", torch.zeros(4), persistent=False)
        self.mean.lerp_(values.mean(0), 0.1)
        self.peak = torch.maximum(self.peak, values.amax(0))
        return (values - self.mean) * self.mask / (1 + self.peak)


class Centred(Training):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(Centring(), self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.mean = self.model[0].mean

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer}

    def step(self, number: int) -> None:
        self.optimizer.zero_grad()
        self.model(inputs(number)).square().mean().backward()
        self.optimizer.step()

    def at_end(self) -> list[torch.Tensor]:
        return [*super().at_end(), self.mean.clone()]


def test_buffers_that_are_not_persistent_are_part_of_the_state(tmp_path: Path) -> None:
    said = require_exact(tmp_path, Centred)
    assert not any("persistent" in line for line in said)


def test_a_state_dict_under_the_keys_of_other_tools_stays_as_the_module_gives_it(tmp_path: Path) -> None:
    cut(tmp_path, Centred())
    (file,) = (path for path in (tmp_path / "t").glob("iter_*.pth"))
    assert list(torch.load(file, weights_only=True)["state_dict"]) == list(Centred().model.state_dict())


def test_a_buffer_that_the_module_has_no_place_for_is_refused_by_its_name(tmp_path: Path) -> None:
    cut(tmp_path, Centred())
    rest = Centred()
    rest.model[0].peak = 0.0
    assert "model.0.peak: a buffer in the checkpoint, and none here" in refusal(tmp_path, rest)
