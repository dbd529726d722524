"""`watch` on a real training: through a pipe, at a terminal, killed meanwhile, with files changed under its eyes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import DEVNULL, PATIENCE_S, PIPE, STDOUT, Popen, environment, python
from tests.twin.killing import lines_in
from tests.unbroken.cli.typing_commands import Type, contents, typing
from tests.unbroken.report.runs import LOOP, session
from unbroken.clock import SystemClock
from unbroken.report import Watch
from unbroken.report.status import Follower
from unbroken.storage import Disk

WATCH = ["-m", "unbroken", "watch"]


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)


@contextmanager
def training(folder: Path, **arguments: Any) -> Iterator[Popen]:
    command = python(LOOP, folder, json.dumps({"pause_s": 0.1, "epochs": 8, "evaluate": 8, **arguments}))
    process = Popen(command, env=environment(), stdout=DEVNULL, stderr=DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until_steps(run: Path, steps: int) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while lines_in(run / "unbroken" / "metrics.jsonl") < steps and time.monotonic() < give_up:
        time.sleep(0.02)


def piped(run: Path, *options: str) -> Popen:
    return Popen(
        python(*WATCH, run, "--every", "200ms", *options),
        env=environment(), stdout=PIPE, stderr=STDOUT, text=True,
    )  # fmt: skip


def test_piped_it_prints_plain_lines_and_ends_with_the_run(tmp_path: Path) -> None:
    watching = piped(tmp_path / "tiny", "--wait")
    assert watching.stdout is not None
    first = watching.stdout.readline()
    with training(tmp_path) as process:
        output, _ = watching.communicate(timeout=PATIENCE_S)
        assert process.wait(timeout=20) == 0
    assert watching.returncode == 0, output
    assert all(char.isprintable() or char == "\n" for char in output), output
    lines = output.splitlines()
    assert first.endswith("waiting for the run to begin\n")
    assert any("fresh" in line for line in lines)
    assert any(
        re.search(r"step \d+/48  epoch \d  loss 0\.\d+  lr 5\.00e-02  \d+\.\d\d steps/s", line) for line in lines
    )
    assert any(
        re.search(r"0:00:0\d left  saved iter_\d+\.pth 0:00:0\d ago  best score 0\.\d+ .*free", line) for line in lines
    )
    assert any(re.search(r"evaluated after step 8: score 0.08 \(the best so far\)", line) for line in lines)
    assert lines[-1] == f"{tmp_path / 'tiny'}: finished after step 48/48; no process holds it"


def test_a_training_killed_meanwhile_is_said_with_the_command_that_goes_on(tmp_path: Path) -> None:
    with training(tmp_path) as process:
        until_steps(tmp_path / "tiny", 6)
        watching = piped(tmp_path / "tiny")
        until_steps(tmp_path / "tiny", 20)
        process.kill()
        output, _ = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 0, output
    *_, ended, command = output.splitlines()
    assert re.search(r"tiny: killed after step \d+/48; no process holds it$", ended)
    typed = Path(sys.executable)  # by its name alone in a terminal that finds it under that: an activated environment
    assert command.startswith((f"to go on: {typed} ", f"to go on: {typed.name} ")) and "loop.py" in command


def test_a_training_that_is_stopped_says_by_what(tmp_path: Path) -> None:
    with training(tmp_path) as process:
        until_steps(tmp_path / "tiny", 6)
        watching = piped(tmp_path / "tiny")
        until_steps(tmp_path / "tiny", 12)
        process.terminate()
        output, _ = watching.communicate(timeout=PATIENCE_S)
    assert "tiny: stopped by SIGTERM after step" in output.splitlines()[-2], output


def test_at_a_terminal_it_draws_a_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with training(tmp_path) as process:
        until_steps(tmp_path / "tiny", 6)
        watching = Popen(
            python(*WATCH, tmp_path / "tiny", "--every", "200ms"),
            env=environment(TERM="xterm", COLUMNS="100"), stdout=theirs, stderr=theirs, stdin=theirs,
        )  # fmt: skip
        os.close(theirs)
        shown = read_terminal(ours)
        assert watching.wait(timeout=PATIENCE_S) == 0
        assert process.wait(timeout=20) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "━━━━" in plain and "running  step" in plain and "evaluated after step" in plain
    assert "finished after step 48/48" in plain
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is there again


def read_terminal(descriptor: int) -> str:
    shown = b""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        if select.select([descriptor], [], [], 1.0)[0]:
            try:
                shown += os.read(descriptor, 65536)
            except OSError:  # the other side is closed
                break
    os.close(descriptor)
    return shown.decode()


def test_a_run_that_nobody_holds_is_said_at_once_and_not_touched(tmp_path: Path, type_: Type) -> None:
    run = session(tmp_path, kill_at=7, ends=-9)
    before = contents(tmp_path)
    answer = type_("watch", run)
    assert answer.code == 0
    ended, command = answer.out.splitlines()
    assert ended == f"{run}: killed after step 7; no process holds it" or "killed after step 7/" in ended
    assert command.startswith("to go on: ")
    assert contents(tmp_path) == before


def test_mistakes_are_answered(tmp_path: Path, type_: Type) -> None:
    assert type_("watch", tmp_path / "nothing").code == 2
    run = session(tmp_path, epochs=1)
    answer = type_("watch", run, "--every", "soon")
    assert answer.code == 2 and "a time like 12h" in answer.err


def test_records_of_a_stranger_do_not_steer_the_terminal(tmp_path: Path, type_: Type) -> None:
    run = session(tmp_path, kill_at=7, ends=-9)
    journal = run / "unbroken" / "journal.jsonl"
    journal.write_text(journal.read_text("utf-8").replace('"command":"', '"command":"\\u001b[2J\\n'), "utf-8")
    assert "\x1b" not in type_("watch", run).out


# -- files that change while they are read -----------------------------------------------------------------------------


def test_half_written_replaced_and_truncated_files_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    follower = Follower(file, whole=True)
    assert follower.new() == []
    file.write_bytes(b'{"a": 1}\n{"a": 2')
    assert follower.new() == [{"a": 1}]
    assert follower.new() == []
    with file.open("ab") as more:
        more.write(b'2}\nnot json\n{"a": 3}\n')
    assert follower.new() == [{"a": 22}, {"a": 3}]
    file.write_bytes(b'{"b": 1}\n')  # truncated
    assert follower.new() == [{"b": 1}]
    other = tmp_path / "other"
    other.write_bytes(b'{"c": 1}\n{"c": 2}\n')
    other.replace(file)
    assert follower.new() == [{"c": 1}, {"c": 2}]
    file.unlink()
    assert follower.new() == []


def test_of_a_long_file_only_the_end_is_read(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text("".join(f'{{"step": {step}}}\n' for step in range(100_000)), "utf-8")
    found = Follower(file, whole=False).new()
    assert found[-1] == {"step": 99_999} and len(found) < 20_000


@pytest.mark.parametrize("value", [None, [], {}, "x", -1, True, 10**400, [[1]], float("nan")], ids=lambda v: str(v)[:9])
def test_no_value_of_any_entry_is_a_crash(tmp_path: Path, value: Any) -> None:
    own = tmp_path / "unbroken"
    own.mkdir()
    events = [
        {"event": "session", "session": "s", "plan": {"verdict": "Resume", "step": 4}, "command": "c", "time": "2026"},
        {"event": "saved", "session": "s", "file": "iter_4.pth", "step": 4, "kind": "checkpoint", "time": "2026"},
        {"event": "evaluated", "session": "s", "step": 4, "metrics": {"a": 1.0}, "best": True},
    ]
    steps = [{"step": 5, "session": "s", "epoch": 0, "loss": 1.0, "samples": [1]}]
    for records in (events, steps):
        for record in records:
            for key in list(record):
                before = record[key]
                record[key] = value  # type: ignore[index]
                (own / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")
                (own / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps), "utf-8")
                assert Watch(tmp_path, SystemClock(), Disk()).poll().live is False
                record[key] = before  # type: ignore[index]
