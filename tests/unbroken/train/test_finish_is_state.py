"""That a loop has said that it is done belongs to the state: a kill before it is recorded adds no step."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.unbroken.train.test_boundaries import Parts, Points
from unbroken.train import PlainConsole, TrainingRun, differences, open_run, read_checkpoint

LAST = 7


class KilledAt(PlainConsole):
    """Kills its process as soon as a line is said for the n-th time."""

    def __init__(self, words: str, turn: int) -> None:
        self._words, self._left = words, turn

    def say(self, line: str) -> None:
        super().say(line)
        self._left -= bool(self._words) and self._words in line
        if not self._left:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def in_the_body(run: TrainingRun) -> None:
    parts = Parts(run)
    for batch in run.batches(Points(), batch_size=4, epochs=4):
        run.log(loss=parts.step(batch))
        parts.seen["values"].append(1.0)
        if len(parts.seen["values"]) == LAST:
            run.finish("enough")


def by_break(run: TrainingRun) -> None:
    parts = Parts(run)
    for _ in run.steps(20):
        run.log(loss=parts.step(torch.rand(4, 1)))
        if run.step + 1 == LAST:
            run.finish("enough")
            break


def in_the_evaluation(run: TrainingRun) -> None:
    parts = Parts(run)

    def validate() -> dict[str, float]:
        parts.seen["values"].append(1.0)
        if len(parts.seen["values"]) == 2:
            run.finish("enough")
        return {"value": 1.0}

    for batch in run.batches(Points(), batch_size=4, epochs=4, evaluate=validate, evaluate_every=LAST):
        run.log(loss=parts.step(batch))


def at_the_end_of_an_epoch(run: TrainingRun) -> None:
    parts, points = Parts(run), Points()
    for _ in run.epochs(4):
        parts.schedule.step() if parts.seen["values"] else None
        for batch in run.batches(points, batch_size=4):
            run.log(loss=parts.step(batch))
        parts.seen["values"].append(1.0)
        if len(parts.seen["values"]) == 2:
            run.finish("enough")


def all_epochs(run: TrainingRun) -> None:
    parts, points = Parts(run), Points()
    for _ in run.epochs(2):
        for batch in run.batches(points, batch_size=4):
            run.log(loss=parts.step(batch))
        parts.seen["values"].append(1.0)


def session(folder: Path, loop: Callable[[TrainingRun], None], words: str = "", turn: int = 1) -> int:
    if (pid := os.fork()) == 0:
        try:
            sys.stdout = sys.stderr = open(folder.with_suffix(".log"), "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - it ends with the process
            with open_run(folder, tag="t", save_every=3, save_every_s=None, console=KilledAt(words, turn)) as run:
                loop(run)
        except BaseException as error:  # noqa: BLE001 - what it says belongs to the test
            print(repr(error))
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("loop", "last", "words", "turn"),
    [
        (in_the_body, LAST, "Saving checkpoint", 3),
        (by_break, LAST, "Saving checkpoint", 3),
        (in_the_evaluation, 14, "Saving checkpoint", 5),
        (at_the_end_of_an_epoch, 12, "Saving checkpoint", 5),
        (all_epochs, 12, "Saving checkpoint", 5),
    ],
)
def test_a_loop_that_was_killed_after_it_had_finished_does_no_step_more(
    tmp_path: Path, loop: Callable[[TrainingRun], None], last: int, words: str, turn: int
) -> None:
    torch.set_num_threads(1)
    name = f"iter_{last}.pth"
    assert session(tmp_path / "peace", loop) == 0, (tmp_path / "peace.log").read_text("utf-8")
    assert session(tmp_path / "cut", loop, words, turn) == -signal.SIGKILL
    assert (tmp_path / "cut/t" / name).exists()
    ended = session(tmp_path / "cut", loop)
    log = (tmp_path / "cut.log").read_text("utf-8")
    assert ended == 0, log
    assert max(int(path.stem.removeprefix("iter_")) for path in (tmp_path / "cut/t").glob("iter_*.pth")) == last, log
    one, other = (read_checkpoint(tmp_path / each / "t" / name) for each in ("peace", "cut"))
    assert differences(one, other) == [], log
    assert f"finished: {last} steps" in log.splitlines()[-1] if loop is all_epochs else "ended by enough" in log, log
    before = len(log)
    assert session(tmp_path / "cut", loop) == 0
    assert "plan: FINISHED" in (tmp_path / "cut.log").read_text("utf-8")[before:]
