"""Saves that the disk refuses: the training goes on while little is at stake, and nothing that was written is lost."""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.processes import python, run_command
from unbroken.clock import SystemClock
from unbroken.config import Effect, Effects
from unbroken.errors import SaveFailed
from unbroken.journal import read_events, read_steps
from unbroken.launch import Job
from unbroken.run import ITERATIONS, Survey
from unbroken.run.survey import survey
from unbroken.storage import Disk, WritableFile
from unbroken.train import Exit, TrainingRun, launch, read_checkpoint
from unbroken.train.arguments import SessionOptions
from unbroken.train.cadence import Every
from unbroken.train.record.console import StepReport

SEED = 20250301
TROUBLE = (errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS, errno.ESTALE, errno.EDQUOT)


class Clock(SystemClock):
    """A clock that stands still but for pauses and where it is told to go on."""

    def __init__(self) -> None:
        self.seconds, self.pauses = 0.0, list[float]()

    def monotonic_s(self) -> float:
        return self.seconds

    def pause_s(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds


class Listener:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: StepReport, line: str) -> None:
        pass

    def close(self) -> None:
        pass

    def saying(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]


class Refusing(Disk):
    """A disk that answers with an error while `refuses` says so of a path."""

    def __init__(self, code: int, refuses: Callable[[Path], bool]) -> None:
        self.code, self.refuses = code, refuses
        self.free: int | None = None

    def _check(self, path: Path) -> None:
        if self.refuses(path):
            raise OSError(self.code, os.strerror(self.code), str(path))

    def create(self, path: Path) -> WritableFile:
        self._check(path)
        return super().create(path)

    def open_append(self, path: Path) -> WritableFile:
        disk, file = self, super().open_append(path)
        write = file.write

        def checked(data: bytes) -> int:
            disk._check(path)
            return write(data)

        file.write = checked  # type: ignore[method-assign]
        return file

    def free_bytes(self, folder: Path) -> int:
        return super().free_bytes(folder) if self.free is None else self.free


class Training:
    """A tiny training of `steps` steps, whose disk and clock the test holds in its hands."""

    def __init__(self, folder: Path, disk: Disk, *, beside: bool, steps: int = 20, keep_last: int | None = 3) -> None:
        self.folder, self.disk, self.steps, self.keep_last = folder, disk, steps, keep_last
        self.clock, self.listener, self.beside = Clock(), Listener(), beside
        self.at: dict[int, Callable[[TrainingRun], None]] = {}

    def run(self, *, every: Every | None = None, every_s: float | None = None, exits: bool = False) -> None:
        effects = Effects(own=Effect.DATA, items=Effects(own=Effect.DATA))
        job = Job(
            recipe="test", tag="t", directory=self.folder / "t", config={}, effects=effects, seed=0,
            total_steps=self.steps, keep_last=self.keep_last, command="train",
        )  # fmt: skip
        options = SessionOptions(
            every=every or Every(steps=4), save_every_s=every_s, save_beside=self.beside, exits=exits
        )
        with launch(job, console=self.listener, clock=self.clock, disk=self.disk, options=options) as run:
            model = nn.Linear(2, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            run.track(model=model, optimizer=optimizer)
            for _ in run.steps(self.steps):
                run.wait_for_saves()  # so that what is said does not depend on how fast the thread is
                loss = model(torch.randn(4, 2)).square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                self.clock.seconds += 1.0
                run.end_step(loss=loss)
                self.at.get(run.step, lambda _run: None)(run)

    @property
    def found(self) -> Survey:
        return survey(self.folder / "t", ITERATIONS)

    @property
    def recorded(self) -> list[int]:
        return [line["step"] for line in read_steps(self.folder / "t/unbroken/metrics.jsonl")]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read_events(self.folder / "t/unbroken/journal.jsonl") if event["event"] == kind]


def is_checkpoint(path: Path) -> bool:
    return path.name.startswith("iter_")


both_ways = pytest.mark.parametrize("beside", [False, True], ids=["at once", "beside"])


@both_ways
@pytest.mark.parametrize("code", TROUBLE, ids=errno.errorcode.get)
def test_a_trouble_that_passes_costs_nothing_and_the_newest_state_is_saved(
    tmp_path: Path, code: int, *, beside: bool
) -> None:
    disk = Refusing(code, lambda path: False)
    training = Training(tmp_path, disk, beside=beside)
    training.at[5] = lambda _run: setattr(disk, "refuses", is_checkpoint)
    training.at[11] = lambda _run: setattr(disk, "refuses", lambda path: False)
    training.run()
    assert training.found.finished_at == 20 and training.found.newest_good is not None
    assert training.recorded == list(range(1, 21))
    saved = [event["step"] for event in training.events("saved")]
    assert saved == [4, 12, 16, 20], "the state of step 8 was not kept for later"
    (line,) = training.listener.saying("SAVE FAILED at step 8")
    assert os.strerror(code) in line and "would lose 4 steps (the last good save is of step 4)" in line
    assert next(event["step"] for event in training.events("save failed")) == 8


