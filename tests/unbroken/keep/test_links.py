"""A run whose parts lie behind links: everybody sees the same files; what cannot be reached is never called lost."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.faulty_disk import UnsyncedDisk
from tests.unbroken.cli.typing_commands import Type, contents, typing
from tests.unbroken.keep.test_backup import backed_up, brought
from tests.unbroken.real_runs import job, newest, plan, set_record
from unbroken.errors import Refused
from unbroken.keep.packing import Wanted, pack
from unbroken.keep.unpacking import unpack
from unbroken.launch import Refuse
from unbroken.launch.disk_facts import sizes_in
from unbroken.report.audit import audit
from unbroken.run import ITERATIONS, layout_of
from unbroken.run.folder import files_of
from unbroken.run.summary import summary_of
from unbroken.run.survey import survey
from unbroken.values import SystemClock

LAYOUT = dataclasses.replace(ITERATIONS, checkpoint_folder="ckpt")
STEP = 120
Ruin = Callable[[Path, Path], None]


@pytest.fixture
def linked(run: Path, tmp_path: Path) -> Path:
    """A run whose checkpoint folder is a link to another disk."""
    set_record(run, layout=LAYOUT.as_plain())
    elsewhere = tmp_path / "disk" / "ckpt"
    elsewhere.mkdir(parents=True)
    for path in run.glob("*.pth"):
        path.rename(elsewhere / path.name)
    (run / "ckpt").symlink_to(elsewhere)
    return run


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)


def move_behind_link(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, to)
    path.symlink_to(to)


def move_file(run: Path, disk: Path) -> None:
    move_behind_link(newest(run), disk / "moved" / "iter_120.pth")


def move_folder(name: str) -> Ruin:
    return lambda run, disk: move_behind_link(run / name, disk / name)


def move_record(run: Path, disk: Path) -> None:
    move_behind_link(run / "unbroken" / "journal.jsonl", disk / "journal.jsonl")


def move_manifest(run: Path, disk: Path) -> None:
    name = "unbroken/manifests/iter_120.pth.json"
    move_behind_link(run / name, disk / name)


def move_run(run: Path, disk: Path) -> None:
    move_behind_link(run, disk / "runs" / run.name)


MOVED = {
    "one checkpoint": move_file,
    "unbroken": move_folder("unbroken"),
    "manifests": move_folder("unbroken/manifests"),
    "configs": move_folder("unbroken/configs"),
    "curves": move_folder("tensorboard"),
    "the journal": move_record,
    "a manifest": move_manifest,
    "the run": move_run,
}


def packed(run: Path, out: Path) -> Path:
    return pack(run, out, Wanted(), disk=UnsyncedDisk(), clock=SystemClock()).path


def steps_seen(run: Path, tmp_path: Path) -> dict[str, object]:
    """How far the run is, as everything that looks at it says."""
    file = packed(run, tmp_path / "run.zip")
    unpacked = unpack(file, tmp_path / "unpacked", disk=UnsyncedDisk())
    backup = backed_up(run, tmp_path / "dest")
    mirrored = survey(backup.mirror, layout_of(backup.mirror), is_copy=True)
    restored = brought(tmp_path / "away" / run.name, tmp_path / "dest")
    found = {
        "launch": survey(run, layout_of(run)),
        "unpack": unpacked.facts,
        "backup": mirrored,
        "restore": restored.facts,
    }
    steps: dict[str, object] = {name: one.newest_good and one.newest_good.step for name, one in found.items()}
    return steps | {"ls": summary_of(run).step, "backup says": backup.step}


@pytest.mark.parametrize("how", MOVED)
def test_everybody_sees_what_was_moved_behind_a_link(how: str, run: Path, tmp_path: Path) -> None:
    before = summary_of(run)
    MOVED[how](run, tmp_path / "disk")
    assert set(steps_seen(run, tmp_path).values()) == {STEP}
    now = summary_of(run)
    assert (now.status, now.size_bytes) == (before.status, before.size_bytes)


def test_a_checkpoint_folder_that_is_a_link_travels_whole(linked: Path, tmp_path: Path) -> None:
    before = contents(linked), contents(tmp_path / "disk")
    assert set(steps_seen(linked, tmp_path).values()) == {STEP}
    names = sorted(path.name for path in (tmp_path / "disk" / "ckpt").glob("*.pth") if not path.is_symlink())
    for copy in (tmp_path / "unpacked", tmp_path / "dest" / linked.name, tmp_path / "away" / linked.name):
        assert sorted(p.name for p in (copy / "ckpt").glob("*.pth") if not p.is_symlink()) == names
        assert not (copy / "ckpt").is_symlink()
    assert (contents(linked), contents(tmp_path / "disk")) == before
    assert {step.path.name for step in survey(linked, LAYOUT).candidates} == set(names)
    assert set(files_of(str(linked), {"layout": LAYOUT.as_plain()}).sizes) == set(names)
    sizes = sizes_in(linked, LAYOUT)
    assert sizes is not None and sizes.save > 0
    assert not audit(linked).findings


def test_a_link_beside_the_checkpoints_is_followed_to_a_folder_of_the_run_itself(linked: Path, tmp_path: Path) -> None:
    (linked / "ckpt").unlink()
    shutil.move(tmp_path / "disk" / "ckpt", linked / "states")
    (linked / "ckpt").symlink_to("states")
    assert set(steps_seen(linked, tmp_path).values()) == {STEP}
    assert not (tmp_path / "unpacked" / "states").exists(), "each file travels once"


def loop(run: Path, disk: Path) -> None:
    disk.mkdir(exist_ok=True)
    (disk / "back").symlink_to(run)
    (run / "ckpt").unlink()
    (run / "ckpt").symlink_to(disk / "back")


def above(run: Path, _disk: Path) -> None:
    (run / "ckpt").unlink()
    (run / "ckpt").symlink_to("..")


def to_itself(run: Path, _disk: Path) -> None:
    (run / "ckpt").unlink()
    (run / "ckpt").symlink_to("ckpt")


def dangling(run: Path, disk: Path) -> None:
    (disk / "ckpt").rename(disk / "ckpt_not_mounted")


def to_a_file(run: Path, disk: Path) -> None:
    dangling(run, disk)
    (disk / "ckpt").write_text("no folder")


def another_run(run: Path, disk: Path) -> None:
    other = disk / "other"
    shutil.copytree(run, other, symlinks=True)
    (other / "ckpt").unlink()
    (disk / "ckpt").rename(other / "ckpt")
    set_record(other, id="77aa00bb11cc22dd")
    (run / "ckpt").unlink()
    (run / "ckpt").symlink_to(other / "ckpt")


WAYS_OUT = (loop, above, to_itself, dangling, to_a_file, another_run)


@pytest.mark.parametrize("ruin", WAYS_OUT)
def test_a_checkpoint_folder_that_cannot_be_reached_is_said_and_never_lost(
    ruin: Ruin, linked: Path, tmp_path: Path, type_: Type
) -> None:
    ruin(linked, tmp_path / "disk")
    before = contents(linked)
    for asked in (job(linked), job(linked, fresh=True), job(linked, exact=linked / "unbroken" / "run.json")):
        verdict = plan(dataclasses.replace(asked, layout=LAYOUT))
        assert isinstance(verdict, Refuse) and verdict.exit_code == Refused.exit_code
        assert "checkpoint folder not reachable: ckpt -> " in verdict.reasons[0]
    summary = summary_of(linked)
    assert (summary.status, summary.step) == ("not reachable", STEP)
    assert summary.trouble.startswith("checkpoint folder not reachable: ckpt -> ")
    for act in (
        lambda: packed(linked, tmp_path / "run.zip"),
        lambda: backed_up(linked, tmp_path / "dest"),
    ):
        with pytest.raises(Refused, match="not reachable: ckpt ->"):
            act()
    for command in (["ls", str(linked.parent)], ["show", str(linked)]):
        said = type_(*command)
        assert "checkpoint folder not reachable: ckpt -> " in said.out and "lost" not in said.out.split()
    assert contents(linked) == before
