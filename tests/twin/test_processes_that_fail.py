"""What goes wrong in one of several processes goes the same way as with one: memory, numbers, crashes, a stop."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import DEVNULL, PATIENCE_S, PIPE, STDOUT, Popen, python
from tests.twin.frail import STEPS
from tests.twin.killing import assert_twins, events, lines_in, run_to_end
from tests.twin.together import run_together
from unbroken.errors import STOPPED
from unbroken.storage.lock import is_held

ROOT = Path(__file__).resolve().parents[2]
LAST = f"iter_{STEPS}.pth"


def command(run: Path, *options: object) -> list[str]:
    """In two shards, whoever computes them."""
    recipe = ("-m", "unbroken", "train", "tests.twin.frail:frail", run, "--dropout", 0.3, "--no-norm")
    return python(*recipe, "--exact-processes", 2, *options)


@pytest.mark.parametrize(
    ("options", "event"),
    [
        (["--memory", 1, "--memory-from", 4], "oom"),
        (["--bad", 5, "--on-nan", "rollback"], "rollback"),
    ],
)
def test_two_processes_learn_what_one_does(tmp_path: Path, options: list[object], event: str) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    for run, size in zip(runs, (1, 2)):
        sessions = run_together(command(run, *options), size, cwd=ROOT)
        assert [each.returncode for each in sessions] == [0] * size, sessions[0].output
        assert events(run, event)
    assert_twins(runs[1], runs[0], LAST)


def test_processes_that_are_killed_are_started_again_and_a_stop_is_passed_on(tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert run_to_end(command(whole), cwd=ROOT).returncode == 0
    several = command(run, "--processes", 2, "--restarts", 1)
    stopped = Popen([*several, "--slow", "0.05", "--crash", "kill@5"], cwd=ROOT, stdout=PIPE, stderr=STDOUT, text=True)
    while lines_in(run / "unbroken/metrics.jsonl") < 9 and stopped.poll() is None:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    said, _ = stopped.communicate(timeout=120)
    assert stopped.returncode == STOPPED, said
    assert len(re.findall("^plan: ", said, re.MULTILINE)) == 2, said
    assert "everything is saved" in said and "--processes 2 --restarts 1" in said.split("to continue, run: ")[1]
    ended = run_to_end(command(run), cwd=ROOT)
    assert ended.returncode == 0, ended.output
    assert_twins(run, whole, LAST)


def test_ctrl_c_which_a_terminal_sends_to_all_processes_stops_each_of_them_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*command(run, "--processes", 2), "--slow", "0.05"]
    training = Popen(words, cwd=ROOT, stdout=PIPE, stderr=STDOUT, text=True, start_new_session=True)
    while lines_in(run / "unbroken/metrics.jsonl") < 3 and training.poll() is None:
        time.sleep(0.01)
    os.killpg(training.pid, signal.SIGINT)
    said, _ = training.communicate(timeout=120)
    assert training.returncode == STOPPED, said
    assert "stopped by SIGINT after step" in said and "has ended" not in said, said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--processes", 99], "2 shards cannot be dealt out evenly to 99 processes"),
        (
            ["--processes", 99, "--exact-processes", 99],
            "--exact-processes: a batch has fewer samples than there are shards",
        ),
    ],
)
def test_more_processes_than_can_share_a_batch_are_refused_once_and_none_is_started(
    tmp_path: Path, options: list[object], said: str
) -> None:
    ended = run_to_end(command(tmp_path / "run", *options), cwd=ROOT)
    assert ended.returncode == 2, ended.output
    assert said in ended.output and len(ended.output.splitlines()) == 1, ended.output
    assert not (tmp_path / "run").exists()


def test_processes_whose_launcher_is_killed_stop_with_everything_saved(tmp_path: Path) -> None:
    run = tmp_path / "run"
    launcher = Popen(command(run, "--processes", 2, "--slow", "0.1"), cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)
    wait_until(lambda: lines_in(run / "unbroken/metrics.jsonl") >= 3)
    processes = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    launcher.kill()
    launcher.wait()
    wait_until(lambda: bool(events(run, "stopped")) and not is_held(run / "unbroken"))
    wait_until(lambda: not any(Path("/proc", process).exists() for process in processes))
    [stopped] = events(run, "stopped")
    assert stopped["reason"] == "SIGTERM" and (run / f"iter_{stopped['step']}.pth").is_file()


def wait_until(there: Callable[[], bool]) -> None:
    """Wait for what other processes do."""
    give_up = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_without_restarts_it_is_said_which_process_ended_and_how(tmp_path: Path) -> None:
    ended = run_to_end(command(tmp_path / "run", "--processes", 2, "--crash", "kill@5"), cwd=ROOT)
    assert ended.returncode == 128 + signal.SIGKILL, ended.output
    assert re.search(r"process \d was killed by signal 9 \(SIGKILL\).* the same command goes on", ended.output)
