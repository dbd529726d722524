"""CPU microseconds that a loop adds to each step, beside its peers, in one run: python benchmarks/loop_peers.py

All train the same linear model from the same data in memory, without loader workers, step a schedule and log every 50
steps. Each round gives every one of them a block of steps, in an order drawn anew, and a block of the bare loop right
before: what else the machine does falls on both. Counted is the processor time of the whole process, threads that
write included. Trainers that own their loop begin anew each round; their first steps do not count. What is not
installed is left out: pip install lightning accelerate transformers
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import os
import pstats
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from loop_overhead import Silent
from torch import nn
from torch.utils.data import DataLoader, Dataset

from unbroken.train import open_run

WIDTH, BATCH, BLOCK, WARM, ROUNDS, LOG_EVERY, SEED = 32, 16, 200, 50, 9, 50, 20261130
ENDLESS = 10**9  # steps
Block = Callable[[], float]  # the next steps; CPU microseconds of one of them


class Points(Dataset[dict[str, torch.Tensor]]):
    """Samples made beforehand; as many as no block comes to the end of."""

    def __init__(self) -> None:
        self._x = torch.randn(1024, WIDTH)

    def __len__(self) -> int:
        return 2_000_000

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self._x[index % 1024]}


class Model(nn.Module):
    """The model, with its loss inside, as the Trainer of Transformers wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.linear(x).square().mean()}


