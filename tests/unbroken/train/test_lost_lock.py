"""The lock of a live training is removed under it: it goes on where nobody took the run, and else ends with 11."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, python
from tests.twin.killing import lines_in
from tests.unbroken.report.runs import LOOP
from unbroken.clock import SystemClock
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock, is_held


def until(what: Callable[[], object], process: Popen) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not what():
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.01)


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Popen]:
    """A training that has saved, and is far from its end."""
    command = python(LOOP, tmp_path, json.dumps({"pause_s": 0.02, "epochs": 2000, "save_every": 2, "keep_last": 2}))
    process = Popen(command, stdout=PIPE, stderr=STDOUT, text=True)
    try:
        until(lambda: lines_in(tmp_path / "tiny/unbroken/metrics.jsonl") > 4, process)
        yield process
    finally:
        process.kill()
        process.communicate()


def contents(run: Path) -> dict[str, str]:
    """What belongs to the run: its saves, and its records."""
    files = [path for path in run.rglob("*") if path.is_file() and not path.is_symlink()]
    files = [path for path in files if path.suffix in (".pth", ".jsonl", ".json")]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_one_whose_run_was_taken_ends_and_writes_nothing_into_it_any_more(tmp_path: Path, training: Popen) -> None:
    run = tmp_path / "tiny"
    own, other = run / "unbroken", RunLock(Disk(), run / "unbroken", SystemClock())
    (own / "lock").unlink()
    other.acquire("another")  # at once: the training looks once a second
    output, _ = training.communicate(timeout=PATIENCE_S)
    assert training.returncode == 11, output
    assert re.search("this session's lock was removed, and the run was taken by (another )?process", output), output
    assert is_held(own) and other.session == "another"
    events = [json.loads(line) for line in (own / "journal.jsonl").read_text("utf-8").splitlines()]
    assert not {"failed", "stopped", "finished"} & {event["event"] for event in events}
    saved = [event["file"] for event in events if event["event"] == "saved"]
    assert (run / saved[-1]).exists() and not list(run.rglob("*.partial"))
    before = contents(run)
    other.release()
    assert {**contents(run), "unbroken/holder.json": ""} == {**before, "unbroken/holder.json": ""}


def test_one_whose_run_nobody_took_makes_its_lock_again_and_goes_on(tmp_path: Path, training: Popen) -> None:
    own = tmp_path / "tiny/unbroken"
    (own / "lock").unlink()
    until(lambda: is_held(own), training)
    steps = lines_in(own / "metrics.jsonl")
    until(lambda: lines_in(own / "metrics.jsonl") > steps + 2, training)
    training.terminate()
    output, _ = training.communicate(timeout=PATIENCE_S)
    assert training.returncode == 75, output
    assert "warning: the lock of this run was removed or replaced; nobody took it, it is made again" in output