@both_ways
def test_a_trouble_that_lasts_ends_the_training_when_more_than_two_intervals_are_at_stake(
    tmp_path: Path, *, beside: bool
) -> None:
    disk = Refusing(errno.ENOSPC, lambda path: False)
    training = Training(tmp_path, disk, beside=beside, steps=40)
    training.at[5] = lambda _run: setattr(disk, "refuses", is_checkpoint)
    with pytest.raises(Exit) as ending:
        training.run(exits=True)
    assert ending.value.code == SaveFailed.exit_code == 12
    (said,) = training.listener.saying("no checkpoint could be written since step 4")
    assert "the last try, of step 13, failed too: No space left on device" in said
    assert "The checkpoint of step 4 is whole. Make room or mend the disk, then run the same command again." in said
    left = training.found
    assert left.newest_good is not None and left.newest_good.step == 4 and not left.held
    assert training.recorded == list(range(1, 14))
    training.at, training.disk = {}, Disk()
    training.run()
    assert training.found.finished_at == 40


@both_ways
def test_by_time_it_is_tried_again_after_longer_and_longer_pauses(tmp_path: Path, *, beside: bool) -> None:
    disk = Refusing(errno.EIO, lambda path: False)
    training = Training(tmp_path, disk, beside=beside, steps=1000)
    training.at[110] = lambda _run: setattr(disk, "refuses", is_checkpoint)
    with pytest.raises(SaveFailed):
        training.run(every=Every(), every_s=100.0)
    tries = [event["step"] for event in training.events("save failed")]
    assert tries == [200, 205, 215, 235, 275, 301], "5 s, 10 s, 20 s, 40 s, and once more when 200 s are exceeded"


@both_ways
def test_the_last_state_of_a_session_is_tried_for_a_minute(tmp_path: Path, *, beside: bool) -> None:
    disk = Refusing(errno.ESTALE, lambda path: False)
    training = Training(tmp_path, disk, beside=beside, steps=7)

    def stop(run: TrainingRun) -> None:
        disk.refuses = is_checkpoint
        run.stop("a test")

    training.at[6] = stop
    with pytest.raises(SaveFailed, match=r"since step 4, and the last try, of step 6, failed too: Stale file handle"):
        training.run()
    assert 45 <= sum(training.clock.pauses) <= 60
    assert training.found.newest_good is not None and training.found.newest_good.step == 4
    assert not training.found.held


@both_ways
def test_a_minute_is_enough_when_room_is_made_meanwhile(tmp_path: Path, *, beside: bool) -> None:
    disk = Refusing(errno.ENOSPC, lambda path: False)
    training = Training(tmp_path, disk, beside=beside, steps=7)
    training.at[5] = lambda _run: setattr(
        disk, "refuses", lambda path: is_checkpoint(path) and sum(training.clock.pauses) < 20
    )
    training.run()
    assert training.found.finished_at == 7 and training.found.newest_good is not None


@both_ways
def test_records_that_are_refused_wait_in_memory_and_come_in_order(tmp_path: Path, *, beside: bool) -> None:
    disk = Refusing(errno.ENOSPC, lambda path: False)
    training = Training(tmp_path, disk, beside=beside)
    training.at[5] = lambda _run: setattr(disk, "refuses", lambda path: True)
    training.at[10] = lambda _run: setattr(disk, "refuses", lambda path: False)
    training.run()
    assert training.recorded == list(range(1, 21))
    assert training.listener.saying("metrics.jsonl cannot be continued (No space left on device): its lines wait")
    assert training.listener.saying("the lines that waited in memory are written")
    assert [event["step"] for event in training.events("save failed")] == [8]
    (log,) = (tmp_path / "t").glob("*/*.log")
    assert "SAVE FAILED at step 8" in log.read_text("utf-8"), "also what was said while the log could not be written"


@both_ways
def test_records_that_cannot_be_written_to_the_end_are_said_to_be_lost(tmp_path: Path, *, beside: bool) -> None:
    disk = Refusing(errno.EROFS, lambda path: False)
    training = Training(tmp_path, disk, beside=beside, steps=40)
    training.at[5] = lambda _run: setattr(disk, "refuses", lambda path: True)
    with pytest.raises(SaveFailed):
        training.run()
    assert training.listener.saying("warning: the last 9 lines of metrics.jsonl are lost (Read-only file system)")
    assert training.recorded == list(range(1, 5))
    assert training.found.newest_good is not None and training.found.newest_good.step == 4


