"""A training of one linear layer for `unbroken train tests.unbroken.tiny_recipe:recipe FOLDER STEPS [SEARCH ...]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unbroken import Job, Recipe
from unbroken.config import Effect, Effects
from unbroken.launch import Environment, LaunchOptions, Start
from unbroken.run import EPOCHS, ITERATIONS
from unbroken.train import Task, Validation

HERE = "tests.unbroken.tiny_recipe"


class Samples(torch.utils.data.Dataset[Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((2,), float(index))


def build(job: Job, _say: Callable[[str], None]) -> Task:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    return Task(
        model=model,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.StepLR(optimizer, 100),
        dataset=Samples(),
        batch_size=2,
        loss=lambda batch: {"loss": model(batch).square().mean()},
        steps=job.config["steps"],
        validation=Validation(evaluate=lambda _progress, _poll: {"score": 1.0}, best="score"),
    )


def read(arguments: Sequence[str], _environment: Environment) -> Job:
    folder, steps, *search = arguments
    return Job(
        recipe="tiny",
        tag="small",
        directory=Path(folder),
        config={"steps": int(steps)},
        effects=Effects(own=Effect.FREE, fields={"steps": Effects(own=Effect.SCHEDULE)}),
        seed=0,
        total_steps=int(steps),
        layout=EPOCHS if "epochs" in folder else ITERATIONS,
        task=f"{HERE}:build",
        start=Start(search=tuple(map(Path, search))),
        options=LaunchOptions(save_every=2, log_every=1),
        command="again",
    )


recipe = Recipe(name="tiny", read=read, usage=lambda: "a folder, how many steps, and where to search")
