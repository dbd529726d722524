"""A data set with generators of its own, killed or stopped, with one number of workers and then another."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.twin.drawing_evaluation import in_a_process
from tests.twin.killing import step_records
from unbroken.train import differences, open_run, read_checkpoint


class Noise:
    """A transform as augmentation libraries have it, with unseeded generators of two kinds."""

    def __init__(self) -> None:
        self.rng, self.chance, self.legacy = np.random.default_rng(), random.Random(), np.random.RandomState()

    def __call__(self, point: torch.Tensor) -> torch.Tensor:
        drawn = self.rng.normal() + self.chance.gauss() + self.legacy.normal()
        return point + 0.1 * float(drawn)


class Points(torch.utils.data.Dataset[torch.Tensor]):
    """Two transforms, and a generator of torch."""

    def __init__(self) -> None:
        self.transforms, self.generator = [Noise(), Noise()], torch.Generator()
        self.generator.seed()

    def __len__(self) -> int:
        return 14

    def __getitem__(self, index: int) -> torch.Tensor:
        point = torch.full((2,), index / 14) + torch.rand(2, generator=self.generator)
        for transform in self.transforms:
            point = transform(point)
        return point


def session(folder: Path, workers: int, dies_at: int = -1, by: int = 0) -> None:
    with open_run(folder, tag="t", save_every=3, save_every_s=None) as run:
        model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(Points(), batch_size=3, workers=workers, epochs=3):
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.end_step(loss=loss)
            if run.step == dies_at:
                run.wait_for_saves()
                os.kill(os.getpid(), by)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twin")
    assert in_a_process(session, folder, 0) == 0
    return folder


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("workers", [(0, 0), (2, 0), (0, 2)])
def test_it_is_exact_and_nothing_of_it_is_said_to_be_lost(
    tmp_path: Path, twin: Path, workers: tuple[int, int], by: signal.Signals, capfd: Any
) -> None:
    assert in_a_process(session, tmp_path, workers[0], 8, by) == (75 if by == signal.SIGTERM else -by)
    assert in_a_process(session, tmp_path, workers[1]) == 0
    one, other = (read_checkpoint(folder / "t" / "iter_15.pth") for folder in (tmp_path, twin))
    assert differences(one, other) == []
    assert step_records(tmp_path / "t") == step_records(twin / "t")
    assert "`dataset" not in capfd.readouterr().out
