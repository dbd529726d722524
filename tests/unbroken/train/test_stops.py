"""Real signals to real processes, at the moments in which nothing polls: each ends at once, with everything saved."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, environment, python
from unbroken.clock import SystemClock
from unbroken.errors import STOPPED
from unbroken.journal import read_events
from unbroken.run import ITERATIONS, Survey
from unbroken.run.survey import survey
from unbroken.storage import Disk
from unbroken.storage.lock import read_holder
from unbroken.storage.stop_request import ask_to_stop
from unbroken.train import read_checkpoint

SCRIPT = Path(__file__).with_name("slow_data.py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc as Linux has them")


def begin(folder: Path, what: str, workers: int, **how: object) -> Popen:
    """A training that has come to the moment `what`."""
    how = {"stdout": PIPE, "stderr": STDOUT, **how}
    process = Popen(python(SCRIPT, folder, what, workers), env=environment(), text=True, **how)  # type: ignore[call-overload]
    give_up = time.monotonic() + PATIENCE_S
    while not (folder / "waiting").exists():
        assert process.poll() is None and time.monotonic() < give_up, process.communicate()
        time.sleep(0.02)
    time.sleep(0.3)  # into the wait itself
    return process


def end(process: Popen) -> str:
    """What it said; it must end long before the wait it was in."""
    output, _ = process.communicate(timeout=PATIENCE_S)
    return output


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def found(folder: Path) -> Survey:
    return survey(folder / "runs" / "t", ITERATIONS)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_a_stop_does_not_wait_for_a_batch_that_never_comes(tmp_path: Path, name: str, workers: int) -> None:
    process = begin(tmp_path, "data", workers)
    loading = children_of(process.pid)
    process.send_signal(getattr(signal, name))
    output = end(process)
    assert process.returncode == STOPPED, output
    assert f"stopped by {name} after step 6: everything is saved; 74 steps of 80 are left" in output
    assert "Traceback" not in output and "DataLoader" not in output, output
    assert not [pid for pid in loading if Path(f"/proc/{pid}").exists()], "a worker outlived its trainer"
    left = found(tmp_path)
    assert left.newest_good is not None and left.newest_good.step == 6
    assert not left.held and left.holder is not None and left.holder.released
    assert read_checkpoint(tmp_path / "runs/t/iter_6.pth")["unbroken"]["position"] == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_does_not_wait_for_a_validation_that_hangs(tmp_path: Path, workers: int) -> None:
    process = begin(tmp_path, "validation", workers)
    process.terminate()
    output = end(process)
    assert process.returncode == STOPPED, output
    assert "stopped by SIGTERM after step 3: everything is saved" in output
    left = found(tmp_path)
    assert left.newest_good is not None and left.newest_good.step == 3


def test_a_request_is_found_while_a_batch_never_comes(tmp_path: Path) -> None:
    process = begin(tmp_path, "data", 2)
    own = tmp_path / "runs/t/unbroken"
    holder = read_holder(own)
    assert holder is not None
    ask_to_stop(Disk(), own, SystemClock(), holder)
    output = end(process)
    assert process.returncode == STOPPED, output
    assert "stopped by `unbroken stop` after step 6: everything is saved" in output


def test_in_the_middle_of_a_step_whose_data_never_comes_the_state_before_it_is_saved(tmp_path: Path) -> None:
    process = begin(tmp_path, "step", 2)
    process.terminate()
    output = end(process)
    assert process.returncode == STOPPED, output
    assert "stopped by SIGTERM after step 1: everything is saved" in output
    left = found(tmp_path)
    assert left.newest_good is not None and left.newest_good.step == 1


def test_a_stop_during_a_save_lets_it_be_written(tmp_path: Path) -> None:
    process = begin(tmp_path, "save", 0)
    process.terminate()
    output = end(process)
    assert process.returncode == STOPPED, output
    left = found(tmp_path)
    assert left.newest_good is not None and f"after step {left.newest_good.step}: everything is saved" in output
    assert (tmp_path / "runs/t/iter_4.pth").exists() and not left.partials


def test_a_second_ctrl_c_during_a_save_leaves_a_good_checkpoint(tmp_path: Path) -> None:
    process = begin(tmp_path, "save", 0)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    output = end(process)
    assert process.returncode in (130, -signal.SIGINT), output  # a shell calls both 130
    left = found(tmp_path)
    assert left.newest_good is not None and left.newest_good.step >= 4 and not left.held


def test_a_second_ctrl_c_at_a_batch_that_never_comes_is_not_needed_and_harmless(tmp_path: Path) -> None:
    process = begin(tmp_path, "data", 2)
    for _ in range(2):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
    output = end(process)
    assert process.returncode in (STOPPED, 130, -signal.SIGINT), output
    left = found(tmp_path)
    assert left.newest_good is not None and left.newest_good.step >= 4 and not left.held


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_stop_before_the_first_step_changes_nothing(tmp_path: Path, name: str) -> None:
    process = begin(tmp_path, "loading", 0)
    process.send_signal(getattr(signal, name))
    output = end(process)
    assert process.returncode == STOPPED, output
    assert f"stopped by {name} before the first step: nothing was changed" in output
    assert "Traceback" not in output
    left = found(tmp_path)
    assert not left.sessions and not left.held and left.holder is None


def test_a_terminal_that_is_closed_is_a_stop(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = begin(
        tmp_path, "data", 2, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert process.wait(timeout=PATIENCE_S) == STOPPED
    left = found(tmp_path)
    assert left.newest_good is not None and left.newest_good.step == 6 and not left.held
    (stopped,) = [event for event in left.events if event["event"] == "stopped"]
    assert stopped["reason"] == "SIGHUP"


def test_nohup_is_respected(tmp_path: Path) -> None:
    process = begin(tmp_path, "data", 0, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    output = end(process)
    assert process.returncode == STOPPED and "stopped by SIGTERM" in output


def test_a_training_whose_reader_is_gone_goes_on_and_says_so_in_its_log(tmp_path: Path) -> None:
    process = begin(tmp_path, "going", 0)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=PATIENCE_S) == 0
    assert found(tmp_path).finished_at == 80
    (log,) = (tmp_path / "runs/t").glob("*/*.log")
    assert "warning: the output cannot be written (Broken pipe); this log goes on" in log.read_text("utf-8")
    assert read_events(tmp_path / "runs/t/unbroken/journal.jsonl")[-1]["event"] == "finished"
