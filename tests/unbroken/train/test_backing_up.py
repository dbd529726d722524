"""Backups beside the training: it ends the same, bit for bit, whatever becomes of the disk that they go to."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.twin.killing import events, python, run_to_end
from tests.unbroken.cli.typing_commands import contents
from tests.unbroken.train.frail_sessions import Listener
from unbroken.clock import SystemClock
from unbroken.config import Effect, Effects
from unbroken.errors import UsageError
from unbroken.launch import Job
from unbroken.launch.job import Limit
from unbroken.run import ITERATIONS
from unbroken.run.survey import survey
from unbroken.storage import Disk, WritableFile
from unbroken.train import Exit, TrainingRun, differences, launch, read_checkpoint
from unbroken.train.arguments import SessionOptions
from unbroken.train.cadence import Every
from unbroken.train.saving.backing_up import Backups

STEPS = 20
LATER_S = 20.0
OF_THE_COPY = {"unbroken/backup.json", "unbroken/lock", "unbroken/holder.json"}
At = dict[int, Callable[[TrainingRun], None]]


class Clock(SystemClock):
    """The real clock, which can be put forward."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


class Refusing(Disk):
    """A disk that refuses to write below a folder, or does not answer, while it is told to."""

    def __init__(self, below: Path) -> None:
        self.below, self.code = below, 0
        self.answers = threading.Event()
        self.answers.set()

    def create(self, path: Path) -> WritableFile:
        if path.is_relative_to(self.below):
            self.answers.wait()
            if self.code:
                raise OSError(self.code, os.strerror(self.code), str(path))
        return super().create(path)


def backups(run: TrainingRun) -> Backups:
    found = run.opened.saver.backups
    assert found is not None
    return found


