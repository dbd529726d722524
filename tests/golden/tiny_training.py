"""A training of one linear layer, as wide and as long as the config says: what the rows of the launch table start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.golden.launch_facts import DATA_SIZE, falling_rate
from tests.golden.launch_rows import ROWS
from unbroken import Job, Recipe
from unbroken.launch import Environment
from unbroken.launch.extension import Extension
from unbroken.train import Blueprint, Task
from unbroken.train.state.parts import state_of

Config = Mapping[str, Any]
Weights = dict[str, Tensor]

weights_of_first_steps: list[Weights] = []  # one entry for each training, from just before its first step


class Rate:
    """The learning rate of a row, with the extension that is in force; its state is a list, as MMEngine keeps one."""

    def __init__(self, optimizer: torch.optim.Optimizer, lr_at: Callable[[int], float]) -> None:
        self._optimizer, self._lr_at = optimizer, lr_at
        self._extension: Extension | None = None
        self._at_seam = 0.0
        self._go_to(0)

    def step(self) -> None:
        self._go_to(self._taken + 1)

    def follow(self, step: int, extension: Extension | None) -> None:
        """Go on as the present config has it; an extension that begins here begins at the rate that was loaded."""
        if extension != self._extension:
            self._at_seam = self._optimizer.param_groups[0]["lr"]
            self._extension = extension
        self._go_to(step)

    def state_dict(self) -> list[dict[str, Any]]:
        extension = self._extension.as_plain() if self._extension else None
        return [{"_global_step": self._taken, "extension": extension, "at_seam": self._at_seam}]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        self._taken = state[0]["_global_step"]
        self._extension = Extension.from_plain(state[0].get("extension"))
        self._at_seam = state[0].get("at_seam", 0.0)

    def _go_to(self, step: int) -> None:
        self._taken = step
        rate = self._lr_at(step)
        if self._extension is not None:
            rate = self._extension.value_at(step, start=self._at_seam, scheduled=self._lr_at)
        self._optimizer.param_groups[0]["lr"] = rate


class Samples(torch.utils.data.Dataset[Tensor]):
    """The same few samples each time, as wide as the model."""

    def __init__(self, width: int) -> None:
        self._numbers = torch.randn(DATA_SIZE, width, generator=torch.Generator().manual_seed(7))

    def __len__(self) -> int:
        return DATA_SIZE

    def __getitem__(self, index: int) -> Tensor:
        return self._numbers[index]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What has a state in this training."""

    model: nn.Linear
    optimizer: torch.optim.SGD
    rate: Rate


def model_of(config: Config) -> nn.Linear:
    """The layer; `model.depth` changes nothing in it, whatever its schema says."""
    return nn.Linear(config["model"]["width"], len(config["model"]["classes"]))


def parts_of(config: Config, lr_at: Callable[[int], float]) -> Parts:
    model = model_of(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["train"]["lr"], momentum=0.9)
    return Parts(model=model, optimizer=optimizer, rate=Rate(optimizer, lr_at))


def states_after(step: int, config: Config, *, lr: float, extension: Extension | None) -> dict[str, Any]:
    """States that a training could have after `step` steps, other ones after each; `lr` is that of the next step."""
    torch.manual_seed(step)
    parts = parts_of(config, falling_rate(config, config["train"]["max_iters"]))
    parts.model(torch.randn(3, config["model"]["width"])).square().mean().backward()
    parts.optimizer.step()
    at_seam = extension.lr if extension else 0.0
    parts.rate.load_state_dict(
        [{"_global_step": step, "extension": extension.as_plain() if extension else None, "at_seam": at_seam}]
    )
    parts.optimizer.param_groups[0]["lr"] = lr
    named = {"model": parts.model, "optimizer": parts.optimizer, "scheduler": parts.rate}
    return {name: state_of(part) for name, part in named.items()}


def build(job: Job, _say: Callable[[str], None]) -> Task:
    """The task of a row's job; a script's loop has its own idea of length and rate, which is the same one."""
    steps = job.config["train"]["max_iters"]
    parts = parts_of(job.config, job.lr_at or falling_rate(job.config, steps))
    begun = False

    def loss(batch: Tensor) -> dict[str, Tensor]:
        nonlocal begun
        if not begun:
            weights_of_first_steps.append({name: value.clone() for name, value in parts.model.state_dict().items()})
            begun = True
        return {"loss": parts.model(batch).square().mean()}

    return Task(
        model=parts.model,
        optimizer=parts.optimizer,
        schedule=parts.rate,
        dataset=Samples(job.config["model"]["width"]),
        batch_size=1,
        loss=loss,
        steps=job.total_steps or steps,
        follow_config=parts.rate.follow,
    )


def blueprint(job: Job) -> Blueprint:
    """The model alone."""
    return Blueprint(model=model_of(job.config))


def read(arguments: Sequence[str], _environment: Environment) -> Job:
    """The job of the row with that number."""
    here = "tests.golden.tiny_training"
    return replace(ROWS[int(arguments[0])].job, task=f"{here}:build", blueprint=f"{here}:blueprint")


recipe = Recipe(name="row", read=read, usage=lambda: "the number of a row")
