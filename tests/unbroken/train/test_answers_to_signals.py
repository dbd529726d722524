"""Whoever asks a training to stop hears at once what happens now, and what a second Ctrl-C would lose."""

from __future__ import annotations

import ctypes
import os
import pty
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # loaded once, as the next one is, not by each process that is forked
from torch import nn

import unbroken.train.record.event_records  # noqa: F401
from unbroken.run import ITERATIONS
from unbroken.run.survey import survey
from unbroken.storage import Disk
from unbroken.train import Exit, open_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="terminals and signals as Linux has them")

SILENCE_S = 20.0


class Numbers:
    """Forty numbers; one of them may not come before it is let go."""

    def __init__(self, held: Callable[[], None] | None = None) -> None:
        self.held = held

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3 and self.held is not None:
            self.held()
        return torch.full((1,), float(index))


def held(folder: Path) -> None:
    """Say that it has come to this place, and wait to be let go."""
    (folder / "here").touch()
    while not (folder / "go").exists():
        time.sleep(0.002)


def stuck(folder: Path) -> None:
    """In native code that no signal interrupts, as a long backward pass is, until it is let go."""
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)

    def let_go() -> None:
        held(folder)
        libc.pthread_mutex_unlock(mutex)

    threading.Thread(target=let_go, daemon=True).start()
    libc.pthread_mutex_lock(mutex)


def train(folder: Path, place: str) -> None:
    """Saves after every second step; the fourth one, or what follows the third, is held at a place."""
    if place == "save":
        rename = Disk.rename

        def slow(disk: Disk, source: Path, target: Path) -> None:
            if target.name == "iter_4.pth":
                held(folder)
            rename(disk, source, target)

        Disk.rename = slow  # type: ignore[method-assign]
    with open_run(folder, tag="t", save_every=2, save_every_s=None) as run:
        if place == "start":
            held(folder)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        run.track(model=model, optimizer=optimizer)

        def between() -> None:
            if run.step == 4 and place == "save":
                run.wait_for_saves()

        dataset = Numbers(lambda: held(folder)) if place == "data" else Numbers()
        for batch in run.batches(dataset, batch_size=1, steps=8, shuffle=False, between=between):
            model(batch).mean().backward()
            if run.step == 3:
                run.wait_for_saves()
            if run.step == 3 and place in ("step", "native"):
                (held if place == "step" else stuck)(folder)
            optimizer.step()
            run.end_step()
            if run.step == 3 and place == "validation":
                held(folder)
                run.poll()


class Training:
    """A training in a process of its own, at a terminal or on a pipe."""

    def __init__(self, folder: Path, place: str, *, terminal: bool) -> None:
        self.folder, self.said = folder, ""
        if terminal:
            self.pid, self._end = pty.fork()
        else:
            self._end, write = os.pipe()
            if (pid := os.fork()) == 0:
                os.dup2(write, 1)
                os.dup2(write, 2)
            self.pid = pid
            os.close(write)
        if self.pid == 0:
            self._be(folder, place)
        give_up = time.monotonic() + SILENCE_S
        while not (folder / "here").exists():
            assert time.monotonic() < give_up, self.rest()
            time.sleep(0.002)

    def _be(self, folder: Path, place: str) -> None:
        code = 1
        try:
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            for name in ("SIGINT", "SIGTERM"):
                signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
            train(folder, place)
            code = 0
        except Exit as ending:
            code = int(ending.code or 0)
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)

    def until(self, words: str) -> None:
        """Read until these words were said."""
        while words not in self.said:
            more = self._read()
            assert more, f"{words!r} was never said: {self.said}"

    def _read(self) -> str:
        if not select.select([self._end], [], [], SILENCE_S)[0]:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"it says no more: {self.said}")
        try:
            more = os.read(self._end, 65536).decode()
        except OSError:  # so a terminal ends
            more = ""
        self.said += more.replace("\r\n", "\n")
        return more

    def rest(self) -> str:
        """All that it said, once it has ended."""
        while self._read():
            pass
        os.close(self._end)
        return self.said

    def interrupt(self) -> None:
        """Ctrl-C, typed at the terminal."""
        os.write(self._end, b"\x03")

    def go(self) -> int:
        """Let it go; returns its exit code."""
        (self.folder / "go").touch()
        self.rest()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def log(self) -> str:
        (log,) = (self.folder / "t").glob("*/*.log")
        return log.read_text("utf-8")

    def saved(self) -> int:
        left = survey(self.folder / "t", ITERATIONS).newest_good
        return left.step if left is not None and left.step is not None else 0


