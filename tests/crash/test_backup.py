"""A backup stopped anywhere leaves a mirror that is empty or can be continued from, and goes on to the same end.

Stopped are: every request to the disk (a kill and every state that a power cut may leave), and real processes.
"""

from __future__ import annotations

import errno
import gc
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.crash.faulty_disk import Crash, FaultyDisk, UnsyncedDisk
from tests.crash.remains import Image, Medium, lay_out, look
from tests.crash.sessions import RUN, Session, Ticking, damaged, job_in
from tests.processes import PIPE, STDOUT, Popen, environment, python
from tests.twin.killing import run_to_end
from tests.unbroken.cli.typing_commands import contents
from unbroken.clock import SystemClock
from unbroken.errors import Refused
from unbroken.journal import reached
from unbroken.keep.backup import Backup, back_up
from unbroken.keep.destination import is_vacant
from unbroken.keep.restore import restore_from
from unbroken.launch import Finished, Resume, Start, decide, gather
from unbroken.run import ITERATIONS
from unbroken.run.survey import survey
from unbroken.storage import Disk

SEED = 20261122
OF_THE_COPY = {"unbroken/backup.json", "unbroken/lock", "unbroken/holder.json"}
KILLS = 12


def backed_up(run: Path, dest: Path, disk: Disk | None = None) -> Backup:
    return back_up(run, dest, disk=disk or UnsyncedDisk(), clock=SystemClock())


def files(run: Path) -> dict[str, str]:
    return {name: what for name, what in contents(run).items() if name not in OF_THE_COPY and what != "folder"}


def state_of(dest: Path, elsewhere: Path) -> int | None:
    """The step that a launch elsewhere would continue from the mirror; None if there is nothing of a run yet."""
    mirror = dest / RUN
    facts = survey(mirror, ITERATIONS, is_copy=True)
    job = job_in(elsewhere, Start(search=(dest,)))
    plan = decide(job, gather(job))
    if not facts.events and not facts.candidates:
        assert not isinstance(plan, Resume)
        return None
    assert facts.newest_good is not None
    assert isinstance(plan, Resume) and plan.source.step == facts.newest_good.step, plan
    if facts.events:
        assert reached(mirror / "unbroken" / "metrics.jsonl") >= facts.newest_good.step, "records reach its checkpoint"
    return plan.source.step


def half_way(session: Session) -> Image:
    """The run with its second checkpoint as the newest."""
    return session.at(session.first("create", "iter_6.pth.partial") - 4)


def requests_of(run: Path, dest: Path) -> FaultyDisk:
    disk = FaultyDisk()
    backed_up(run, dest, disk)
    return disk


@pytest.mark.parametrize("begun", [False, True], ids=["a first backup", "a later backup"])
def test_every_kill_and_power_cut_leaves_a_mirror_to_continue_from(
    sessions: dict[str, Session], tmp_path: Path, *, begun: bool
) -> None:
    source, dest, looked = tmp_path / "source", tmp_path / "dest", tmp_path / "looked"
    dest.mkdir()
    if begun:
        lay_out(half_way(sessions["first"]), source)
        backed_up(source / RUN, dest)
        shutil.rmtree(source)
    lay_out(sessions["first"].after, source)
    before = look(dest)
    disk = requests_of(source / RUN, dest)
    medium, seen, images = Medium(dest, before), set(), 0
    for number, request in enumerate(disk.requests):
        torn = [("torn", medium.torn(request))] if request.kind == "write" else []
        medium.apply(request)
        for words, image in [("kill", medium.now()), *torn, *medium.after_power_cut()]:
            key = frozenset((name, str(what)) for name, what in image.items())
            if key in seen:
                continue
            seen.add(key)
            images += 1
            lay_out(image, looked / str(number))
            try:
                step = state_of(looked / str(number), tmp_path / "elsewhere")
            except AssertionError as error:
                raise AssertionError(f"{words} at request {number}, {request}: {error}") from error
            assert step in ((4, 6, 8) if begun else (None, 8)), (words, str(request), step)
            shutil.rmtree(looked / str(number))
    print(f"{len(disk.requests)} requests, {images} different states")
    assert images > 100
    assert files(dest / RUN) == files(source / RUN)


@pytest.mark.parametrize("begun", [False, True], ids=["a first backup", "a later backup"])
def test_a_backup_stopped_at_any_request_goes_on_and_ends_byte_identical(
    sessions: dict[str, Session], tmp_path: Path, *, begun: bool
) -> None:
    source, pattern = tmp_path / "source", tmp_path / "pattern"
    pattern.mkdir()
    if begun:
        lay_out(half_way(sessions["first"]), source)
        backed_up(source / RUN, pattern)
        shutil.rmtree(source)
    lay_out(sessions["first"].after, source)
    wanted, number, over = files(source / RUN), 0, False
    while not over:
        dest = tmp_path / f"dest{number}"
        shutil.copytree(pattern, dest, symlinks=True)
        disk = FaultyDisk(crash_at=number, when=("before", "torn", "after")[number % 3])  # type: ignore[arg-type]
        try:
            backed_up(source / RUN, dest, disk)
            over = True
        except Crash:
            disk.bury()
            gc.collect()  # lets go of the lock, as the death of a process does
        backed_up(source / RUN, dest)
        assert files(dest / RUN) == wanted, number
        assert files(source / RUN) == wanted
        shutil.rmtree(dest)
        number += 3 if number % 2 else 1
    assert number > 60


