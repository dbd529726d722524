"""A training that is killed, and whose disk is then lost, goes on elsewhere from its backup and is its twin."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.processes import DEVNULL, PATIENCE_S, Popen, environment, python
from tests.twin.killing import assert_twins, events, kill_after_steps, run_to_end
from unbroken.run.layout import ITERATIONS
from unbroken.run.survey import survey

STEPS = 90
SETTINGS = ("--steps", STEPS, "--save-every", 3, "--dropout", 0.3)
SLOW = ("--slow", 0.03)  # a backup is to come along


def train(run: Path, *options: object) -> list[str]:
    return python("-m", "unbroken", "train", "tests.twin.frail:frail", run, *SETTINGS, *options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody touched."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = run_to_end(train(run))
    assert done.returncode == 0, done.output
    return run


def step_in(dest: Path) -> int:
    """The furthest checkpoint whose manifest is in the backup, by a glance."""
    found = [path.name for path in (dest / "run" / "unbroken" / "manifests").glob("iter_*.pth.json")]
    return max((int(name.removeprefix("iter_").removesuffix(".pth.json")) for name in found), default=0)


def kill_once_backed_up_beyond(step: int, dest: Path, command: list[str], *, pause_s: float) -> None:
    """Where the first records have come, too: until then a backup has a checkpoint alone, and no history before it."""
    process = Popen(command, env=environment(), stdout=DEVNULL, stderr=DEVNULL)
    give_up, journal = time.monotonic() + PATIENCE_S, dest / "run" / "unbroken" / "journal.jsonl"
    while process.poll() is None and time.monotonic() < give_up and not (step_in(dest) > step and journal.exists()):
        time.sleep(0.005)
    time.sleep(pause_s)
    process.kill()
    process.wait()


def test_killed_and_lost_again_and_again_it_ends_as_the_run_that_nobody_touched(tmp_path: Path, whole: Path) -> None:
    seed = 31
    print(f"seed {seed}")
    chance, dest = random.Random(seed), tmp_path / "dest"
    stood = [0]
    for loss in range(3):
        run = tmp_path / f"machine{loss}" / "run"
        command = train(run, *SLOW, "--backup", dest, "--search", dest)
        for _ in range(2):
            kill_once_backed_up_beyond(step_in(dest), dest, command, pause_s=chance.random() * 0.2)
        shutil.rmtree(run)
        found = survey(dest / "run", ITERATIONS, is_copy=True).newest_good
        assert found is not None
        stood.append(found.step)
    last = tmp_path / "last" / "run"
    done = run_to_end(train(last, "--backup", dest, "--search", dest))
    assert done.returncode == 0, done.output
    print(f"the backup stood at step {stood[1:]} when the disk was lost")
    assert stood == sorted(set(stood))
    run_to_end(python("-m", "unbroken", "backup", last, dest))  # if the end was hurried
    for run in (last, dest / "run"):
        assert_twins(run, whole, f"iter_{STEPS}.pth")
    assert all("bit-identical" in event["verdict"] for event in events(last, "replayed"))
    assert run_to_end(python("-m", "unbroken", "audit", dest / "run", "--verify")).returncode == 0


def test_a_lost_run_is_brought_back_and_goes_on_with_the_same_command(tmp_path: Path, whole: Path) -> None:
    run, dest = tmp_path / "cut" / "run", tmp_path / "dest"
    kill_after_steps(run, train(run, *SLOW, "--backup", dest), steps=30)
    assert run_to_end(python("-m", "unbroken", "backup", run, dest)).returncode == 0
    shutil.rmtree(run)
    back = run_to_end(python("-m", "unbroken", "restore", run, "--from", dest))
    assert back.returncode == 0 and "to continue: " in back.output, back.output
    done = run_to_end(train(run, "--backup", dest))
    assert done.returncode == 0, done.output
    assert_twins(run, whole, f"iter_{STEPS}.pth")