AGAIN = "; Ctrl-C again ends at once and loses"
BY_PLACE: dict[str, tuple[str, str]] = {
    "step": ("stopping after this step (4), with everything saved", "1 step since the last save (step 2) and the step"),
    "validation": ("stopping as soon as what follows step 3 (a save, an evaluation) lets it", "1 step since the last"),
    "save": ("stopping as soon as what follows step 4 (a save, an evaluation) lets it", "nothing: step 4 is saved (th"),
}


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("place", BY_PLACE)
def test_the_first_ctrl_c_is_answered_while_the_step_goes_on(tmp_path: Path, place: str, terminal: bool) -> None:
    training, (when, loses) = Training(tmp_path, place, terminal=terminal), BY_PLACE[place]
    if terminal:
        training.interrupt()
    else:
        os.kill(training.pid, signal.SIGINT)
    training.until("step in progress\n" if place == "step" else loses)  # it is held: nothing else ends it
    assert f"SIGINT: {when}" in training.said and f"{AGAIN} {loses}" in training.said
    assert training.go() == 75, training.said
    reached = 3 if place == "validation" else 4
    assert f"stopped by SIGINT after step {reached}: everything is saved" in training.said
    assert f"SIGINT: {when}" in training.log()
    assert training.saved() == reached


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_other_signals_are_answered_too_and_promise_no_second_ctrl_c(tmp_path: Path, name: str) -> None:
    training = Training(tmp_path, "step", terminal=False)
    os.kill(training.pid, getattr(signal, name))
    training.until(f"{name}: stopping after this step (4), with everything saved\n")
    assert training.go() == 75, training.said
    assert training.said.count(f"{name}: stopping") == 1 and f"{name}: stopping after" in training.log()


@pytest.mark.parametrize(("place", "loses", "saved"), [
    ("step", "loses 1 step since the last save (step 2) and the step in progress", 2),
    ("native", "loses 1 step since the last save (step 2) and the step in progress", 2),
    ("save", "loses nothing: step 4 is saved (the save of step 4 is written to its end)", 4),
])  # fmt: skip
def test_the_second_ctrl_c_says_what_is_lost_and_no_more_is(tmp_path: Path, place: str, loses: str, saved: int) -> None:
    training = Training(tmp_path, place, terminal=True)
    training.interrupt()
    training.until("Ctrl-C again")
    training.interrupt()
    training.until(f"SIGINT again: ending at once; it {loses}")
    assert training.go() == 130, training.said
    assert training.saved() == saved
    kept = "nothing is lost, step 4 is saved" if place == "save" else "step 3 is lost, the last save is of step 2"
    assert f"interrupted: {kept}" in training.said
    assert f"ending at once; it {loses}" in training.log()


def test_a_wait_for_data_is_broken_off_and_that_is_said(tmp_path: Path) -> None:
    training = Training(tmp_path, "data", terminal=True)
    training.interrupt()
    assert training.go() == 75
    assert "SIGINT: stopping now, with everything saved" in training.said
    assert training.saved() == 3


def test_before_the_first_step_nothing_can_be_lost_and_that_is_said(tmp_path: Path) -> None:
    training = Training(tmp_path, "start", terminal=True)
    training.interrupt()
    assert training.go() == 75
    assert "SIGINT: stopping; before the first step nothing is changed" in training.said


def test_it_is_answered_also_inside_native_code_that_no_signal_interrupts(tmp_path: Path) -> None:
    training = Training(tmp_path, "native", terminal=True)
    training.interrupt()
    training.until("SIGINT: stopping after this step (4)")
    os.kill(training.pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(training.pid, 0)[1]) == -signal.SIGKILL


def test_an_event_loop_that_signals_wake_is_not_disturbed(tmp_path: Path, capfd: Any) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write)
    try:
        with pytest.raises(Exit), open_run(tmp_path, tag="t") as run:
            run.track(counters={})
            for _ in run.batches(Numbers(), batch_size=1, steps=3):
                signal.raise_signal(signal.SIGTERM)
                run.end_step()
    finally:
        assert signal.set_wakeup_fd(before) == write
    assert os.read(read, 8) == bytes([signal.SIGTERM])
    assert "SIGTERM: stopping after this step (1), with everything saved" in capfd.readouterr().err
