"""What is said of runs on a file system without locks is true, and they can be trained there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S, environment, python
from tests.twin.killing import lines_in
from tests.unbroken.report.runs import LOOP
from tests.without_locks import flock_answers

WORDS = "this file system has no locks: a lock file with a sign of life every 10 s stands in"
ASKING = (
    "import sys; from unbroken.cli import main\n"
    "for words in sys.argv[1].split(';'):\n"
    "    print('rc', main(words.split()), flush=True)\n"
)


def asked(answer: int, *commands: str) -> str:
    """What commands say one after the other where flock answers so, in one process."""
    command = python("-c", ASKING, ";".join(commands))
    done = subprocess.run(
        command, env=environment(), preexec_fn=flock_answers(answer), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.EOPNOTSUPP], ids=["ENOLCK", "EOPNOTSUPP"])
def test_a_run_that_is_finished_is_called_so_and_nobody_waits_for_a_process_that_is_not_there(
    answer: int, run: Path
) -> None:
    root = run.parent
    (run / "unbroken/lock").write_bytes(b"")  # as a copy brings it along
    said = asked(
        answer,
        f"ls {root} --json",
        f"log {root}",
        f"show {run}",
        f"stop {run}",
        f"watch {run}",
        f"prune {run} --keep-last 3",
    )
    assert said.count("rc 0") == 6, said
    assert '"status": "finished"' in said and "nothing to stop, no process holds it" in said
    assert "running" not in (root / "experiments_log.txt").read_text("utf-8")
    assert not list(root.rglob("*.owner")) and not list(root.rglob("*.turn"))


def test_a_training_there_is_seen_as_running_keeps_others_out_and_is_free_once_it_is_killed(tmp_path: Path) -> None:
    run, answer = tmp_path / "tiny", errno.ENOSYS

    def launch(**options: object) -> subprocess.Popen[str]:
        command = python(LOOP, tmp_path, json.dumps(options))
        return subprocess.Popen(
            command,
            env=environment(),
            preexec_fn=flock_answers(answer),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    training = launch(pause_s=0.2, epochs=500)
    try:
        give_up = time.monotonic() + PATIENCE_S
        while lines_in(run / "unbroken/metrics.jsonl") < 6:
            assert training.poll() is None and time.monotonic() < give_up
            time.sleep(0.02)
        said = asked(answer, f"ls {tmp_path} --json", f"prune {run}")
        assert '"status": "running"' in said and "rc 11" in said and f"held by process {training.pid} on" in said
        assert WORDS in said
    finally:
        training.kill()
    output, _ = training.communicate()
    assert f"note: {WORDS}" in output
    said = asked(answer, f"ls {tmp_path} --json", f"stop {run}")
    assert '"status": "killed"' in said and "nothing to stop" in said
    again = launch(epochs=3)
    output, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0 and "its lock is taken over" in output, output
    assert not (run / "unbroken/lock.owner").exists() and os.listdir(run / "unbroken")
