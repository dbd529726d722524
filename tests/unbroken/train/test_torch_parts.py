"""Every optimizer and schedule that torch ships, and every random generator, survives a checkpoint bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as lr

from unbroken.storage import Disk
from unbroken.train.state import parts
from unbroken.train.state.serialise import read_tree, write_tree

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "Adam amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01),
    "Adamax": lambda p: optim.Adamax(p, lr=0.01),
    "NAdam": lambda p: optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: optim.RAdam(p, lr=0.01),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.05),
    "Adadelta": lambda p: optim.Adadelta(p, lr=0.5),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "Rprop": lambda p: optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: optim.ASGD(p, lr=0.05),
    "Adafactor": lambda p: optim.Adafactor(p, lr=0.05),
    "LBFGS": lambda p: optim.LBFGS(p, lr=0.1, history_size=3),
}

SCHEDULES: dict[str, Callable[[optim.Optimizer], Any]] = {
    "StepLR": lambda o: lr.StepLR(o, step_size=3),
    "MultiStepLR": lambda o: lr.MultiStepLR(o, milestones=[2, 4, 4, 7]),
    "ConstantLR": lambda o: lr.ConstantLR(o, total_iters=6),
    "LinearLR": lambda o: lr.LinearLR(o, total_iters=8),
    "ExponentialLR": lambda o: lr.ExponentialLR(o, gamma=0.9),
    "PolynomialLR": lambda o: lr.PolynomialLR(o, total_iters=9, power=2.0),
    "CosineAnnealingLR": lambda o: lr.CosineAnnealingLR(o, T_max=10),
    "CosineAnnealingWarmRestarts": lambda o: lr.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2),
    "CyclicLR": lambda o: lr.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=4),
    "OneCycleLR": lambda o: lr.OneCycleLR(o, max_lr=0.1, total_steps=20),
    "LambdaLR": lambda o: lr.LambdaLR(o, lr_lambda=lambda step: 0.95**step),
    "MultiplicativeLR": lambda o: lr.MultiplicativeLR(o, lr_lambda=lambda _step: 0.95),
    "SequentialLR": lambda o: lr.SequentialLR(
        o, [lr.LinearLR(o, total_iters=3), lr.CosineAnnealingLR(o, T_max=8)], milestones=[3]
    ),
    "ChainedScheduler": lambda o: lr.ChainedScheduler([lr.LinearLR(o, total_iters=4), lr.ExponentialLR(o, gamma=0.9)]),
    "ReduceLROnPlateau": lambda o: lr.ReduceLROnPlateau(o, patience=1),
}


class Training:
    """A small regression whose every step is a function of its number."""

    def __init__(self, optimizer: str, schedule: str) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.schedule = SCHEDULES[schedule](self.optimizer)
        self.losses: list[float] = []

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))

            def closure(inputs: torch.Tensor = inputs) -> torch.Tensor:
                self.optimizer.zero_grad()
                loss = (self.model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
                loss.backward()
                return loss

            loss = self.optimizer.step(closure)
            self.losses.append(float(loss.detach()))
            plateau = isinstance(self.schedule, lr.ReduceLROnPlateau)
            self.schedule.step(*([round(float(loss.detach()), 1)] if plateau else []))


def through_a_file(training: Training, folder: Path) -> Any:
    disk = Disk()
    file = disk.create(folder / "parts.pth")
    write_tree(file, {name: parts.state_of(part) for name, part in training.parts().items()})
    disk.close(file)
    torch.load(folder / "parts.pth", weights_only=True)  # safe to open for anyone
    return read_tree(folder / "parts.pth")


CASES = [(name, "StepLR") for name in OPTIMIZERS] + [("SGD", name) for name in SCHEDULES]


@pytest.mark.parametrize(("optimizer", "schedule"), CASES, ids=[f"{a}, {b}" for a, b in CASES])
def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(tmp_path: Path, optimizer: str, schedule: str) -> None:
    whole, cut, rest = (Training(optimizer, schedule) for _ in range(3))
    whole.train(0, 12)
    cut.train(0, 5)
    saved = through_a_file(cut, tmp_path)

    parts.check(rest.parts(), saved, "file")
    parts.restore(rest.parts(), saved, "file")
    rest.train(5, 12)

    assert cut.losses + rest.losses == whole.losses
    assert [g["lr"] for g in rest.optimizer.param_groups] == [g["lr"] for g in whole.optimizer.param_groups]
    for mine, theirs in zip(rest.model.parameters(), whole.model.parameters()):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("make", [torch.Generator, lambda: np.random.default_rng(3), lambda: random.Random(3)])
def test_a_random_generator_can_be_a_part(tmp_path: Path, make: Callable[[], Any]) -> None:
    def draw(generator: Any) -> Any:
        if isinstance(generator, torch.Generator):
            return torch.rand(3, generator=generator).tolist()
        return [generator.random() for _ in range(3)]

    generator, other = make(), make()
    draw(generator)
    disk = Disk()
    file = disk.create(tmp_path / "generator.pth")
    write_tree(file, {"generator": parts.state_of(generator)})
    disk.close(file)
    expected = draw(generator)

    parts.require_part("generator", other)
    parts.restore({"generator": other}, read_tree(tmp_path / "generator.pth"), "file")

    assert draw(other) == expected
