"""A save beside the training: the state as it was, errors that are heard, nothing left unsaid at the end."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unbroken.clock import SystemClock
from unbroken.config import Effect, Effects
from unbroken.errors import SaveFailed
from unbroken.journal import read_events
from unbroken.launch import Job
from unbroken.run import ITERATIONS
from unbroken.run.survey import survey
from unbroken.storage import Disk
from unbroken.train import Exit, launch, read_checkpoint
from unbroken.train.arguments import SessionOptions
from unbroken.train.cadence import Every
from unbroken.train.record.console import StepReport
from unbroken.train.saving.saving import Writer

EVERY_SECOND = SessionOptions(every=Every(steps=2), save_beside=True)


class Listener:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: StepReport, line: str) -> None:
        pass

    def close(self) -> None:
        pass


class SlowDisk(Disk):
    """A disk whose second checkpoint is not begun before it is allowed to, or never for want of room."""

    def __init__(self, *, full: bool = False) -> None:
        self.allowed, self.begun, self.full = threading.Event(), threading.Event(), full

    def create(self, path: Path) -> Any:
        if path.name == "iter_4.pth.partial":
            self.begun.set()
            assert self.allowed.wait(60)
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
        return super().create(path)


def job(folder: Path) -> Job:
    effects = Effects(own=Effect.DATA, items=Effects(own=Effect.DATA))
    return Job(
        recipe="test", tag="beside", directory=folder / "beside", config={}, effects=effects, seed=1, total_steps=9
    )


def train(run: Any, listener: Listener, disk: SlowDisk, weights: dict[int, torch.Tensor]) -> None:
    with run:
        model = nn.Linear(3, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        for done in run.steps(9):
            if done == 4:
                assert disk.begun.wait(60)
                assert not any("at 4 iterations" in line for line in listener.lines)
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            run.end_step(loss=0.0)
            weights[run.step] = model.weight.detach().clone()
            if run.step == 5:  # the save of step 6 would wait for this one
                disk.allowed.set()


def test_training_goes_on_while_a_file_is_written_and_the_file_holds_the_step_it_is_of(tmp_path: Path) -> None:
    disk, listener, weights = SlowDisk(), Listener(), dict[int, torch.Tensor]()
    train(launch(job(tmp_path), console=listener, disk=disk, options=EVERY_SECOND), listener, disk, weights)
    assert not torch.equal(weights[4], weights[5]), "the training really went on"
    for step in (2, 4, 9):
        assert torch.equal(
            read_checkpoint(tmp_path / "beside" / f"iter_{step}.pth")["state_dict"]["weight"], weights[step]
        )
    assert [line for line in listener.lines if line.startswith("Saving")][-1].endswith("iter_9.pth")
    assert survey(tmp_path / "beside", ITERATIONS).finished_at == 9


def test_a_full_disk_is_heard_of_and_the_training_goes_on(tmp_path: Path) -> None:
    disk, listener = SlowDisk(full=True), Listener()
    run = launch(job(tmp_path), console=listener, disk=disk, options=EVERY_SECOND)
    train(run, listener, disk, {})
    assert any("SAVE FAILED at step 4: No space left on device" in line for line in listener.lines)
    found = survey(tmp_path / "beside", ITERATIONS)
    assert found.finished_at == 9 and found.newest_good is not None and found.newest_good.step == 9
    assert not found.held, "the run was let go"
    assert not list((tmp_path / "beside").glob("*.partial"))


class Hurried(SystemClock):
    """A clock on which a pause is over at once."""

    def __init__(self) -> None:
        self._paused_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self._paused_s

    def pause_s(self, seconds: float) -> None:
        self._paused_s += seconds


class FullAtStepThree(Disk):
    """A disk without room for the checkpoint of step 3."""

    def create(self, path: Path) -> Any:
        if path.name == "iter_3.pth.partial":
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().create(path)


@pytest.mark.parametrize("beside", [False, True])
def test_a_script_whose_last_save_fails_ends_with_the_refusals_code(tmp_path: Path, *, beside: bool) -> None:
    listener = Listener()
    run = launch(
        job(tmp_path),
        console=listener,
        disk=FullAtStepThree(),
        clock=Hurried(),
        options=replace(EVERY_SECOND, save_beside=beside, exits=True),
    )
    with pytest.raises(Exit) as caught, run:
        run.track(counters={})
        for step in run.steps(9):
            run.end_step(loss=0.0)
            if step == 2:
                break  # the loop is left early: what was not saved yet is saved now
    assert caught.value.code == SaveFailed.exit_code
    assert any("No space left" in line for line in listener.lines)


@pytest.mark.parametrize("beside", [False, True])
def test_a_writer_says_everything_once_and_in_order_and_raises_what_went_wrong(*, beside: bool) -> None:
    writer = Writer(beside=beside)
    for word in ("one", "two", "three"):
        writer.submit(lambda word=word: word)
    writer.wait()
    assert writer.said() == ["one", "two", "three"]
    assert writer.said() == []

    def fail() -> str:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        writer.submit(fail)
        writer.wait()
    writer.close()


class WatchedDisk(Disk):
    """A disk that notes who waits for the medium."""

    def __init__(self) -> None:
        self.waited: list[str] = []

    def sync(self, file: Any) -> None:
        self.waited.append(threading.current_thread().name)
        super().sync(file)


def test_a_due_save_lets_the_training_wait_for_no_disk(tmp_path: Path) -> None:
    disk = WatchedDisk()
    with launch(job(tmp_path), console=Listener(), disk=disk, options=EVERY_SECOND) as run:
        model = nn.Linear(3, 1)
        run.track(model=model, optimizer=torch.optim.AdamW(model.parameters()))
        for done in run.steps(9):
            if done == 1:
                disk.waited.clear()
            if done == 8:
                run.wait_for_saves()
                assert disk.waited and set(disk.waited) == {"unbroken-save_0"}
            run.end_step(loss=0.0)
    events = [event["event"] for event in read_events(tmp_path / "beside" / "unbroken" / "journal.jsonl")]
    assert events.count("timing") >= 4
