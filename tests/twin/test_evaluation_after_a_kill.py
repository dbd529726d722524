"""A kill between a save and its evaluation: what the evaluation draws, and which weights are best, stay the same."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tests.focalsst.nano_job as sonar
import tests.mapsage.nano_job as aerial
from tests.twin.drawing_evaluation import DIES_AT, die_if_asked, drawn, in_a_process
from tests.twin.killing import evaluations
from unbroken.journal import read_events
from unbroken.train import Every, Task, Validation, differences, fit, open_run, read_checkpoint


class Points:
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((2,), float(index)) + torch.rand(2)


def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> None:
    model(batch).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def a_loop(folder: Path) -> None:
    """Evaluates inside the loop; between the step and its evaluation other things draw."""
    with open_run(folder, tag="t", save_every=2, save_every_s=None) as run:
        model, optimizer = parts()
        run.track(model=model, optimizer=optimizer)

        def evaluate() -> None:
            if run.evaluation_due(every=2):
                run.wait_for_saves()
                die_if_asked(folder / "t", run.step)
                run.record_evaluation(best="mAP", mAP=drawn(model))

        for batch in run.batches(Points(), batch_size=2, epochs=2, between=evaluate):
            train_step(model, optimizer, batch)
            run.end_step()
            torch.rand(3), np.random.rand(), random.random()


def a_loop_by_epochs(folder: Path) -> None:
    with open_run(folder, tag="t", save_every=2, save_every_s=None) as run:
        model, optimizer = parts()
        run.track(model=model, optimizer=optimizer)
        points = Points()
        for _epoch in run.epochs(3):
            for batch in run.batches(points, batch_size=2):
                train_step(model, optimizer, batch)
                run.end_step()
                torch.rand(3), np.random.rand(), random.random()
            run.wait_for_saves()
            die_if_asked(folder / "t", run.step)
            run.record_evaluation(best="mAP", mAP=drawn(model))


def a_task(folder: Path) -> None:
    with open_run(folder, tag="t", save_every=2, save_every_s=None) as run:
        model, optimizer = parts()
        model[1].eval()  # a layer that a builder freezes, and a step does not

        def evaluate(progress: object, _poll: Callable[[], None]) -> dict[str, float]:
            die_if_asked(folder / "t", run.step)
            return {"mAP": drawn(model[1])}

        task = Task(
            model=model,
            optimizer=optimizer,
            schedule=torch.optim.lr_scheduler.StepLR(optimizer, 4),
            dataset=Points(),
            batch_size=2,
            loss=lambda batch: {"loss": model(batch).square().mean()},
            epochs=2,
            validation=Validation(evaluate=evaluate, every=Every(steps=2), best="mAP"),
        )
        fit(run, task)


def aerial_training(folder: Path) -> None:
    config = folder / "nano.py"
    short = ["train_cfg.max_iters=6", "train_cfg.val_interval=2", "default_hooks.checkpoint.interval=2"]
    job = aerial.job(config, "--work-dir", folder / "t", "--pictures", 0, "--cfg-options", *short)
    aerial.session(replace(job, task="tests.twin.drawing_evaluation:build_aerial"))


def sonar_training(folder: Path) -> None:
    job = sonar.job("--output", folder / "t", "--workers", 0, "--pictures", 0, config=str(folder / sonar.CONFIG))
    job = replace(job, task="tests.twin.drawing_evaluation:build_sonar", directory=folder / "t")
    sonar.session(job)


def assert_twins(killed: Path, twin: Path) -> None:
    assert evaluations(killed) == evaluations(twin)
    names = {path.name for run in (killed, twin) for path in run.rglob("*.pth") if not path.is_symlink()}
    assert any(name.startswith("best_") for name in names)
    for name in names:
        one, other = (read_checkpoint(next(run.rglob(name))) for run in (killed, twin))
        differ = differences(one, other)
        # A loop that does not say how many batches a step takes learns its length in its first step.
        assert [each for each in differ if not each.startswith(".unbroken.total")] == [], name


@pytest.mark.parametrize(
    ("session", "dies_at"),
    [(a_loop, 4), (a_loop, 12), (a_loop_by_epochs, 6), (a_task, 4)],
    ids=["a loop, early", "a loop, late", "a loop by epochs", "a task"],
)
def test_an_evaluation_draws_the_same_at_once_or_first_thing_in_the_next_session(
    tmp_path: Path, session: Callable[[Path], None], dies_at: int
) -> None:
    killed, twin = tmp_path / "killed", tmp_path / "twin"
    (killed / "t").mkdir(parents=True)
    (killed / "t" / DIES_AT).write_text(str(dies_at))
    assert in_a_process(session, killed) == -signal.SIGKILL
    assert in_a_process(session, killed) == 0
    assert in_a_process(session, twin) == 0
    owed = [
        event["step"] for event in read_events(killed / "t/unbroken/journal.jsonl") if event["event"] == "evaluated"
    ]
    assert dies_at in owed
    assert_twins(killed / "t", twin / "t")


@pytest.mark.parametrize(("session", "write", "dies_at"), [
    (aerial_training, aerial.write_nano_job, 4), (sonar_training, sonar.write_nano_job, 5),
])  # fmt: skip
def test_the_evaluations_of_both_applications_draw_the_same_after_a_kill(
    tmp_path: Path,
    session: Callable[[Path], None],
    write: Callable[[Path], Path],
    dies_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed, twin = tmp_path / "killed", tmp_path / "twin"
    for folder, endings in ((killed, (-signal.SIGKILL, 0)), (twin, (0,))):
        (folder / "t").mkdir(parents=True)
        monkeypatch.chdir(folder)
        write(Path())
        if folder is killed:
            (folder / "t" / DIES_AT).write_text(str(dies_at))
        for ending in endings:
            assert in_a_process(session, Path()) == ending
    assert_twins(killed / "t", twin / "t")
