"""Microseconds per step that `run.batches` and `run.end_step` add to a bare loop: python benchmarks/loop_overhead.py

Both loops train the same tiny linear model with one compute thread. They take turns in short blocks, and counted is the
processor time of the process that trains, not of its workers; the least of many blocks is what the loop takes where
nothing else runs. Beside other libraries, and where our time goes: loop_peers.py.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from unbroken.train import open_run

BATCH, BLOCK, BLOCKS = 16, 50, 60


class Points:
    """Samples made beforehand, so that the loop itself is what is measured."""

    def __init__(self, size: int = 1_000_000) -> None:
        self._size = size
        self._x = torch.randn(1024, 8)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._x[index % 1024]


class PointsWithOwnRandomness:
    """The same samples by the method that gets a generator of its own."""

    __init__, __len__ = Points.__init__, Points.__len__

    def sample(self, index: int, _rng: object) -> torch.Tensor:
        return self._x[index % 1024]


class Silent:
    """A console that shows nothing: printing is not what is measured."""

    def say(self, line: str) -> None: ...

    def step(self, report: object, line: str) -> None: ...

    def close(self) -> None: ...


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> torch.Tensor:
    loss = model(batch).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(8, 1)
    return model, torch.optim.SGD(model.parameters(), lr=1e-3)


def bare_steps(workers: int) -> Iterator[float]:
    model, optimizer = model_and_optimizer()
    for batch in DataLoader(Points(), batch_size=BATCH, shuffle=True, num_workers=workers):
        yield float(step_of(model, optimizer, batch).detach())


def our_steps(dataset: Points | PointsWithOwnRandomness, workers: int, folder: Path) -> Iterator[None]:
    model, optimizer = model_and_optimizer()
    with open_run(folder, tag="bench", save_every_s=None, console=Silent()) as run:
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(dataset, batch_size=BATCH, workers=workers, epochs=1):
            run.end_step(loss=step_of(model, optimizer, batch))
            yield


def block_us(steps: Iterator[object]) -> float:
    """Processor microseconds per step of the next block."""
    begin = time.process_time()
    for _ in itertools.islice(steps, BLOCK):
        pass
    return (time.process_time() - begin) / BLOCK * 1e6


def compare(name: str, dataset: Points | PointsWithOwnRandomness, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare, ours = bare_steps(workers), our_steps(dataset, workers, Path(folder))
        for _ in range(4):  # starting workers and first calls do not count
            block_us(bare), block_us(ours)
        pairs = [(block_us(bare), block_us(ours)) for _ in range(BLOCKS)]
        bare_us, ours_us = map(min, zip(*pairs))
        median = statistics.median(one - other for other, one in pairs)
        print(f"{name:<42} {bare_us:7.0f} {ours_us:7.0f} {ours_us - bare_us:+7.0f} {median:+16.0f}")
        ours.close()


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    print(f"least of {BLOCKS} alternating blocks of {BLOCK} steps, batch size {BATCH}, CPU microseconds per step")
    print(f"{'':<42} {'bare':>7} {'ours':>7} {'added':>7} {'added, median':>16}")
    compare("no workers, dataset[index]", Points(), 0)
    compare("no workers, dataset.sample(index, rng)", PointsWithOwnRandomness(), 0)
    compare("2 workers, dataset[index]", Points(), 2)
    compare("2 workers, dataset.sample(index, rng)", PointsWithOwnRandomness(), 2)


if __name__ == "__main__":
    main()
