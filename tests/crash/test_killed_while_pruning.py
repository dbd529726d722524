"""Killed or cut off from power anywhere in `prune`, a run is usable, and pruning again ends what was begun."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.faulty_disk import Crash, FaultyDisk, UnsyncedDisk
from tests.crash.remains import Image, Medium, lay_out, look
from tests.golden import retention_on_disk
from tests.golden.on_disk import Then
from tests.golden.retention_rows import PER_EPOCH, Row, best, epochs, saves
from tests.processes import DEVNULL, Popen, environment, python, run_command
from unbroken.checkpoint.removal import GOING_SUFFIX
from unbroken.checkpoint.retention import NEVER_FEWER_THAN, Policy
from unbroken.checkpoint.verify import verify_file
from unbroken.journal import read_events
from unbroken.keep.prune import prune
from unbroken.run import EPOCHS
from unbroken.run.candidates import list_candidates
from unbroken.run.layout import manifests, own
from unbroken.run.survey import survey

SEED = 20250101
KILLS = 12
LATEST = replace(epochs(1)[0], name="latest_model.pth", step=47)
ROWS = {
    "by iterations": Row(
        title="",
        files=(*saves(*range(10, 81, 10)), best(20), best(40)),
        pins=("iter_20.pth",),
        best_step=30,
        policy=Policy(keep_last=2),
    ),
    "by epochs": Row(
        title="",
        files=(*epochs(1, 2, 3, 4), LATEST),
        layout=EPOCHS,
        policy=Policy(keep_last=1, keep_every=3),
    ),
    "of another program": Row(
        title="",
        files=tuple(replace(item, maker="OpenPCDet", listed=False) for item in epochs(1, 2, 3, 4, 5)),
        layout=EPOCHS,
        recorded=False,
        policy=Policy(keep_last=2),
    ),
}
STAY = {
    "by iterations": {20, 30, 70, 80, 40},
    "by epochs": {30, 40, 47},
    "of another program": {40, 50},
}
every_kind = pytest.mark.parametrize("kind", ROWS)


def pruned(run: Path, row: Row) -> None:
    prune(run, row.policy, disk=UnsyncedDisk(), clock=Then())


def steps_here(run: Path, row: Row) -> set[int]:
    folder = row.layout.checkpoints(run)
    steps = {file.name: file.step for file in row.files}
    return {steps[path.name] for path in folder.glob("*.pth") if not path.is_symlink()}


def problems(run: Path, row: Row, kind: str, written: Image) -> Iterator[str]:
    """Everything that is wrong with the folder that a fault left."""
    facts = survey(run, row.layout)
    furthest = max(file.step for file in row.files)
    if facts.newest_good is None or facts.newest_good.step != furthest:
        yield f"goes on from {facts.newest_good}"
    folder = row.layout.checkpoints(run)
    states = [item for item in list_candidates(folder, manifests(run)) if item.resumable]
    if sum(verify_file(item.path).state == "good" for item in states) < NEVER_FEWER_THAN:
        yield "fewer than two verified states"
    if not STAY[kind] <= steps_here(run, row):
        yield f"only {steps_here(run, row)} are left"
    for path in folder.glob("*.pth*"):
        if not path.is_symlink() and path.is_file():
            name = path.relative_to(run.parent).as_posix().removesuffix(GOING_SUFFIX)
            if path.read_bytes() != written[name]:
                yield f"{path.name} was changed"


def after_pruning_again(run: Path, row: Row, kind: str) -> Iterator[str]:
    pruned(run, row)
    if steps_here(run, row) != STAY[kind]:
        yield f"pruned again, {steps_here(run, row)} are left"
    yield from (f"{path.name} is still there" for path in run.rglob(f"*{GOING_SUFFIX}"))


def stray_manifests(run: Path, row: Row) -> list[str]:
    names = {path.name for path in row.layout.checkpoints(run).glob("*.pth")}
    return [f"{path.name} is about no file" for path in manifests(run).glob("*") if path.stem not in names]


@every_kind
def test_at_every_instant_two_verified_states_and_all_that_was_to_stay_are_there(tmp_path: Path, kind: str) -> None:
    row, root = ROWS[kind], tmp_path / "root"
    retention_on_disk.lay_out(row, root / "run")
    before, disk = look(root), FaultyDisk()
    prune(root / "run", row.policy, disk=disk, clock=Then())
    assert steps_here(root / "run", row) == STAY[kind]

    medium, wrong, seen = Medium(root, before), [], 0
    known: set[int] = set()
    for number, request in enumerate(disk.requests):
        images = [("kill", medium.now()), *medium.after_power_cut()]
        if request.kind == "write":
            images.append(("kill in the middle of a write", medium.torn(request)))
        for fault, image in images:
            key = hash(tuple(image.items()))
            if key in known:
                continue
            known.add(key)
            seen += 1
            shutil.rmtree(root)
            lay_out(image, root)
            found = [*problems(root / "run", row, kind, before), *after_pruning_again(root / "run", row, kind)]
            if not fault.startswith("power cut"):  # which may bring a manifest back: alone, it harms nobody
                found += stray_manifests(root / "run", row)
            wrong += [f"{fault} before request {number} ({request}): {problem}" for problem in found]
        medium.apply(request)
    print(f"{kind}: {len(disk.requests)} requests, {seen} different states")
    assert seen > len(disk.requests) // 2
    assert not wrong, f"{len(wrong)} problems\n" + "\n".join(wrong[:20])


@every_kind
def test_a_prune_that_really_stops_at_a_request_is_ended_by_the_next_one(tmp_path: Path, kind: str) -> None:
    row = ROWS[kind]
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    counting = FaultyDisk()
    retention_on_disk.lay_out(row, tmp_path / "whole" / "run")
    prune(tmp_path / "whole" / "run", row.policy, disk=counting, clock=Then())
    for number in chance.sample(range(len(counting.requests)), KILLS):
        root = tmp_path / f"at_{number}"
        retention_on_disk.lay_out(row, root / "run")
        before, disk = look(root), FaultyDisk(crash_at=number)
        with pytest.raises(Crash):
            prune(root / "run", row.policy, disk=disk, clock=Then())
        disk.bury()
        assert [*problems(root / "run", row, kind, before), *after_pruning_again(root / "run", row, kind)] == []


@pytest.mark.parametrize("kind", ["by iterations", "by epochs"])
def test_a_real_process_that_is_killed_at_any_instant_loses_nothing_that_was_to_stay(tmp_path: Path, kind: str) -> None:
    count = 60
    files = saves(*range(10, 10 * count + 1, 10)) if kind == "by iterations" else epochs(*range(1, count + 1))
    unit = 1 if kind == "by iterations" else PER_EPOCH
    row = replace(ROWS[kind], files=files, pins=(), best_step=None, policy=Policy(keep_last=2, keep_every=100))
    folder = retention_on_disk.lay_out(row, tmp_path / "run")
    run, wanted = tmp_path / "run", {10 * count, 10 * (count - 1)} | {n for n in range(10, 601, 10) if n % 100 == 0}
    wanted = wanted if unit == 1 else {10 * count, 10 * (count - 1)}
    print(f"seed {SEED}")
    chance, kills = random.Random(SEED), 0
    command = python("-m", "unbroken", "prune", run, "--keep-last", 2, "--keep-every", 100)
    for _ in range(KILLS):
        goal = len(list(folder.glob("*.pth"))) - chance.randint(1, 8)
        process = Popen(command, env=environment(), stdout=DEVNULL, stderr=DEVNULL)
        give_up = time.monotonic() + 60
        while process.poll() is None and len(list(folder.glob("*.pth"))) > goal and time.monotonic() < give_up:
            pass
        process.kill()
        kills += process.wait() != 0
        facts = survey(run, row.layout)
        assert facts.newest_good is not None and facts.newest_good.step == 10 * count
        assert wanted <= steps_here(run, row)
        assert len(list(folder.glob(f"*{GOING_SUFFIX}"))) <= 1, "at most one file is on its way"
    assert kills >= 3, "most processes were killed before they were done"
    done = run_command(command)
    assert done.returncode == 0, done.stderr
    assert steps_here(run, row) == wanted
    assert not list(folder.glob(f"*{GOING_SUFFIX}"))
    removed = {event["file"] for event in read_events(own(run) / "journal.jsonl") if event["event"] == "removed"}
    gone = {file.name for file in files if file.step not in wanted}
    assert removed == gone, "the journal has seen each of them go"
