"""A stranger's script as a whole process: its exit codes, its signals, its words. Each process costs seconds."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, environment, python
from tests.twin.killing import assert_twins, events, lines_in, run_to_end, step_records
from tests.unbroken.conftest import LOOP
from tests.unbroken.real_runs import contents

SLOWLY = "import time; time.sleep(0.03); "


def script(tmp_path: Path, **replaced: str) -> Path:
    """The example with some of its text replaced: `width` for the width, `loop` for something done in each step."""
    text = LOOP.read_text()
    text = text.replace('"width": 64', f'"width": {replaced.get("width", "64")}')
    text = text.replace("loss.backward()", replaced.get("loop", "") + "loss.backward()")
    path = tmp_path / f"loop_{len(list(tmp_path.glob('loop_*.py')))}.py"
    path.write_text(text)
    return path


def begin(command: Sequence[str], run: Path, *, steps: int) -> Popen:
    """Start a process and wait until it has done some steps."""
    process = Popen(command, env=environment(), stdout=PIPE, stderr=STDOUT, text=True, start_new_session=True)
    metrics = run / "unbroken" / "metrics.jsonl"
    wanted, give_up = lines_in(metrics) + steps, time.monotonic() + PATIENCE_S
    while lines_in(metrics) < wanted and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)
    return process


def end(process: Popen) -> str:
    return process.communicate(timeout=PATIENCE_S)[0]


def test_a_changed_shape_ends_with_13_and_touches_nothing(run: Path, tmp_path: Path) -> None:
    before = {name: digest for name, digest in contents(run).items() if "holder.json" not in name}
    session = run_to_end(python(script(tmp_path, width="128"), run.parent, 0))
    assert session.returncode == 13, session.output
    assert "changed: width: 64 -> 128 (shape)" in session.output
    assert 'open_run(..., tag="plain_loop_width_128")' in session.output
    assert "undo the change: width=64" in session.output
    assert "Traceback" not in session.output
    assert {name: digest for name, digest in contents(run).items() if "holder.json" not in name} == before


def test_damage_everywhere_ends_with_12_and_erases_nothing(run: Path) -> None:
    for path in run.glob("iter_*.pth"):
        path.write_bytes(path.read_bytes()[:-100])
    before = {name: digest for name, digest in contents(run).items() if "holder.json" not in name}
    session = run_to_end(python(LOOP, run.parent, 0))
    assert session.returncode == 12, session.output
    assert "all 12 checkpoints here are damaged" in session.output
    assert "Traceback" not in session.output
    assert {name: digest for name, digest in contents(run).items() if "holder.json" not in name} == before


def test_weights_only_end_with_10_and_leave_no_trace_of_a_run(run: Path, tmp_path: Path) -> None:
    from tests.unbroken.launch.test_gather import weights_of

    weights = weights_of(run / "iter_120.pth", tmp_path / "best.pth")
    text = script(tmp_path).read_text().replace("save_every=10", f"save_every=10, ckpt={str(weights)!r}")
    path = tmp_path / "from_weights.py"
    path.write_text(text)
    session = run_to_end(python(path, tmp_path / "new", 0))
    assert session.returncode == 10, session.output
    assert "without optimizer state" in session.output and "Traceback" not in session.output
    assert not (tmp_path / "new").exists()


def test_a_finished_run_does_nothing_and_ends_with_0(run: Path, finished_run: Path) -> None:
    session = run_to_end(python(LOOP, run.parent, 0))
    assert session.returncode == 0, session.output
    assert "plan: FINISHED" in session.output
    assert step_records(run) == step_records(finished_run)
    assert re.search(r"after 120 steps: f\(0.5\) = -?\d\.\d+", session.output)


def test_a_second_process_is_refused_and_after_a_sigkill_the_lock_is_free_at_once(
    finished_run: Path, tmp_path: Path
) -> None:
    hangs = script(tmp_path, loop="import time; time.sleep(600 if run.step == 13 else 0); ")
    run = tmp_path / "output" / "plain_loop"
    first = begin(python(hangs, run.parent, 2), run, steps=13)
    second = run_to_end(python(LOOP, run.parent, 0))
    assert second.returncode == 11, second.output
    assert f"process {first.pid} on {socket.gethostname()}, since 20" in second.output
    assert "Traceback" not in second.output
    assert first.poll() is None, "the first process goes on"
    first.kill()
    end(first)
    third = run_to_end(python(LOOP, run.parent, 0))
    assert third.returncode == 0, third.output
    assert f"the last session (process {first.pid} on {socket.gethostname()}, since " in third.output
    assert "its lock is taken over" in third.output
    assert "bit-identical" in third.output
    assert_twins(run, finished_run, "iter_120.pth")


@pytest.mark.skipif(os.name == "nt", reason="these signals are of POSIX")
def test_every_signal_that_asks_saves_the_exact_step_and_the_next_launch_continues_there(
    finished_run: Path, tmp_path: Path
) -> None:
    slow = script(tmp_path, loop=SLOWLY)
    run = tmp_path / "output" / "plain_loop"
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        process = begin(python(slow, run.parent, 0), run, steps=7)
        process.send_signal(getattr(signal, name))
        output = end(process)
        assert process.returncode == 75, output
        done = max(step_records(run))
        assert f"stopped by {name} after step {done}: everything is saved" in output
        assert "to continue, run: " in output
        assert (run / f"iter_{done}.pth").exists()
        assert events(run, "stopped")[-1]["step"] == done
    starts = [event["plan"].get("step", 0) for event in events(run, "session")]
    assert starts == [0, *(event["step"] for event in events(run, "stopped")[:-1])], "no step was done twice"
    last = run_to_end(python(LOOP, run.parent, 2))
    assert last.returncode == 0, last.output
    assert_twins(run, finished_run, "iter_120.pth")
    assert lines_in(run / "unbroken" / "metrics.jsonl") == 120


def test_a_second_ctrl_c_ends_a_step_that_hangs_and_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    sign = tmp_path / "it hangs"
    there = f"pathlib.Path({str(sign)!r}).touch()"
    hangs = script(tmp_path, loop=f"import pathlib, time; run.step == 14 and ({there}, time.sleep(60)); ")
    run = tmp_path / "output" / "plain_loop"
    process = begin(python(hangs, run.parent, 0), run, steps=14)
    while not sign.exists():
        assert process.poll() is None
        time.sleep(0.01)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    output = end(process)
    assert process.returncode in (130, -signal.SIGINT), output  # a shell calls both 130
    names = sorted(path.name for path in run.glob("iter_*.pth"))
    assert "iter_10.pth" in names
    assert not (run / "iter_15.pth").exists(), "the step in progress was not finished"