def test_a_full_disk_at_any_request_is_said_and_the_mirror_goes_on_when_there_is_room(
    sessions: dict[str, Session], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    lay_out(sessions["first"].after, source)
    (tmp_path / "count").mkdir()
    requests = requests_of(source / RUN, tmp_path / "count").requests
    numbers = [number for number, request in enumerate(requests) if request.kind in FaultyDisk.NEEDS_SPACE]
    for number in numbers[::4]:
        dest = tmp_path / f"dest{number}"
        dest.mkdir()
        disk = FaultyDisk(fail_at=number, errno=errno.ENOSPC, stays_full=True)
        try:
            backed_up(source / RUN, dest, disk)
        except Refused as refusal:
            assert "No space left" in str(refusal)
        assert disk.open_files == 0
        state_of(dest, tmp_path / "elsewhere")
        backed_up(source / RUN, dest)
        assert files(dest / RUN) == files(source / RUN)


@pytest.mark.parametrize("there", ["nothing", "behind", "damaged"])
def test_bringing_back_stopped_at_any_request_goes_on_and_never_leaves_half_a_run(
    sessions: dict[str, Session], tmp_path: Path, there: str
) -> None:
    first = sessions["first"]
    source, dest = tmp_path / "source", tmp_path / "dest"
    lay_out(first.after, source)
    dest.mkdir()
    backed_up(source / RUN, dest)
    image: Image = {
        "nothing": {},
        "behind": half_way(first),
        "damaged": damaged(damaged(first.after, f"{RUN}/iter_8.pth"), f"{RUN}/iter_6.pth"),
    }[there]
    wanted = {name for name in files(source / RUN) if name.endswith((".pth", "run.json", "metrics.jsonl"))}
    number, over = 0, False
    while not over:
        place = tmp_path / f"place{number}"
        place.mkdir()
        lay_out(image, place)
        run = place / RUN
        disk = FaultyDisk(crash_at=number, when=("before", "torn", "after")[number % 3])  # type: ignore[arg-type]
        try:
            restore_from(run, dest / RUN, disk=disk, clock=Ticking(first_day()))
            over = True
        except Crash:
            disk.bury()
            gc.collect()
            job = job_in(place)
            if there == "nothing" and not is_vacant(run):
                assert survey(run, ITERATIONS).newest_good is not None
            elif there != "nothing":
                assert isinstance(decide(job, gather(job)), Resume | Finished) or there == "damaged"
            restore_from(run, dest / RUN, disk=UnsyncedDisk(), clock=Ticking(first_day()))
        here, theirs = files(run), files(dest / RUN)
        assert {name: here.get(name) for name in wanted} == {name: theirs[name] for name in wanted}, number
        if there == "nothing":
            assert here == theirs and [path.name for path in place.iterdir()] == [RUN]
        shutil.rmtree(place)
        number += 2
    assert number > 10


def first_day():
    from datetime import UTC, datetime

    return datetime(2025, 2, 1, 12, tzinfo=UTC)


TRAINING = """
import sys
import torch
from torch import nn
from unbroken.train import open_run

with open_run(sys.argv[1], tag="run", seed=3, save_every=1) as run:
    model = nn.Sequential(nn.Linear(4, 600), nn.Linear(600, 600), nn.Linear(600, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    run.track(model=model, optimizer=optimizer)
    for _ in run.steps(20):
        model(torch.randn(4, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 checkpoints of 4 MB."""
    root = tmp_path_factory.mktemp("large")
    done = run_to_end(python("-c", TRAINING, root))
    assert done.returncode == 0, done.output
    return root / "run"


def test_processes_killed_at_random_instants_end_byte_identical_and_verified(large: Path, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance, dest, kills, states = random.Random(SEED), tmp_path / "dest", 0, set()
    command = [sys.executable, "-m", "unbroken", "backup", str(large), str(dest)]
    while kills < KILLS:
        known = {path.name for path in dest.rglob("*") if not path.name.endswith(".partial")}
        process = Popen(command, env=environment(), stdout=PIPE, stderr=STDOUT)
        give_up = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < give_up:
            if {path.name for path in dest.rglob("*")} - known:
                time.sleep(chance.random() * 0.02)
                break
        over = process.poll() is not None
        process.kill()
        output, _ = process.communicate()
        if over:
            assert process.returncode == 0, output
            shutil.rmtree(dest)  # it was too quick: once more from the beginning
            continue
        kills += 1
        found = survey(dest / "run", ITERATIONS, is_copy=True)
        assert found.newest_good is not None or (not found.events and not found.candidates)
        states.add(len(found.candidates))
    print(f"{kills} kills, with so many checkpoints in the mirror: {sorted(states)}")
    last = run_to_end(command)
    assert last.returncode == 0, last.output
    assert files(dest / "run") == files(large)
    verified = run_to_end([sys.executable, "-m", "unbroken", "verify", str(dest / "run")])
    assert verified.returncode == 0, verified.output
    assert "nothing to copy" in run_to_end(command).output
