"""`unbroken stop` on real trainings: from another terminal, from another machine, and in vain."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, environment, python
from tests.twin.killing import lines_in
from tests.unbroken.cli.typing_commands import Type, contents, typing
from tests.unbroken.report.runs import LOOP, session
from unbroken.clock import SystemClock
from unbroken.journal import read_events
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock, is_held


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)


@contextmanager
def training(folder: Path, **arguments: Any) -> Iterator[Popen]:
    """A training of 48 steps that has done some of them."""
    command = python(LOOP, folder, json.dumps({"pause_s": 0.2, "epochs": 8, **arguments}))
    process = Popen(command, env=environment(), stdout=PIPE, stderr=STDOUT, text=True)
    try:
        give_up = time.monotonic() + PATIENCE_S
        while lines_in(folder / "tiny/unbroken/metrics.jsonl") < 4:
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def ending(process: Popen) -> str:
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75, output
    return output


def seem_elsewhere(run: Path) -> None:
    """Let the holder look like a process of another machine: no signal can reach it."""
    file = run / "unbroken" / "holder.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "host": "another"}), "utf-8")


def test_it_stops_a_training_waits_for_it_and_says_how_far_it_got(tmp_path: Path, type_: Type) -> None:
    run = tmp_path / "tiny"
    with training(tmp_path) as process:
        answer = type_("stop", run)
        assert not is_held(run / "unbroken"), "it waited"
        output = ending(process)
    (stopped,) = [event for event in read_events(run / "unbroken/journal.jsonl") if event["event"] == "stopped"]
    step = stopped["step"]
    assert stopped["reason"] == "`unbroken stop`"
    assert answer.code == 0, answer.err
    asked, said, command = answer.out.splitlines()
    assert re.fullmatch(rf"{run}: process {process.pid} on \S+, since .+ is asked to stop", asked)
    assert said == f"{run}: stopped by `unbroken stop` after step {step} of 48"
    typed = Path(sys.executable)  # by its name alone in a terminal that finds it under that: an activated environment
    assert command.startswith((f"to go on: {typed} ", f"to go on: {typed.name} "))
    assert f"stopped by `unbroken stop` after step {step}: everything is saved" in output
    assert (run / f"iter_{step}.pth").exists() and not (run / "unbroken/stop.json").exists()


def test_a_process_that_no_signal_reaches_reads_the_request(tmp_path: Path, type_: Type) -> None:
    run = tmp_path / "tiny"
    with training(tmp_path) as process:
        seem_elsewhere(run)
        answer = type_("stop", run)
        output = ending(process)
    assert answer.code == 0 and "is asked to stop, it looks about once a second" in answer.out
    assert "stopped by `unbroken stop` after step" in output
    assert not (run / "unbroken/stop.json").exists()


def test_with_no_wait_it_only_asks(tmp_path: Path, type_: Type) -> None:
    run = tmp_path / "tiny"
    with training(tmp_path) as process:
        seem_elsewhere(run)
        answer = type_("stop", run, "--no-wait")
        assert len(answer.out.splitlines()) == 1 and answer.code == 0
        ending(process)


def test_a_process_of_the_same_number_that_does_not_hold_the_run_gets_no_signal(tmp_path: Path, type_: Type) -> None:
    run = tmp_path / "tiny"
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        with training(tmp_path) as process:
            file = run / "unbroken" / "holder.json"
            file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "pid": bystander.pid}), "utf-8")
            answer = type_("stop", run)
            ending(process)
        assert answer.code == 0 and bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_nothing_to_stop_is_said_and_changes_nothing(tmp_path: Path, type_: Type) -> None:
    run = session(tmp_path)
    before = contents(run)
    answer = type_("stop", run)
    assert answer.code == 0
    assert re.fullmatch(
        rf"{run}: nothing to stop, no process holds it \(finished after step \d+ of \d+\)\n", answer.out
    )
    assert contents(run) == before


def test_a_request_for_an_earlier_session_stops_nobody_and_is_removed(tmp_path: Path) -> None:
    run = tmp_path / "tiny"
    (run / "unbroken").mkdir(parents=True)
    request = {"session": "20240101_000000", "host": "another", "pid": 1, "time": "2099-01-01T00:00:00+00:00"}
    (run / "unbroken/stop.json").write_text(json.dumps(request), "utf-8")
    with training(tmp_path, pause_s=0.05) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output
    assert "a request to stop that was meant for an earlier session is ignored and removed" in output
    assert not (run / "unbroken/stop.json").exists()


def test_a_request_left_for_a_machine_whose_lock_is_not_seen_harms_no_later_session(
    tmp_path: Path, type_: Type
) -> None:
    run = tmp_path / "tiny"
    with training(tmp_path) as process:
        process.kill()
        process.wait()
    seem_elsewhere(run)
    answer = type_("stop", run)
    assert answer.code == 0 and "a request is left for it" in answer.out
    with training(tmp_path, pause_s=0.0) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, type_: Type) -> None:
    answer = type_("stop", tmp_path)
    assert answer.code == 2 and "this is not a run" in answer.err


def test_it_loads_no_torch(tmp_path: Path) -> None:
    run = session(tmp_path)
    program = (
        f"import sys; from unbroken.cli import main; main(['stop', {str(run)!r}]); assert 'torch' not in sys.modules"
    )
    subprocess.run(python("-c", program), env={**environment(), **os.environ}, check=True, timeout=60)


def test_a_command_that_ends_by_itself_is_no_training_to_stop_and_is_named(tmp_path: Path, type_: Type) -> None:
    """It has nothing to save: a signal would only break it off."""
    run = session(tmp_path)
    lock = RunLock(Disk(), run / "unbroken", SystemClock())
    lock.acquire("restore")
    try:
        answer, refused = type_("stop", run), type_("prune", run)
    finally:
        lock.release()
    holder = rf"`unbroken restore` \(process {os.getpid()} on \S+, since [^)]+\)"
    assert re.fullmatch(rf"{run}: nothing is stopped, {holder} is no training and ends by itself\n", answer.out)
    assert not (run / "unbroken/stop.json").exists()
    assert re.fullmatch(rf"{run}: the run is held by {holder}\. Wait for it\.\n", refused.err)
