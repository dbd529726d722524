"""What a resumed session says of its state is, to the last bit, what the session before it saved, wherever it is."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.unbroken.train.restored_trainings import (
    CUT,
    STEPS,
    Bfloat,
    Training,
    Wide,
    cut,
    inputs,
    refusal,
    require_exact,
    session,
)
from unbroken.train.state.modes import buffers_of
from unbroken.train.state.optimizer_state import parameter_names
from unbroken.train.state.parts import differences_of, state_of


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
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
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


class Grouped(Training):
    """Groups of parameters in the order of this process, which is another one in the next."""

    order = "forwards"

    def __init__(self) -> None:
        super().__init__()
        self.alpha = torch.zeros(4, 4, requires_grad=True)
        weights = [self.model[0].weight, self.model[2].weight, self.alpha]
        groups: list[dict[str, Any]] = [
            {"params": weights, "weight_decay": 0.1, "lr": 0.02},
            {"params": [self.model[0].bias, self.model[2].bias], "weight_decay": 0.0},
        ]
        for group in groups if self.order != "forwards" else ():
            group["params"].reverse()
        self.optimizer = torch.optim.AdamW(groups[::-1] if self.order == "backwards" else groups, lr=0.05)
        self.scheduler = torch.optim.lr_scheduler.SequentialLR(
            self.optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(self.optimizer),
                torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 9),
            ],
            milestones=[2],
        )

    def parts(self) -> dict[str, Any]:
        kept = {"kept": {"alpha": self.alpha}}
        return {"optimizer": self.optimizer, "scheduler": self.scheduler, **kept, "model": self.model}

    def step(self, number: int) -> None:
        self.optimizer.zero_grad()
        ((self.model(inputs(number)) @ self.alpha + self.model(inputs(number))) * 3).square().mean().backward()
        self.optimizer.step()
        self.scheduler.step()

    def at_end(self) -> list[torch.Tensor]:
        of_weights = self.optimizer.state[self.model[2].weight]
        return [*super().at_end(), self.alpha.detach(), of_weights["exp_avg"], of_weights["exp_avg_sq"]]


class OtherParameters(Grouped):
    order = "parameters"


class OtherGroups(Grouped):
    order = "backwards"


@pytest.mark.parametrize("next_process", [OtherParameters, OtherGroups])
def test_each_parameter_gets_its_own_moments_and_each_group_its_own_settings(
    tmp_path: Path, next_process: Callable[[], Grouped]
) -> None:
    peace, rest = Grouped(), next_process()
    session(tmp_path / "peace", peace)
    cut(tmp_path / "cut", Grouped())
    said = session(tmp_path / "cut", rest)
    assert all(map(torch.equal, peace.at_end(), rest.at_end()))
    assert not any("order" in line for line in said)


def test_the_state_under_the_key_of_other_tools_stays_numbered(tmp_path: Path) -> None:
    cut(tmp_path, Grouped())
    (file,) = (path for path in (tmp_path / "t").glob("iter_*.pth"))
    saved = torch.load(file, weights_only=True)
    assert [group["params"] for group in saved["optimizer"]["param_groups"]] == [[0, 1, 2], [3, 4]]
    assert saved["unbroken"]["parameter_names"] == {
        "optimizer": [["model.0.weight", "model.2.weight", "kept.alpha"], ["model.0.bias", "model.2.bias"]]
    }


def test_another_parameter_of_the_same_shape_does_not_take_the_moments_of_one(tmp_path: Path) -> None:
    def trains(layer: int) -> Training:
        training = Bfloat()
        training.optimizer = Wide([training.model[layer].weight])
        return training

    cut(tmp_path, trains(0))
    assert "optimizer: model.2.weight is trained, and in the checkpoint model.0.weight" in refusal(tmp_path, trains(2))


def test_parameters_that_moved_between_groups_of_the_same_sizes_are_refused(tmp_path: Path) -> None:
    cut(tmp_path, Grouped())
    rest = Grouped()
    first, second = rest.optimizer.param_groups
    first["params"][0], second["params"][0] = second["params"][0], first["params"][0]
    assert "optimizer: its groups have other parameters than those of the checkpoint" in refusal(tmp_path, rest)


def test_parameters_without_a_name_are_matched_by_their_order_and_that_is_said(tmp_path: Path) -> None:
    class Alone(Temperature):
        def parts(self) -> dict[str, Any]:
            return {"temperature": self.optimizer}

        def at_end(self) -> list[torch.Tensor]:
            return [state["exp_avg"] for state in self.optimizer.state.values()]

    cut(tmp_path, Alone())
    said = session(tmp_path, Alone())
    assert "temperature: 2 parameters are in nothing that is tracked: the order counts" in "\n".join(said)


def test_wrappers_of_a_module_do_not_change_the_names_of_its_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bare = parameter_names({"model": model, "optimizer": optimizer})
    assert bare == {"optimizer": [["model.0.weight", "model.0.bias"]]}
    compiled = torch.compile(model, backend="eager")
    wrapped = (nn.DataParallel(model), compiled, torch.compile(nn.DataParallel(model), backend="eager"))
    assert all(parameter_names({"model": each, "optimizer": optimizer}) == bare for each in wrapped)


class Leaky:
    """An average of one's own whose `load_state_dict` loses something of what `state_dict` gives."""

    def __init__(self, lose: Callable[[dict[str, Any]], None]) -> None:
        self.state: dict[str, Any] = {"mean": torch.zeros(3), "count": 0, "rate": 0.0, "deep": [{"x": 0.0}]}
        self.lose = lose

    def state_dict(self) -> dict[str, Any]:
        return {**self.state, "deep": [dict(self.state["deep"][0])]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)
        self.lose(self.state)


