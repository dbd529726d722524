"""What is drawn depends on the seed and on what it is for, never on what was drawn before."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.twin.drawing_evaluation import drawn, in_a_process
from tests.twin.killing import evaluations, step_records
from tests.unbroken.real_runs import rewrite
from unbroken.checkpoint import FORMAT
from unbroken.train import TrainingRun, differences, open_run, read_checkpoint

SHARED: Any = None


@pytest.fixture(autouse=True)
def generator_of_the_module() -> Iterator[None]:
    """A generator that data sets and loops share; loops of other tests would be told of one that stays."""
    globals()["SHARED"] = np.random.default_rng()
    yield
    globals()["SHARED"] = None


class Points(torch.utils.data.Dataset[torch.Tensor]):
    """Draws from the global streams, and from a generator that the loop draws from too."""

    def __len__(self) -> int:
        return 14

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((2,), index / 14) + 0.1 * torch.rand(2) + 0.1 * SHARED.random()


Loop = Callable[[TrainingRun, nn.Module, torch.optim.Optimizer, int, Callable[[], None]], None]


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> torch.Tensor:
    loss = model(batch).square().mean() * (1 + random.random() + np.random.rand() + SHARED.random())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def by_batches(
    run: TrainingRun, model: nn.Module, optimizer: torch.optim.Optimizer, workers: int, after: Callable[[], None]
) -> None:
    def evaluate() -> None:
        if run.evaluation_due(every=4):
            run.record_evaluation(error=drawn(model))

    for batch in run.batches(Points(), batch_size=3, workers=workers, epochs=3, between=evaluate):
        run.end_step(loss=learn(model, optimizer, batch))
        after()


def by_epochs(
    run: TrainingRun, model: nn.Module, optimizer: torch.optim.Optimizer, workers: int, after: Callable[[], None]
) -> None:
    points = Points()
    for _ in run.epochs(3):
        share = random.random()  # a session may begin in the middle of an epoch
        for batch in run.batches(points, batch_size=3, workers=workers):
            run.end_step(loss=learn(model, optimizer, batch * share))
            after()
        run.record_evaluation(error=drawn(model))


def in_micro_batches(
    run: TrainingRun, model: nn.Module, optimizer: torch.optim.Optimizer, workers: int, after: Callable[[], None]
) -> None:
    for number, batch in enumerate(run.batches(Points(), batch_size=2, workers=workers, epochs=3, drop_last=True)):
        loss = model(batch).square().mean() * (1 + random.random() + SHARED.random())
        loss.backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
            run.end_step(loss=loss)
            after()


def by_steps(
    run: TrainingRun, model: nn.Module, optimizer: torch.optim.Optimizer, _workers: int, after: Callable[[], None]
) -> None:
    for _ in run.steps(15):
        batch = torch.rand(3, 2) + torch.from_numpy(np.random.rand(3, 2)).float() + random.random()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(loss=loss)
        after()


def session(
    folder: Path, loop: Loop, workers: int = 0, dies_at: int = -1, by: int = 0, *, disturbed: bool = False
) -> None:
    with open_run(folder, tag="t", save_every=3, save_every_s=None) as run:
        model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
        run.track(model=model, optimizer=optimizer)

        def after() -> None:
            if disturbed and run.step % 2:
                torch.randn(run.step), np.random.normal(), random.gauss(), SHARED.random()
            if run.step == dies_at:
                run.wait_for_saves()
                os.kill(os.getpid(), by)

        loop(run, model, optimizer, workers, after)


@pytest.fixture(scope="module")
def twin_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Loop], Path]:
    """The training of a loop that nothing happens to, done once for all that is compared with it."""

    @cache
    def trained(loop: Loop) -> Path:
        folder = tmp_path_factory.mktemp("twin")
        assert in_a_process(session, folder, loop) == 0
        return folder

    return trained


def assert_twins(*folders: Path) -> None:
    runs = [folder / "t" for folder in folders]
    last = max(runs[0].glob("iter_*.pth"), key=lambda path: int(path.stem[5:])).name
    assert differences(*(read_checkpoint(run / last) for run in runs)) == []
    assert step_records(runs[0]) == step_records(runs[1])
    assert evaluations(runs[0]) == evaluations(runs[1])


@pytest.mark.parametrize("loop", [by_batches, by_epochs, in_micro_batches, by_steps])
def test_what_is_drawn_between_two_steps_disturbs_nothing(
    tmp_path: Path, twin_of: Callable[[Loop], Path], loop: Loop
) -> None:
    assert in_a_process(_disturbed, tmp_path, loop) == 0
    assert_twins(tmp_path, twin_of(loop))


def _disturbed(folder: Path, loop: Loop) -> None:
    session(folder, loop, disturbed=True)


@pytest.mark.parametrize(("loop", "workers", "by"), [
    (by_batches, (0, 2), signal.SIGKILL),
    (by_batches, (2, 0), signal.SIGTERM),
    (by_epochs, (0, 2), signal.SIGKILL),
    (in_micro_batches, (2, 0), signal.SIGKILL),
    (by_steps, (0, 0), signal.SIGTERM),
])  # fmt: skip
def test_a_resumed_session_draws_what_would_have_come(
    tmp_path: Path, twin_of: Callable[[Loop], Path], loop: Loop, workers: tuple[int, int], by: signal.Signals
) -> None:
    assert in_a_process(session, tmp_path, loop, workers[0], 7, by) == (75 if by == signal.SIGTERM else -by)
    assert in_a_process(session, tmp_path, loop, workers[1]) == 0
    assert_twins(tmp_path, twin_of(loop))


def test_each_micro_batch_draws_anew_and_a_seed_decides_what(tmp_path: Path) -> None:
    def draws(folder: Path, seed: int) -> list[Any]:
        found = []
        with open_run(folder, tag="t", seed=seed) as run:
            model = nn.Linear(2, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
            run.track(model=model, optimizer=optimizer)
            for batch in run.batches(Points(), batch_size=2, steps=6):
                found.append((random.random(), float(np.random.rand()), float(torch.rand(())), float(SHARED.random())))
                if len(found) % 2 == 0:
                    model(batch).sum().backward()
                    optimizer.step()
                    run.end_step()
        return found

    one, other, same = draws(tmp_path / "one", 1), draws(tmp_path / "other", 2), draws(tmp_path / "same", 1)
    assert one == same
    values = [value for row in one + other for value in row]
    assert len(set(values)) == len(values) == 2 * 12 * 4


def test_a_generator_that_is_tracked_keeps_its_own_sequence_in_the_loop(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with open_run(tmp_path, tag="t") as run:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        run.track(model=model, optimizer=optimizer, rng=rng)
        found = []
        data, join = [torch.rand(2) for _ in range(4)], _kept_by(rng)
        for batch in run.batches(data, batch_size=2, workers=1, steps=4, collate=join):
            found.append(rng.random())
            model(batch).sum().backward()
            optimizer.step()
            run.end_step()
    assert found == np.random.default_rng(0).random(4).tolist()


def _kept_by(rng: np.random.Generator) -> Callable[[list[torch.Tensor]], torch.Tensor]:
    return lambda rows: torch.stack(rows) if rng is not None else rows[0]


def test_a_checkpoint_that_holds_states_of_generators_is_continued_and_it_is_said_once(tmp_path: Path) -> None:
    assert in_a_process(session, tmp_path / "cut", by_batches, 0, 8, signal.SIGKILL) == -signal.SIGKILL
    run = tmp_path / "cut" / "t"
    kept = read_checkpoint(run / "iter_6.pth")["unbroken"]
    assert kept["format"] == FORMAT and "streams" not in kept
    streams = {
        "torch": torch.get_rng_state(),
        "numpy": ["MT19937", torch.zeros(624, dtype=torch.int64), 624, 0, 0.0],
        "python": [3, torch.zeros(625, dtype=torch.int64), None],
        "cuda": [],
    }
    (run / "unbroken" / "manifests" / "iter_6.pth.json").unlink()
    rewrite(run / "iter_6.pth", lambda tree: tree["unbroken"].update(format=1, streams=streams))
    assert in_a_process(session, tmp_path / "cut", by_batches, 0, 10, signal.SIGTERM) == 75
    assert in_a_process(session, tmp_path / "cut", by_batches, 0) == 0
    first, second = (path.read_text() for path in sorted(run.glob("*/*.log"))[1:])
    said = (
        "resume random streams: the file is of a version that kept their states; from here on they are seeded for each"
    )
    assert said in first and "they drew from other random streams, so there is nothing to compare with" in first
    assert "resume random streams: seeded for each step, from seed 0" in second and "kept their states" not in second
