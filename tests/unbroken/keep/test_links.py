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
from unbroken.clock import SystemClock
from unbroken.errors import DamagedFile, Refused, UsageError
from unbroken.keep.archive import move_history_aside, restore
from unbroken.keep.pack import pack
from unbroken.keep.unpack import unpack
from unbroken.launch import Refuse
from unbroken.launch.disk import sizes_in
from unbroken.report.audit import audit
from unbroken.run import ITERATIONS, RunView, layout_of
from unbroken.run.summary import summary_of
from unbroken.run.survey import survey
from unbroken.train import open_run
from unbroken.train.stop import Exit

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
    return pack(run, out, disk=UnsyncedDisk(), clock=SystemClock()).path


def steps_seen(run: Path, tmp_path: Path) -> dict[str, object]:
    """How far the run is, as everything that looks at it says."""
    file = packed(run, tmp_path / "run.zip")
    unpacked = unpack(file, tmp_path / "unpacked", disk=UnsyncedDisk(), clock=SystemClock())
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
    assert set(RunView(linked, LAYOUT).checkpoint_sizes) == set(names)
    sizes = sizes_in(RunView(linked, LAYOUT))
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
        assert isinstance(verdict, Refuse) and verdict.exit_code == DamagedFile.exit_code
        assert "checkpoint folder not reachable: ckpt -> " in verdict.reasons[0]
    summary = summary_of(linked)
    assert (summary.status, summary.step) == ("not reachable", STEP)
    assert summary.trouble.startswith("checkpoint folder not reachable: ckpt -> ")
    for act in (
        lambda: packed(linked, tmp_path / "run.zip"),
        lambda: backed_up(linked, tmp_path / "dest"),
    ):
        with pytest.raises(DamagedFile, match="not reachable: ckpt ->"):
            act()
    for command in (["ls", str(linked.parent)], ["show", str(linked)]):
        said = type_(*command)
        assert "checkpoint folder not reachable: ckpt -> " in said.out and "lost" not in said.out.split()
    assert contents(linked) == before


@pytest.mark.parametrize("part", ["ckpt", "unbroken", "unbroken/manifests"])
def test_nothing_is_brought_in_the_place_of_a_link_to_nothing(part: str, linked: Path, tmp_path: Path) -> None:
    backed_up(linked, tmp_path / "dest")
    mirror = tmp_path / "dest" / linked.name
    for place in (linked, mirror):
        if (place / part).is_symlink():
            (place / part).unlink()
        else:
            shutil.rmtree(place / part)
        (place / part).symlink_to(tmp_path / "not mounted" / part)
        before = contents(place)
        for act in (lambda: backed_up(linked, tmp_path / "dest"), lambda: brought(linked, tmp_path / "dest")):
            with pytest.raises((DamagedFile, UsageError)):
                act()
        assert contents(place) == before and not (tmp_path / "not mounted").exists()


def test_what_is_missing_behind_the_link_is_brought_back_there(linked: Path, tmp_path: Path) -> None:
    backed_up(linked, tmp_path / "dest")
    behind = tmp_path / "disk" / "ckpt" / "iter_120.pth"
    was = behind.read_bytes()
    behind.unlink()
    assert "ckpt/iter_120.pth" in brought(linked, tmp_path / "dest").brought
    assert behind.read_bytes() == was and (linked / "ckpt").is_symlink()


def test_a_folder_with_nothing_but_the_link_to_its_checkpoints_is_not_empty(linked: Path, tmp_path: Path) -> None:
    backed_up(linked, tmp_path / "dest")
    for path in linked.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    before = contents(linked), contents(tmp_path / "disk")
    assert list(before[0]) == ["ckpt"]
    brought(linked, tmp_path / "dest")
    assert (linked / "ckpt").is_symlink() and contents(tmp_path / "disk") == before[1]
    assert survey(linked, LAYOUT).newest_good is not None


class Swallowing(UnsyncedDisk):
    """A disk that says yes to a rename and has forgotten it."""

    def rename(self, source: Path, target: Path) -> None:
        self.remove(source) if target.name == "iter_120.pth" else super().rename(source, target)


def test_a_backup_whose_newest_checkpoint_did_not_arrive_is_no_success(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="step 120 did not arrive: what is here goes on from step 110"):
        backed_up(run, tmp_path / "dest", disk=Swallowing())
    assert backed_up(run, tmp_path / "dest").step == STEP


def test_a_parcel_without_the_newest_checkpoint_is_not_kept(run: Path, tmp_path: Path) -> None:
    shutil.copyfile(run / "iter_10.pth", run / "ITER_120.pth")  # the same name, where letters have no case
    with pytest.raises(DamagedFile, match=r"without iter_120.pth could not be continued at step 120"):
        packed(run, tmp_path / "run.zip")
    assert not list(tmp_path.glob("run.zip*"))


@pytest.mark.parametrize("relative", [False, True])
def test_a_history_behind_a_link_comes_back_out_of_the_archive(linked: Path, tmp_path: Path, *, relative: bool) -> None:
    if relative:
        (linked / "ckpt").unlink()
        (linked / "ckpt").symlink_to("../../disk/ckpt")
    target = linked / "archive" / "20261101_080000"
    move_history_aside(UnsyncedDisk(), linked, target)
    aside = survey(target, layout_of(target)).newest_good
    assert aside is not None and aside.step == STEP
    restore(linked, target.name, disk=UnsyncedDisk(), clock=SystemClock())
    back = survey(linked, layout_of(linked)).newest_good
    assert back is not None and back.step == STEP and (linked / "ckpt").resolve() == tmp_path / "disk" / "ckpt"


def test_a_link_into_a_data_set_is_named_and_left_out(run: Path, tmp_path: Path, type_: Type) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scene.npy").write_bytes(b"large")
    (run / "data").symlink_to(tmp_path / "data")
    said = type_("pack", run, tmp_path / "run.zip")
    assert said.code == 0 and "left out: data - a link that is not followed" in said.out
    assert "data" in backed_up(run, tmp_path / "dest").links


@pytest.mark.parametrize("part", ["", "unbroken"])
def test_a_training_writes_nothing_in_the_place_of_a_link_to_nothing(
    part: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = run / part
    shutil.rmtree(place)
    place.symlink_to(tmp_path / "not mounted")
    before = contents(tmp_path)
    with pytest.raises(Exit) as ended:
        open_run(run.parent, tag=run.name)
    assert ended.value.code == DamagedFile.exit_code and "not reachable: " in capsys.readouterr().out
    assert contents(tmp_path) == before


def test_nothing_is_brought_through_a_link_that_is_none_of_the_runs_own_folders(run: Path, tmp_path: Path) -> None:
    (run / "notes").mkdir()
    (run / "notes" / "a.txt").write_text("mine")
    backed_up(run, tmp_path / "dest")
    shutil.rmtree(run / "notes")
    (tmp_path / "elsewhere").mkdir()
    (run / "notes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="leads out of the folder that is written"):
        brought(run, tmp_path / "dest")
    assert not list((tmp_path / "elsewhere").iterdir())