@both_ways
def test_a_disk_that_is_nearly_full_is_said_and_superseded_files_go_early(tmp_path: Path, *, beside: bool) -> None:
    disk = Refusing(errno.ENOSPC, lambda path: False)
    training = Training(tmp_path, disk, beside=beside, keep_last=3)
    training.at[14] = lambda _run: setattr(disk, "free", 1000)
    training.run()
    said = training.listener.saying("warning: the disk is nearly full: 1,000 bytes free")
    assert len(said) == 2 and "removed as superseded: iter_4.pth" in said[0], said
    (first, _) = training.events("disk nearly full")
    assert first["free_bytes"] == 1000 and first["removed"] == ["iter_4.pth"]
    assert training.found.finished_at == 20
    assert sum(item.resumable for item in training.found.candidates) >= 2


def test_where_all_checkpoints_are_kept_none_goes_for_want_of_room(tmp_path: Path) -> None:
    disk = Refusing(errno.ENOSPC, lambda path: False)
    training = Training(tmp_path, disk, beside=False, keep_last=None)
    disk.free = 1000
    training.run()
    assert {path.name for path in (tmp_path / "t").glob("iter_*.pth")} == {f"iter_{n}.pth" for n in range(4, 21, 4)}


@both_ways
def test_best_weights_that_are_refused_come_with_the_next_save(tmp_path: Path, *, beside: bool) -> None:
    disk = Refusing(errno.ENOSPC, lambda path: path.name.startswith("best_"))
    training = Training(tmp_path, disk, beside=beside)
    weights = {}

    def evaluate(run: TrainingRun) -> None:
        weights.update({name: value.clone() for name, value in run._parts["model"].state_dict().items()})
        run.record_evaluation(best="score", score=1.0)
        run.wait_for_saves()

    training.at[6] = evaluate
    training.at[9] = lambda _run: setattr(disk, "refuses", lambda path: False)
    training.run()
    assert training.listener.saying("the best weights (step 6, 1.0000 score) could not be written")
    kept = read_checkpoint(tmp_path / "t/best_score_iter_6.pth")["state_dict"]
    assert all(torch.equal(kept[name], weights[name]) for name in weights)


class Moods:
    """A disk's mood: bad or good, and drawn anew when it is told to."""

    def __init__(self, draw: Callable[[], bool]) -> None:
        self.draw, self.bad = draw, False

    def __call__(self, path: Path) -> bool:
        return self.bad

    def change(self, _run: TrainingRun) -> None:
        self.bad = self.draw()

    def calm(self, _run: TrainingRun) -> None:
        self.bad = False


def test_random_troubles_never_cost_a_checkpoint_nor_a_line(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    for number in range(12):
        disk = Refusing(draw.choice(TROUBLE), lambda path: False)
        training = Training(tmp_path / str(number), disk, beside=draw.random() < 0.5, steps=30)
        share, trouble = draw.choice([0.2, 0.5]), iter(draw.random() for _ in range(40))
        disk.refuses = Moods(lambda share=share, trouble=trouble: next(trouble, 1.0) < share)
        for step in range(1, 30):
            training.at[step] = disk.refuses.change
        training.at[29] = disk.refuses.calm
        try:
            training.run()
        except SaveFailed:
            assert training.recorded == list(range(1, len(training.recorded) + 1))
            training.at, training.disk = {}, Disk()
            training.run()
        assert training.found.finished_at == 30
        assert sorted(set(training.recorded)) == list(range(1, 31))


LIMITED = """
import resource, sys, torch
from torch import nn
from unbroken.train import open_run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_run(sys.argv[1], tag="t", save_every=2, save_every_s=None) as run:
    model = nn.Linear(200, 200)
    run.track(model=model)
    for step in run.steps(30):
        run.end_step(loss=0.0)
        if step == 6:
            model.extra = nn.Parameter(torch.zeros(200_000))  # from here on no checkpoint fits
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the size of files, as Linux has it")
def test_a_real_limit_on_files_ends_with_12_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    done = run_command(python(script, tmp_path / "runs", 400_000), timeout=120)
    assert done.returncode == 12, done.stdout + done.stderr
    assert "SAVE FAILED at step 8: File too large" in done.stdout
    assert "no checkpoint could be written since step 6, and the last try, of step 11" in done.stdout
    left = survey(tmp_path / "runs" / "t", ITERATIONS)
    assert left.newest_good is not None and left.newest_good.step == 6
    assert not left.partials and not left.held