def parts() -> tuple[Model, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Model, optimizer and a schedule that is stepped after each step."""
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, ENDLESS)


def loader() -> DataLoader[dict[str, torch.Tensor]]:
    """What all but `run.batches` take their batches from."""
    return DataLoader(Points(), batch_size=BATCH, shuffle=True)


def bare() -> Iterator[None]:
    """PyTorch, and nothing else."""
    model, optimizer, schedule = parts()
    for number, batch in enumerate(loader()):
        loss = model(**batch)["loss"]
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if number % LOG_EVERY == 0:
            loss.item()
        yield


def ours(folder: Path, *, by_batches: bool) -> Iterator[None]:
    """`run.batches`, or `run.steps` with batches of a DataLoader; each step's loss is recorded."""
    model, optimizer, schedule = parts()
    tag = "batches" if by_batches else "steps"
    with open_run(folder, tag=tag, save_every_s=None, log_every=LOG_EVERY, console=Silent()) as run:
        run.track(model=model, optimizer=optimizer, schedule=schedule)
        batches = iter(()) if by_batches else iter(loader())
        for given in run.batches(Points(), batch_size=BATCH, epochs=9) if by_batches else run.steps(ENDLESS):
            loss = model(**(given if by_batches else next(batches)))["loss"]
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            run.end_step(loss=loss)
            yield


def steps_of(made: Any, model: Any, optimizer: Any, schedule: Any, batches: Any) -> Iterator[None]:
    """The bare loop with the backward pass of a library."""
    for number, batch in enumerate(batches):
        loss = model(**batch)["loss"]
        made.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if number % LOG_EVERY == 0:
            loss.item()
        yield


def fabric() -> Iterator[None]:
    """Lightning Fabric around the bare loop."""
    made = import_module("lightning.fabric").Fabric(accelerator="cpu", devices=1)
    model, optimizer, schedule = parts()
    model, optimizer = made.setup(model, optimizer)
    yield from steps_of(made, model, optimizer, schedule, made.setup_dataloaders(loader()))


def accelerate() -> Iterator[None]:
    """Accelerate around the bare loop."""
    made = import_module("accelerate").Accelerator(cpu=True)
    model, optimizer, batches, schedule = made.prepare(*parts()[:2], loader(), parts()[2])
    yield from steps_of(made, model, optimizer, schedule, batches)


class Clock:
    """Processor time between the step after the warm-up and the last."""

    def __init__(self) -> None:
        self.began, self.us = 0.0, 0.0

    def step_ends(self, done: int) -> None:
        """So many steps are done."""
        if done == WARM:
            self.began = time.process_time()
        elif done == WARM + BLOCK:
            self.us = (time.process_time() - self.began) / BLOCK * 1e6


def transformers_trainer(folder: Path) -> Block:
    """The Trainer of Transformers."""
    library, clock = import_module("transformers"), Clock()

    class Watch(library.TrainerCallback):  # type: ignore[misc, name-defined]  # loaded where it is installed
        def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
            clock.step_ends(state.global_step)

    def block() -> float:
        arguments = library.TrainingArguments(
            os.fspath(folder), max_steps=WARM + BLOCK, per_device_train_batch_size=BATCH, logging_steps=LOG_EVERY,
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, dataloader_num_workers=0,
            remove_unused_columns=False, dataloader_pin_memory=False,
        )  # fmt: skip
        model, optimizer, schedule = parts()
        trainer = library.Trainer(
            model, arguments, train_dataset=Points(), optimizers=(optimizer, schedule), callbacks=[Watch()]
        )
        trainer.remove_callback(library.PrinterCallback)
        trainer.train()
        return clock.us

    return block


def lightning_trainer(folder: Path, *, logs: bool) -> Block:
    """The Trainer of Lightning: silent, or with a logged value a step in a CSV file and its bar."""
    library, clock = import_module("lightning"), Clock()

    class Module(library.LightningModule):  # type: ignore[misc, name-defined]  # loaded where it is installed
        def __init__(self) -> None:
            super().__init__()
            self.model, self.optimizer, self.schedule = parts()

        def training_step(self, batch: Any, _number: int) -> torch.Tensor:
            loss = self.model(**batch)["loss"]
            if logs:
                self.log("loss", loss, on_step=True, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            return {"optimizer": self.optimizer, "lr_scheduler": {"scheduler": self.schedule, "interval": "step"}}

        def on_train_batch_end(self, *_: Any) -> None:
            clock.step_ends(self.global_step)

    def block() -> float:
        logger = import_module("lightning.pytorch.loggers").CSVLogger(folder) if logs else False
        trainer = library.Trainer(
            max_steps=WARM + BLOCK, accelerator="cpu", devices=1, logger=logger, log_every_n_steps=LOG_EVERY,
            enable_checkpointing=False, enable_progress_bar=logs, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        with Path(os.devnull).open("w", encoding="utf-8") as nothing, redirect_stdout(nothing):
            trainer.fit(Module(), loader())
        return clock.us

    return block


def block_us(steps: Iterator[object]) -> float:
    """Processor microseconds of each step of the next block."""
    began = time.process_time()
    for _ in islice(steps, BLOCK):
        pass
    return (time.process_time() - began) / BLOCK * 1e6


def contestants(folder: Path) -> dict[str, tuple[str, Callable[[], Block]]]:
    """By what is printed: the package that is needed, and what makes the blocks."""

    def steps(make: Callable[[], Iterator[None]]) -> Callable[[], Block]:
        return lambda: partial(block_us, make())

    return {
        "unbroken, run.batches": ("", steps(partial(ours, folder, by_batches=True))),
        "unbroken, run.steps": ("", steps(partial(ours, folder, by_batches=False))),
        "Fabric": ("lightning", steps(fabric)),
        "Accelerate": ("accelerate", steps(accelerate)),
        "Transformers Trainer": ("transformers", partial(transformers_trainer, folder)),
        "Lightning Trainer, silent": ("lightning", partial(lightning_trainer, folder, logs=False)),
        "Lightning Trainer, CSV and bar": ("lightning", partial(lightning_trainer, folder, logs=True)),
    }


def spread(values: list[float], form: str) -> str:
    """The median, and the least and the largest."""
    return f"{statistics.median(values):{form}} [{min(values):{form}}..{max(values):{form}}]"


def compare(folder: Path, rounds: int) -> None:
    """Print the table."""
    chance, blocks = random.Random(SEED), dict[str, Block]()
    for name, (package, make) in contestants(folder).items():
        if package and find_spec(package) is None:
            print(f"left out: {name} ({package} is not installed)")
        else:
            blocks[name] = make()
    plain = partial(block_us, bare())
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in blocks}
    for number in range(rounds + 1):
        for name in chance.sample(list(blocks), len(blocks)):
            pair = plain(), blocks[name]()
            if number:  # imports, first calls and the start of the trainers are in the first round
                pairs[name].append(pair)
    bares = [one for each in pairs.values() for one, _ in each]
    installed = [name for name in ("torch", "lightning", "accelerate", "transformers") if find_spec(name)]
    print(", ".join(f"{name} {version(name)}" for name in installed))
    print(f"seed {SEED}, {rounds} rounds of blocks of {BLOCK} steps; CPU microseconds a step, median [least..largest]")
    print(f"{'bare PyTorch':<32}{spread(bares, '.0f'):>22}")
    print(f"{'':<32}{'':>22}{'added to bare':>26}{'ratio':>22}")
    for name, found in pairs.items():
        whole = spread([other for _, other in found], ".0f")
        added = spread([other - one for one, other in found], "+.0f")
        print(f"{name:<32}{whole:>22}{added:>26}{spread([other / one for one, other in found], '.2f'):>22}")


def profile(folder: Path, *, by_batches: bool) -> None:
    """Print where our own time goes."""
    steps = ours(folder, by_batches=by_batches)
    block_us(steps)
    with cProfile.Profile() as profiler:
        for _ in range(5):
            block_us(steps)
    print(f"{5 * BLOCK} steps, run.{'batches' if by_batches else 'steps'}")
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--profile", choices=["batches", "steps"], help="where our own time goes, by function")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if asked.profile:
            profile(Path(folder), by_batches=asked.profile == "batches")
        else:
            compare(Path(folder), asked.rounds)


if __name__ == "__main__":
    main()
