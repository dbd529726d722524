"""A session of which nothing is left: exit code 75 wherever a training was to go on, and not a byte is changed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.processes import environment, run_command
from tests.unbroken.cli.typing_commands import Type, contents

RUN = Path("work_dirs/small")
TRAIN = ["train", "mapsage", "small.py"]
NOW = datetime.now(UTC).timestamp()
ENDS = {
    "its end, in seconds": {"UNBROKEN_SESSION_END": f"{NOW - 5:.0f}"},
    "its end, as a time": {"UNBROKEN_SESSION_END": "2026-01-01T00:00:00+00:00"},
    "a batch job's end": {"SLURM_JOB_END_TIME": f"{NOW + 10:.0f}"},  # within its reserve
}


@pytest.mark.parametrize("said", ENDS.values(), ids=ENDS)
def test_a_session_that_is_over_is_no_mistake(
    said: dict[str, str], here: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    before = contents(here)
    for command in (TRAIN, [*TRAIN, "--tag", "new"], [*TRAIN, "--fresh"], ["why", *TRAIN[1:]]):
        answer = type_(*command)
        assert answer.code == 75 and "no time is left to train in" in answer.err
        assert next(iter(said)) in answer.err
        assert "run the same command again in the next session" in answer.err and "--until-done" in answer.err
    answer = type_("why", *TRAIN[1:], "--json")
    assert answer.code == 75 and answer.data["error"] == "SessionOver"
    changed = {name for name, what in contents(here).items() if before.get(name) != what}
    assert changed <= {f"{RUN}/unbroken/holder.json", f"{RUN}/unbroken/lock"}
    assert type_("check", *TRAIN[1:]).code == 0  # trains nothing


def test_what_stands_in_the_way_in_any_session_is_said_first(
    here: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type_(*TRAIN).code == 0
    monkeypatch.setenv("UNBROKEN_SESSION_END", f"{NOW - 5:.0f}")
    assert type_(*TRAIN).code == 0  # finished: nothing to do in any session
    assert type_(*TRAIN, "--cfg-options", "model.decode_head.channels=16").code == 13
    assert type_(*TRAIN, "--ckpt", "nowhere.pth").code == 2
    assert type_("train", "mapsage", "nowhere.py").code == 2
    assert type_(*TRAIN, "--tag", "new", "--session", "1h", "--reserve", "2h").code == 2  # so in every session
    assert not Path("work_dirs/new").exists()


def test_a_loop_of_ones_own_and_a_supervised_training_end_alike(here: Path) -> None:
    over = environment(UNBROKEN_SESSION_END=f"{NOW - 5:.0f}")
    program = "from unbroken.train import open_run\nwith open_run('output', tag='mine'):\n    raise SystemExit(1)\n"
    script = here / "loop.py"
    script.write_text(program, "utf-8")
    done = run_command([sys.executable, str(script)], env=over, cwd=here)
    assert done.returncode == 75 and "session_s=SECONDS" in done.stdout and "Traceback" not in done.stderr
    assert not (here / "output").exists()
    command = [sys.executable, "-m", "unbroken", *TRAIN, "--tag", "new", "--restarts", "2"]
    done = run_command(command, env=over, cwd=here)
    assert done.returncode == 75, done.stdout + done.stderr
    assert "started again" not in done.stdout + done.stderr and not (here / "work_dirs/new").exists()