class Averaged(Bfloat):
    def __init__(self, lose: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.average = Leaky(lose)

    def parts(self) -> dict[str, Any]:
        return {"average": self.average, **super().parts()}

    def step(self, number: int) -> None:
        super().step(number)
        state = self.average.state
        self.average.state = {
            "mean": state["mean"] + 1 / 7,
            "count": state["count"] + 1,
            "rate": state["rate"] - 0.1,
            "deep": [{"x": -0.0}],
        }


@pytest.mark.parametrize(
    ("lose", "words"),
    [
        (
            lambda state: state.update(mean=state["mean"].bfloat16().float()),
            "mean to be (3,) float32, found other numbers",
        ),
        (
            lambda state: state.update(mean=state["mean"].double()),
            "mean to be (3,) float32, found a tensor, (3,) float64",
        ),
        (lambda state: state.update(count=0), "count to be 3, found 0"),
        (lambda state: state.update(rate=round(state["rate"], 4)), "rate to be -0.30000000000000004, found -0.3"),
        (lambda state: state.update(deep=[{"x": 0.0}]), "deep[0].x to be -0.0, found 0.0"),
        (lambda state: state.pop("rate"), "rate to be -0.30000000000000004, found nothing"),
    ],
)
def test_a_part_that_does_not_say_what_was_saved_is_refused_by_its_name(
    tmp_path: Path, lose: Callable[[dict[str, Any]], None], words: str
) -> None:
    cut(tmp_path, Averaged(lose))
    rest = Averaged(lose)
    before = [tensor.clone() for tensor in rest.model.parameters()]
    said = refusal(tmp_path, rest)
    assert "average does not have the state that it was given (Leaky), nothing was loaded" in said
    assert f"Expected {words}" in said
    assert all(map(torch.equal, before, rest.model.parameters())) and not rest.optimizer.state


def test_a_part_that_says_what_was_saved_and_more_is_restored(tmp_path: Path) -> None:
    cut(tmp_path, Averaged(lambda state: None))
    session(tmp_path, Averaged(lambda state: state.update(later=1)))


@pytest.mark.parametrize("make", [Bfloat, Temperature, Centred, Grouped])
def test_a_state_that_is_not_what_was_saved_is_compared_with_it(make: Callable[[], Training]) -> None:
    training = make()
    training.step(0)
    parts = training.parts()
    states = {name: copy.deepcopy((state_of(part), buffers_of(part))) for name, part in parts.items()}
    assert not any(any(differences_of(part, *states[name])) for name, part in parts.items())
    training.step(1)
    assert all(any(differences_of(part, *states[name])) for name, part in parts.items())


def test_a_schedule_that_is_made_and_tracked_after_its_optimizer_takes_no_step_at_another_rate(tmp_path: Path) -> None:
    class Late(Training):
        def __init__(self) -> None:
            super().__init__()
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.3)
            self.rates: list[torch.Tensor] = []

        def track(self, run: Any) -> None:
            run.track(model=self.model, optimizer=self.optimizer)
            self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 0.5**step)
            run.track(scheduler=self.scheduler)

        def step(self, number: int) -> None:
            self.rates.append(torch.tensor(self.optimizer.param_groups[0]["lr"]))
            self.optimizer.zero_grad()
            self.model(inputs(number)).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()

        def at_end(self) -> list[torch.Tensor]:
            return [*super().at_end(), *self.rates[-CUT:]]

    said = require_exact(tmp_path, Late)
    assert sum("restored again" in line for line in said) == 1
