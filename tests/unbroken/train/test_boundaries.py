"""The order of statements in a loop's body does not matter: wherever it is killed or stopped, it ends the same."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # loaded once, as the next one is, not by each process that is forked
from torch import nn

import unbroken.train.record.event_records  # noqa: F401
from unbroken.train import Exit, TrainingRun, differences, open_run, read_checkpoint

Here = Callable[[str], None]  # the loop has come to a place


class Points(torch.utils.data.Dataset):  # type: ignore[type-arg]  # as scripts write it
    """Twenty-four points with noise."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index / 24]) + 0.1 * torch.randn(1)


class Parts:
    """What every loop trains; the values it counts are part of the state."""

    def __init__(self, run: TrainingRun) -> None:
        self.model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, factor=0.5, patience=0)
        self.seen: dict[str, list[float]] = {"values": []}
        run.track(
            model=self.model, optimizer=self.optimizer, schedule=self.schedule, plateau=self.plateau, seen=self.seen
        )

    def step(self, batch: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.model(batch).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def validated(self, run: TrainingRun, here: Here) -> float:
        found = 0.0
        self.model.eval()
        for _ in range(3):
            here("validation")
            run.poll()
            found += float(self.model(torch.rand(4, 1)).detach().mean())
        self.model.train()
        return found


def schedule_after_the_end_of_the_step(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        loss = parts.step(batch)
        run.end_step(loss=loss)
        here("end of step")
        parts.schedule.step()
        here("schedule")
        parts.seen["values"].append(float(loss))
        here("values")


def evaluation_in_the_body(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        run.end_step(loss=parts.step(batch))
        if run.evaluation_due(every=2):
            here("due")
            value = parts.validated(run, here)
            parts.schedule.step()
            here("schedule")
            run.record_evaluation(best="value", value=value)
            here("recorded")
            parts.plateau.step(value)
            parts.seen["values"].append(value)


def evaluation_at_the_end_of_the_epoch(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)
    points = Points()
    for _ in run.epochs(3):
        for batch in run.batches(points, batch_size=4):
            loss = parts.step(batch)
            run.end_step(loss=loss)
            here("end of step")
        parts.schedule.step()
        here("schedule")
        value = parts.validated(run, here)
        parts.seen["values"].append(value)
        run.record_evaluation(best="value", value=value)
        here("recorded")
        parts.plateau.step(value)
        here("plateau")


def a_save_in_the_middle_of_a_step(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        loss = parts.model(batch).square().mean()
        parts.optimizer.zero_grad()
        loss.backward()
        if run.step in (4, 9):
            run.save()
            here("saved")
        parts.optimizer.step()
        run.end_step(loss=loss)
        parts.schedule.step()


def evaluation_between_two_steps(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)

    def between() -> None:
        if run.evaluation_due(every=2):
            value = parts.validated(run, here)
            run.record_evaluation(best="value", value=value)
            here("recorded")

    for batch in run.batches(Points(), batch_size=4, epochs=3, between=between):
        run.end_step(loss=parts.step(batch))
        parts.schedule.step()


PLACES = {
    schedule_after_the_end_of_the_step: ("end of step", "schedule", "values"),
    evaluation_in_the_body: ("due", "validation", "schedule", "recorded"),
    evaluation_at_the_end_of_the_epoch: ("end of step", "schedule", "validation", "recorded", "plateau"),
    a_save_in_the_middle_of_a_step: ("saved",),
    evaluation_between_two_steps: ("validation", "recorded"),
}


def trained(folder: Path, loop: Callable[[TrainingRun, Here], None], place: str, turn: int, number: int) -> int:
    """Train in a process of its own, which is sent a signal when it comes to a place the n-th time; its exit code."""
    if (pid := os.fork()) == 0:
        code, times = 1, 0
        try:
            # Not by the descriptors: pytest has put something of its own in place of these two.
            sys.stdout = sys.stderr = open(folder.with_suffix(".log"), "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - it ends with the process
            with open_run(folder, tag="t", save_every=2, save_every_s=None, seed=3) as run:

                def here(name: str) -> None:
                    nonlocal times
                    times += name == place
                    if name == place and times == turn:
                        run.wait_for_saves()
                        os.kill(os.getpid(), number)

                loop(run, here)
            code = 0
        except Exit as ending:
            code = int(ending.code or 0)
        except BaseException:  # noqa: BLE001 - what it says belongs to the test
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def twin_of_peace(
    tmp_path: Path, loop: Callable[[TrainingRun, Here], None], place: str, turns: Sequence[int], number: int
) -> tuple[dict[str, Any], str]:
    """Train in peace, and cut at a place at each of these turns: both end alike. The last checkpoint, what was said."""
    torch.set_num_threads(1)
    assert trained(tmp_path / "peace", loop, "", 0, 0) == 0, (tmp_path / "peace.log").read_text("utf-8")
    ended = [trained(tmp_path / "cut", loop, place, turn, number) for turn in turns]
    ended.append(trained(tmp_path / "cut", loop, "", 0, 0))
    log = (tmp_path / "cut.log").read_text("utf-8")
    assert ended == [-9 if number == signal.SIGKILL else 75] * 2 + [0], log
    assert "differs" not in log, log
    one, other = (read_checkpoint(tmp_path / name / "t/iter_18.pth") for name in ("peace", "cut"))
    assert differences(one, other) == [], log
    return one, log


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("loop", "place"), [(loop, place) for loop, places in PLACES.items() for place in places])
def test_wherever_it_is_interrupted_it_ends_the_same(tmp_path: Path, loop: Any, place: str, number: int) -> None:
    torch.set_num_threads(1)
    assert trained(tmp_path / "peace", loop, "", 0, 0) == 0
    ended = []
    for turn in (2, 3):
        ended.append(trained(tmp_path / "cut", loop, place, turn, number))
    ended.append(trained(tmp_path / "cut", loop, "", 0, 0))
    log = (tmp_path / "cut.log").read_text("utf-8")
    assert ended[0] == (-9 if number == signal.SIGKILL else 75) and ended[-1] == 0, log
    assert log.count("plan: ") == 3 and "differs" not in log, log
    one, other = (read_checkpoint(tmp_path / name / "t/iter_18.pth") for name in ("peace", "cut"))
    assert differences(one, other) == [], log
