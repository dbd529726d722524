"""The smallest whole application: `unbroken train line:recipe line.yaml`, with this folder on PYTHONPATH.

A config whose settings are typed, a command line with all options of unbroken, and a training that `fit` carries out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from unbroken import (
    Environment,
    Job,
    LaunchOptions,
    OptionParser,
    Recipe,
    accidents,
    add_common_options,
    disk_quota,
    processes,
    saves,
    session_limit,
    start_from,
)
from unbroken.config import Effect, Section, effects, read_config, set_values, validate

SAMPLES = 200


class Config(Section):
    """What may stand in the YAML file; each setting says what changing it does to a run that has weights already."""

    width: Annotated[int, Effect.SHAPE] = 32
    batch_size: Annotated[int, Effect.DATA] = 16
    lr: Annotated[float, Effect.SCHEDULE] = 0.05
    epochs: Annotated[int, Effect.SCHEDULE] = 6
    seed: Annotated[int, Effect.DATA] = 0


class Points:
    """Points of a curve, with noise of its own for each sample in each epoch: `rng` is named by both."""

    def __len__(self) -> int:
        return SAMPLES

    def sample(self, index: int, rng: Any) -> tuple[Any, Any]:
        x = rng.normal(index / SAMPLES, 0.05, 1).astype("float32")
        return x, x**2


def parser() -> OptionParser:
    found = OptionParser(prog="unbroken train line:recipe", description="Fit a curve.")
    found.add_argument("config", type=Path, metavar="CONFIG")
    found.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="change settings of the config")
    found.add_argument("--workers", type=int, default=0, metavar="N", help="loader processes")
    add_common_options(found)
    return found


def read(arguments: Sequence[str], environment: Environment) -> Job:
    """What was typed, as a job. This loads no torch: `unbroken why` answers in an instant."""
    options = parser().parse_args(list(arguments))
    file = read_config(options.config)
    checked = validate(Config, file.with_tree(set_values(file.tree, options.set)))
    config, tag = checked.value, options.tag or options.config.stem
    per_epoch = math.ceil(SAMPLES / config.batch_size)
    return Job(
        recipe="line",
        tag=tag,
        directory=Path("output") / tag,
        config=checked.canonical,
        effects=effects(Config),
        seed=config.seed,
        epochs=config.epochs,
        steps_per_epoch=per_epoch,
        total_steps=config.epochs * per_epoch,
        samples=SAMPLES,
        samples_per_step=config.batch_size,
        start=start_from(options, environment),
        limit=session_limit(options, environment),
        quota=disk_quota(options, environment),
        backup=options.backup,
        task="line:build",
        options=LaunchOptions(
            **saves(options, epochs=1),
            workers=options.workers,
            accidents=accidents(options),
            processes=processes(options),
        ),
        flags={"epochs": "set epochs"},  # how it is asked for more, and how a setting is changed here
        override="--set {key} {value}",
        command=environment.command,
        environment=environment,
    )


def build(job: Job, _say: Callable[[str], None]) -> Any:
    """What `fit` trains; here torch is loaded."""
    import torch

    from unbroken.train import Every, Task, Validation

    config = Config(**job.config)
    model = torch.nn.Sequential(torch.nn.Linear(1, config.width), torch.nn.Tanh(), torch.nn.Linear(config.width, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
    x_N1 = torch.linspace(0, 1, 50)[:, None]

    def error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (model(x) - y).square().mean()

    @torch.no_grad()
    def evaluate(_progress: Any, _poll: Callable[[], None]) -> dict[str, float]:
        return {"error": float(error(x_N1, x_N1**2))}

    return Task(
        model=model,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, job.total_steps or 1),
        dataset=Points(),
        batch_size=config.batch_size,
        epochs=config.epochs,
        workers=job.options.workers or 0,
        loss=lambda batch: {"loss": error(*batch)},
        validation=Validation(evaluate=evaluate, every=Every(epochs=1), best="error", best_is_larger=False),
    )


recipe = Recipe(name="line", read=read, usage=lambda: parser().format_help())
