"""A launch looks once; what it decided on before it had the lock is compared with what is there then."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.golden.launch_rows import ROWS
from tests.golden.row import Row
from tests.unbroken.run.test_view import opened
from tests.unbroken.tiny_recipe import HERE, read
from unbroken.cli import main
from unbroken.clock import SystemClock
from unbroken.launch import Environment, Fresh, Job, Plan, Refuse, Resume, decide
from unbroken.launch.decision import Decision, decide_locked, lock_run
from unbroken.launch.disk import policy_of
from unbroken.launch.explain import explain
from unbroken.launch.forecast import Kills
from unbroken.run.layout import own
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock
from unbroken.train import PlainConsole, decide_by_shapes, launch

RECIPE = f"{HERE}:recipe"
_meanwhile: list[Callable[[], None]] = []


def happen(_job: Job) -> list[str]:
    """What a recipe asks before a launch begins: here others are at work at that moment, between look and lock."""
    while _meanwhile:
        _meanwhile.pop()()
    return []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two sessions."""
    place = tmp_path_factory.mktemp("trained")
    for steps in (4, 6):
        assert main(["train", RECIPE, str(place / "run"), str(steps)]) == 0
    return place / "run"


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "attached" / "run", symlinks=True))


def launched(run: Path, *search: Path, meanwhile: Callable[[], None] | None = None) -> Plan:
    """What a launch comes to while something else happens between its look and its lock; no step is done."""
    job = replace(read([str(run), "8", *map(str, search)], Environment()), preflight=f"{__name__}:happen")
    _meanwhile[:] = [meanwhile] if meanwhile is not None else []
    with launch(job, console=PlainConsole()) as going:
        assert not _meanwhile, "it happened"
        return going.plan


def test_a_run_that_begins_from_a_copy_opens_each_file_of_the_copy_once(copy: Path, tmp_path: Path) -> None:
    plans: list[Plan] = []
    times = opened(lambda: plans.append(launched(tmp_path / "new" / "run", copy.parent)), copy)
    assert isinstance(plans[0], Resume) and plans[0].source.step == 6
    assert times["iter_6.pth"] == 1, "what is read to verify it is kept until it is loaded"
    assert times["unbroken/journal.jsonl"], "it was heard"
    assert {file: count for file, count in times.items() if count > 1} == {}


def test_a_run_that_another_process_began_and_left_meanwhile_is_resumed(copy: Path, tmp_path: Path) -> None:
    run = tmp_path / "new" / "run"
    assert isinstance(launched(run), Fresh)
    plan = launched(run, meanwhile=lambda: shutil.copytree(copy, run, symlinks=True) and None)
    assert isinstance(plan, Resume) and plan.source.path == run / "iter_6.pth"


def test_a_folder_that_another_process_made_meanwhile_and_left_empty_is_begun_in(tmp_path: Path) -> None:
    run = tmp_path / "new" / "run"
    assert isinstance(launched(run, meanwhile=lambda: run.mkdir(parents=True)), Fresh)


@pytest.mark.parametrize("how", ["removed", "damaged", "replaced"])
def test_a_copy_that_is_another_by_now_is_looked_at_again(how: str, copy: Path, tmp_path: Path) -> None:
    def change() -> None:
        file = copy / "iter_6.pth"
        if how == "removed":
            file.unlink()
        elif how == "damaged":
            os.truncate(file, 1000)
        else:
            shutil.copyfile(copy / "iter_4.pth", file)

    plan = launched(tmp_path / "new" / "run", copy.parent, meanwhile=change)
    assert isinstance(plan, Resume) and plan.source.step == 4


def test_a_copy_that_got_further_meanwhile_is_taken_as_far_as_it_is(copy: Path, tmp_path: Path) -> None:
    plan = launched(
        tmp_path / "new" / "run", copy.parent, meanwhile=lambda: main(["train", RECIPE, str(copy), "7"]) and None
    )
    assert isinstance(plan, Resume) and plan.source.step == 7


@pytest.mark.parametrize(
    "row", [row for row in ROWS if not isinstance(decide(row.job, row.facts), Refuse)], ids=lambda row: row.title
)
def test_what_a_launch_came_to_can_be_sent_to_other_processes(row: Row) -> None:
    plan = decide(row.job, row.facts)
    assert not isinstance(plan, Refuse)
    kills = Kills(trained_s=60.0, count=2)
    sent = Decision(
        plan=plan, session="20261130_120000", seed=7, conditions={"threads": 2}, timing={"steps": 3}, kills=kills
    )
    assert_travels(row.job, sent)


def test_so_can_what_a_real_launch_came_to(copy: Path, tmp_path: Path) -> None:
    clock, disk = SystemClock(), Disk()
    begun = read([str(tmp_path / "new" / "run"), "8", str(copy.parent)], Environment())
    for job in (read([str(copy), "8"], Environment()), begun):
        run = lock_run(job, RunLock(disk, own(job.directory), clock), clock=clock, by_shapes=decide_by_shapes)
        decision, files = decide_locked(
            job, run, disk=disk, clock=clock, by_shapes=decide_by_shapes, saves=policy_of(job), say=lambda _line: None
        )
        run.lock.withdraw()
        assert decision.session == files.session and decision.timing["steps"] and decision.conditions["threads"]
        assert_travels(job, decision)


def assert_travels(job: Job, sent: Decision) -> None:
    """Another process gets the same, and says the same of it."""
    got = pickle.loads(pickle.dumps(sent))
    assert got == sent
    assert explain(job, got.plan).lines == explain(job, sent.plan).lines
    assert explain(job, got.plan).data == explain(job, sent.plan).data