def train(
    folder: Path,
    *,
    backup: Path | None,
    at: At | None = None,
    disk: Disk | None = None,
    clock: Clock | None = None,
    limit: Limit | None = None,
    wait: bool = True,
) -> Listener:
    """A session of a tiny training that begins or goes on; `at` is what happens after which step."""
    listener = Listener()
    torch.set_num_threads(1)
    job = Job(
        recipe="test", tag="t", directory=folder / "t", config={}, effects=Effects(own=Effect.DATA), seed=0,
        total_steps=STEPS, keep_last=2, command="train", backup=backup, limit=limit,
    )  # fmt: skip
    options = SessionOptions(every=Every(steps=2), save_beside=True)
    with launch(job, console=listener, options=options, disk=disk, clock=clock) as run:
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        run.track(model=model, optimizer=optimizer)
        for _ in run.steps(STEPS):
            loss = model(torch.randn(4, 4)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.end_step(loss=loss)
            run.wait_for_saves()
            if backup is not None and wait:
                assert backups(run).wait(LATER_S)
            (at or {}).get(run.step, lambda _run: None)(run)
    return listener


def files(run: Path) -> dict[str, str]:
    return {name: what for name, what in contents(run).items() if name not in OF_THE_COPY and what != "folder"}


def saying(listener: Listener, words: str) -> list[str]:
    return [line for line in listener.lines if words in line]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("twin")
    train(folder, backup=None)
    return read_checkpoint(folder / "t" / f"iter_{STEPS}.pth")


def is_twin(folder: Path, twin: Any) -> bool:
    return differences(read_checkpoint(folder / "t" / f"iter_{STEPS}.pth"), twin) == []


def test_the_backup_is_at_each_save_and_in_the_end_the_run_itself(tmp_path: Path, twin: Any) -> None:
    dest, stood = tmp_path / "dest", dict[int, int]()

    def look(run: TrainingRun) -> None:
        found = survey(dest / "t", ITERATIONS, is_copy=True).newest_good
        stood[run.step] = found.step if found is not None else 0

    listener = train(tmp_path, backup=dest, at=dict.fromkeys(range(1, STEPS), look))
    assert stood == {step: (step - 1) - (step - 1) % 2 for step in range(1, STEPS)}, (
        "saved when the next batch is asked for"
    )
    assert files(dest / "t") == files(tmp_path / "t") and is_twin(tmp_path, twin)
    assert saying(listener, "backed up to") == [f"each save is backed up to {dest / 't'}"]
    assert not saying(listener, "warning")


def test_a_training_goes_on_from_its_backup_elsewhere_and_backs_up_to_the_same_place(tmp_path: Path, twin: Any) -> None:
    dest = tmp_path / "dest"
    with pytest.raises(Exit):
        train(tmp_path / "here", backup=dest, at={7: lambda run: run.stop("`unbroken stop`")})
    shutil.rmtree(tmp_path / "here")
    shutil.copytree(dest / "t", tmp_path / "there" / "t", symlinks=True)
    listener = train(tmp_path / "there", backup=dest)
    assert not saying(listener, "warning") and is_twin(tmp_path / "there", twin)
    assert files(tmp_path / "there" / "t") == files(dest / "t")


def vanish(dest: Path, _disk: Refusing) -> None:
    shutil.rmtree(dest)


def vanish_with_its_parent(dest: Path, _disk: Refusing) -> None:
    dest.parent.rename(dest.parent.with_name("unmounted"))


def come_apart(dest: Path, _disk: Refusing) -> None:
    """What an unmounted disk leaves: an empty folder."""
    shutil.rmtree(dest / "t")


def become_a_file(dest: Path, _disk: Refusing) -> None:
    shutil.rmtree(dest)
    dest.write_text("a file")


def fill(_dest: Path, disk: Refusing) -> None:
    disk.code = errno.ENOSPC


def forbid(_dest: Path, disk: Refusing) -> None:
    disk.code = errno.EROFS


@pytest.mark.parametrize("trouble", [vanish, vanish_with_its_parent, come_apart, become_a_file, fill, forbid])
def test_trouble_is_said_once_and_the_training_ends_the_same(
    tmp_path: Path, twin: Any, trouble: Callable[[Path, Refusing], None]
) -> None:
    dest = tmp_path / "mnt" / "dest"
    dest.parent.mkdir()
    disk = Refusing(dest)
    listener = train(tmp_path, backup=dest, disk=disk, at={7: lambda _run: trouble(dest, disk)})
    assert is_twin(tmp_path, twin)
    assert len(saying(listener, "warning: the backup failed")) == 1
    assert len(events(tmp_path / "t", "backup failed")) == 1
    assert listener.lines[-1] == f"what is missing in the backup arrives with: unbroken backup {tmp_path / 't'} {dest}"
    if trouble in (vanish, vanish_with_its_parent, come_apart):
        assert not (dest / "t").exists(), "what has gone is not made anew: it may be an unmounted disk"
    if trouble in (fill, forbid):
        assert survey(dest / "t", ITERATIONS).newest_good is not None


def test_when_the_trouble_is_over_that_is_said_and_the_backup_catches_up(tmp_path: Path, twin: Any) -> None:
    dest = tmp_path / "dest"
    disk = Refusing(dest)

    def refuse(code: int) -> Callable[[TrainingRun], None]:
        return lambda _run: setattr(disk, "code", code)

    listener = train(tmp_path, backup=dest, disk=disk, at={5: refuse(errno.EIO), 9: refuse(0)})
    assert len(saying(listener, "warning")) == 1 and "Input/output error" in saying(listener, "warning")[0]
    assert saying(listener, "works again") == [f"the backup works again: {dest / 't'} is at step 10"]
    assert files(dest / "t") == files(tmp_path / "t") and is_twin(tmp_path, twin)


def test_a_disk_that_does_not_answer_is_said_and_not_waited_for(tmp_path: Path, twin: Any) -> None:
    dest, clock = tmp_path / "dest", Clock()
    disk = Refusing(dest)

    def hours_later(_run: TrainingRun) -> None:
        clock.ahead_s += 7200

    at: At = {5: lambda _run: disk.answers.clear(), 13: hours_later}
    limit = Limit(left_s=7200 + 3600, reserve_s=3600 - 4, source="test")
    try:
        listener = train(tmp_path, backup=dest, disk=disk, clock=clock, at=at, limit=limit, wait=False)
    finally:
        disk.answers.set()
    assert is_twin(tmp_path, twin)
    assert "has not ended in 7" in saying(listener, "warning: the backup failed")[0]
    assert saying(listener, "the last backup did not end in") and "unbroken backup" in listener.lines[-1]


def test_a_place_that_is_missing_at_the_launch_is_said_there_and_stops_nothing(tmp_path: Path, twin: Any) -> None:
    listener = train(tmp_path, backup=tmp_path / "no" / "where")
    first = next(number for number, line in enumerate(listener.lines) if "Saving" in line)
    assert any("Is the disk mounted?" in line for line in listener.lines[:first])
    assert len(saying(listener, "warning")) == 1 and is_twin(tmp_path, twin)
    assert not (tmp_path / "no").exists()


def test_another_runs_backup_in_that_place_is_left_alone(tmp_path: Path, twin: Any) -> None:
    train(tmp_path / "other", backup=tmp_path / "dest")
    before = contents(tmp_path / "dest")
    listener = train(tmp_path, backup=tmp_path / "dest")
    assert contents(tmp_path / "dest") == before and is_twin(tmp_path, twin)
    assert "this holds something else" in saying(listener, "warning")[0]


def test_a_place_in_the_run_itself_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    for dest in (tmp_path, tmp_path / "t" / "backups"):
        with pytest.raises(UsageError, match="would lie in"):
            train(tmp_path, backup=dest)
    assert not (tmp_path / "t").exists()


LIMITED = """
import resource, sys
import torch
from torch import nn
from unbroken.train import open_run

with open_run(sys.argv[1], tag="t", seed=3, save_every=2, backup=sys.argv[2] if len(sys.argv) > 2 else None) as run:
    model = nn.Linear(40, 40)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run.track(model=model, optimizer=optimizer)
    for step in run.steps(12):
        model(torch.randn(4, 40)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step()
"""


def test_a_script_backs_up_by_an_argument_and_a_limited_file_size_harms_only_the_backup(tmp_path: Path) -> None:
    whole = run_to_end(python("-c", LIMITED, tmp_path / "whole"))
    assert whole.returncode == 0, whole.output
    (tmp_path / "cut" / "t").mkdir(parents=True)
    (tmp_path / "cut" / "t" / "notes.bin").write_bytes(bytes(200_000))  # larger than a file may be from now on
    limited = f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{LIMITED}".replace(
        "import resource, sys", "import sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    )
    cut = run_to_end([sys.executable, "-c", limited, str(tmp_path / "cut"), str(tmp_path / "dest")])
    assert cut.returncode == 0, cut.output
    assert cut.output.count("warning: the backup failed") == 1 and "File too large" in cut.output
    left, right = (read_checkpoint(tmp_path / name / "t" / "iter_12.pth") for name in ("whole", "cut"))
    assert differences(left, right) == []
    again = run_to_end(python("-m", "unbroken", "backup", tmp_path / "cut" / "t", tmp_path / "dest"))
    assert again.returncode == 0, again.output
    assert files(tmp_path / "dest" / "t") == files(tmp_path / "cut" / "t")
