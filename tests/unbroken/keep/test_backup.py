"""What a backup takes, follows and refuses: decisions, one by one, and on real runs."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.faulty_disk import UnsyncedDisk
from tests.unbroken.cli.typing_commands import contents
from tests.unbroken.real_runs import data_start, edit_json, flip, newest, set_record
from unbroken.clock import SystemClock
from unbroken.errors import Refused, RunHeld, UnbrokenError, UsageError
from unbroken.journal import read_events
from unbroken.keep.backup import Backup, Mirrored, back_up, leaving, removed_saves
from unbroken.keep.destination import mirror_in
from unbroken.keep.restore import Restored, restore_from
from unbroken.keep.sync import set_aside
from unbroken.run.layout import ITERATIONS, own
from unbroken.run.survey import survey
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock

OF_THE_COPY = {"unbroken/backup.json", "unbroken/lock", "unbroken/holder.json"}
JOURNAL, STEPS = "unbroken/journal.jsonl", "unbroken/metrics.jsonl"


def files(run: Path) -> dict[str, str]:
    return {name: what for name, what in contents(run).items() if name not in OF_THE_COPY and what != "folder"}


def backed_up(run: Path, dest: Path, disk: Disk | None = None, **ways: bool) -> Backup:
    return back_up(run, dest, **ways, disk=disk or UnsyncedDisk(), clock=SystemClock())


def brought(run: Path, dest: Path) -> Restored:
    return restore_from(run, mirror_in(run, dest), disk=UnsyncedDisk(), clock=SystemClock())


def append(run: Path, *events: object) -> None:
    with (run / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.writelines(f"{json.dumps(event)}\n" for event in events)


# -- what follows what -------------------------------------------------------------------------------------------------


def item(name: str, step: int, kind: str = "checkpoint", *, verified: bool = True, metric: str = "") -> Mirrored:
    return Mirrored(name=name, kind=kind, step=step, metric=metric, digest=f"of {name}", verified=verified)


def gone(*names: str) -> dict[str, str]:
    return {name: f"of {name}" for name in names}


STATES = [item("c10", 10), item("c20", 20), item("c30", 30), item("c40", 40)]


@pytest.mark.parametrize(
    "mirrored, at_source, removed, wanted",
    [
        (STATES, ["c30", "c40"], gone("c10", "c20"), ["c10", "c20"]),
        (STATES, ["c30", "c40"], gone("c20"), ["c20"]),  # c10 was removed by hand: it stays
        (STATES, ["c40"], gone("c10", "c20", "c30"), ["c10", "c20"]),  # of c30, only one newer is here
        (STATES, STATES, gone("c10"), ["c10"]),
        (STATES[:2], [], gone("c10", "c20"), []),
        ([*STATES[:2], item("c30", 30, verified=False), STATES[3]], [], gone("c10", "c20"), ["c10"]),
        (STATES, ["c10", "c30", "c40"], gone("c10", "c20"), ["c20"]),  # saved anew under the same name
        (STATES, ["c30", "c40"], {"c10": "of another save"}, []),
        ([item("b1", 10, "weights", metric="a"), *STATES], ["c40"], gone("b1"), []),
        (
            [item("b1", 10, "weights", metric="a"), item("b2", 20, "weights", metric="b"), *STATES],
            ["c40"],
            gone("b1"),
            [],
        ),
        (
            [item("b1", 10, "weights", metric="a"), item("b2", 20, "weights", metric="a"), *STATES],
            ["c40"],
            gone("b1"),
            ["b1"],
        ),
    ],
)
def test_what_retention_removed_leaves_once_two_newer_verified_ones_are_here(
    mirrored: list[Mirrored], at_source: list[str | Mirrored], removed: dict[str, str], wanted: list[str]
) -> None:
    names = {one if isinstance(one, str) else one.name for one in at_source}
    if at_source is STATES:
        names -= {"c10"}
    assert [one.name for one in leaving(mirrored, at_source=names, removed=removed)] == wanted


def test_a_name_that_was_saved_again_after_its_removal_is_not_removed() -> None:
    saved, removed = {"event": "saved", "file": "x", "sha256": "1"}, {"event": "removed", "file": "x"}
    assert removed_saves([saved, removed]) == {"x": "sha256:1"}
    assert removed_saves([saved, removed, {**saved, "sha256": "2"}]) == {}
    assert removed_saves([removed, {"event": "removed", "file": ["odd"]}]) == {}


@pytest.mark.parametrize(
    "name, to",
    [("x.pth", "../../tmp"), ("../x.pth", "archive/a"), ("x.pth", "/tmp"), ("a/b", "archive/a"), ("", "archive/a")],
)
def test_a_strangers_journal_moves_nothing_out_of_the_archive(name: str, to: str) -> None:
    assert set_aside([{"event": "set aside", "file": name, "to": to}]) == []
    assert set_aside([{"event": "set aside", "file": "x.pth", "to": "archive\\s"}]) == [("x.pth", "archive/s/x.pth")]


# -- there -------------------------------------------------------------------------------------------------------------


def test_a_backup_is_the_run_itself_and_a_second_one_copies_nothing(run: Path, tmp_path: Path) -> None:
    before = contents(run)
    first = backed_up(run, tmp_path / "dest")
    assert files(tmp_path / "dest" / run.name) == files(run) and contents(run) == before
    assert (first.step, first.kept, set(first.copied)) == (120, 0, set(first.copied))
    mirror = survey(tmp_path / "dest" / run.name, ITERATIONS)
    assert mirror.newest_good is not None and mirror.newest_good.step == 120
    second = backed_up(run, tmp_path / "dest")
    assert not second.copied and second.kept == len(first.copied)


@pytest.mark.parametrize("list_too", [False, True])
def test_scrambled_times_and_a_lost_list_cost_reading_and_no_copying(
    run: Path, tmp_path: Path, *, list_too: bool
) -> None:
    backed_up(run, tmp_path / "dest")
    for path in [*run.rglob("*"), *(tmp_path / "dest").rglob("*")]:
        if path.is_file() and not path.is_symlink():
            os.utime(path, (1_000_000, 1_000_000))
    if list_too:
        (tmp_path / "dest" / run.name / "unbroken" / "backup.json").write_text('{"format": 1, "files": []}')
    assert not backed_up(run, tmp_path / "dest").copied


def test_a_plain_copy_is_taken_over(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "dest" / run.name, symlinks=True)
    (tmp_path / "dest" / run.name / "iter_50.pth").unlink()
    assert set(backed_up(run, tmp_path / "dest").copied) == {"iter_50.pth"}


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_damaged_source_is_said_and_never_copied_over_a_good_file(
    run: Path, tmp_path: Path, *, with_manifest: bool
) -> None:
    backed_up(run, tmp_path / "dest")
    mirror, good = tmp_path / "dest" / run.name, newest(run).read_bytes()
    flip(newest(run), data_start(newest(run)) + 5)
    if not with_manifest:
        (own(run) / "manifests" / "iter_120.pth.json").unlink()
    (run / "iter_110.pth").write_bytes((run / "iter_110.pth").read_bytes()[:999])
    (run / "iter_7.pth").write_bytes(b"no checkpoint at all")
    done = backed_up(run, tmp_path / "dest")
    assert set(done.unsound) == {"iter_120.pth", "iter_110.pth", "iter_7.pth"}
    assert (mirror / "iter_120.pth").read_bytes() == good and not (mirror / "iter_7.pth").exists()
    assert done.step == 120


def test_what_rots_in_the_backup_is_found_and_mended_when_all_is_read_again(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    rotten = tmp_path / "dest" / run.name / "iter_120.pth"
    times = rotten.stat()
    flip(rotten, 5000)
    os.utime(rotten, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not backed_up(run, tmp_path / "dest").copied
    assert set(backed_up(run, tmp_path / "dest", anew=True).copied) == {"iter_120.pth"}
    assert files(tmp_path / "dest" / run.name) == files(run)


def test_retention_is_followed_and_what_was_deleted_by_hand_stays(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    mirror = tmp_path / "dest" / run.name
    for step in (10, 20, 110):
        (run / f"iter_{step}.pth").unlink()
    append(run, *({"event": "removed", "session": "s", "file": f"iter_{step}.pth"} for step in (20, 110)))
    done = backed_up(run, tmp_path / "dest")
    assert done.removed == ("iter_20.pth",)  # of 110, only one newer is there
    assert (mirror / "iter_10.pth").exists() and (mirror / "iter_110.pth").exists()
    assert not (mirror / "unbroken" / "manifests" / "iter_20.pth.json").exists()


def test_what_was_superseded_at_the_source_is_not_continued_from_in_the_mirror(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    mirror, to = tmp_path / "dest" / run.name, "archive/20300101_000000"
    (run / to).mkdir(parents=True)
    for step in (110, 120):
        (run / f"iter_{step}.pth").rename(run / to / f"iter_{step}.pth")
        append(
            run, {"event": "set aside", "session": "s", "file": f"iter_{step}.pth", "to": to, "reason": "superseded"}
        )
    done = backed_up(run, tmp_path / "dest")
    assert done.moved == ("iter_110.pth", "iter_120.pth") and set(done.copied) == {JOURNAL}
    found = survey(mirror, ITERATIONS).newest_good
    assert found is not None and found.step == 100
    assert (mirror / to / "iter_120.pth").exists()


def test_the_archive_is_left_out_when_asked_and_never_written_over(run: Path, tmp_path: Path) -> None:
    old = run / "archive" / "20200101_000000"
    old.mkdir(parents=True)
    (old / "iter_9.pth").write_bytes(b"old")
    backed_up(run, tmp_path / "without", archive=False)
    assert not (tmp_path / "without" / run.name / "archive").exists()
    backed_up(run, tmp_path / "dest")
    (old / "iter_9.pth").write_bytes(b"gone bad")
    backed_up(run, tmp_path / "dest")
    assert (tmp_path / "dest" / run.name / "archive/20200101_000000/iter_9.pth").read_bytes() == b"old"


def test_steps_that_a_crash_undid_are_kept_aside_and_the_record_is_followed(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    before = (run / STEPS).read_bytes()
    (run / STEPS).write_bytes(before[:-400] + b"\n" + b'{"step": 1, "session": "s"}\n' * 40)
    done = backed_up(run, tmp_path / "dest")
    assert len(done.parted) == 1
    assert (tmp_path / "dest" / run.name / done.parted[0]).read_bytes() == before
    assert files(tmp_path / "dest" / run.name)[STEPS] == files(run)[STEPS]


def test_a_large_record_is_continued_and_not_written_anew(run: Path, tmp_path: Path) -> None:
    line = b'{"step": 1, "session": "s"}\n'
    (run / STEPS).write_bytes(line * 60_000)
    backed_up(run, tmp_path / "dest")
    with (run / STEPS).open("ab") as steps:
        steps.write(line * 3)
    done = backed_up(run, tmp_path / "dest")
    assert done.copied == {STEPS: 3 * len(line)}
    with (tmp_path / "dest" / run.name / STEPS).open("ab") as torn:
        torn.write(line[:9])  # a backup that was cut off in the middle of continuing it
    with (run / STEPS).open("ab") as steps:
        steps.write(line)
    backed_up(run, tmp_path / "dest")
    assert files(tmp_path / "dest" / run.name) == files(run)


def test_links_are_named_and_not_followed(run: Path, tmp_path: Path) -> None:
    (run / "data").symlink_to(tmp_path)
    done = backed_up(run, tmp_path / "dest")
    assert done.links == ("data",) and not (tmp_path / "dest" / run.name / "data").exists()
    assert (tmp_path / "dest" / run.name / "latest.pth").is_symlink()


def test_a_link_in_the_mirror_leads_nothing_out_of_it(run: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (run / "eval").mkdir()
    (run / "eval" / "a.txt").write_text("a")
    backed_up(run, tmp_path / "dest")
    shutil.rmtree(tmp_path / "dest" / run.name / "eval")
    (tmp_path / "dest" / run.name / "eval").symlink_to(tmp_path / "outside")
    with pytest.raises(Refused, match="leads out"):
        backed_up(run, tmp_path / "dest")
    assert not any((tmp_path / "outside").iterdir())


def test_odd_names_are_copied_as_they_are(run: Path, tmp_path: Path) -> None:
    for name in ("a:b.txt", "back\\slash.txt", "\x1b[31mred.txt", "中文.txt", "x" * 200):
        (run / name).write_text(name)
    backed_up(run, tmp_path / "dest")
    assert files(tmp_path / "dest" / run.name) == files(run)


def test_a_run_whose_saves_are_replaced_meanwhile_is_backed_up_consistently(run: Path, tmp_path: Path) -> None:
    lock = RunLock(Disk(), own(run), SystemClock())
    lock.acquire("someone")
    stop, source = threading.Event(), newest(run).read_bytes()

    def work() -> None:
        number = 0
        while not stop.wait(0.01):
            number += 1
            append(run, {"event": "noise", "session": "20261120_000000", "number": number})
            partial = run / "iter_119.pth.partial"
            partial.write_bytes(source)
            partial.replace(run / "iter_119.pth")
            (run / f"iter_{number % 3}.txt").unlink(missing_ok=True)
            (run / f"iter_{(number + 1) % 3}.txt").write_text("x" * number)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(5):
            try:
                backed_up(run, tmp_path / "dest")
            except Refused as refusal:
                assert "change faster than they can be read" in str(refusal)
            found = survey(tmp_path / "dest" / run.name, ITERATIONS).newest_good
            assert found is not None and found.step == 120
    finally:
        stop.set()
        worker.join()
        lock.release()
    backed_up(run, tmp_path / "dest")
    assert files(run).items() <= files(tmp_path / "dest" / run.name).items()


# -- refused -----------------------------------------------------------------------------------------------------------


class Small(UnsyncedDisk):
    """A disk that says it is nearly full."""

    def free_bytes(self, folder: Path) -> int:
        return 1000


def test_what_cannot_fit_is_refused_before_anything_is_copied(run: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"bytes more are needed.*found 1,000 bytes free"):
        backed_up(run, tmp_path / "dest", Small())
    assert {path.name for path in (tmp_path / "dest").rglob("*") if path.is_file()} <= {"lock", "backup.json"}


def another_run(run: Path, mirror: Path) -> None:
    shutil.copytree(run, mirror)
    set_record(mirror, id="another")


def strangers_files(run: Path, mirror: Path) -> None:
    mirror.mkdir(parents=True)
    (mirror / "thesis.txt").write_text("years of work")


def a_file(run: Path, mirror: Path) -> None:
    mirror.parent.mkdir()
    mirror.write_text("a file")


def one_that_went_further(run: Path, mirror: Path) -> None:
    shutil.copytree(run, mirror)
    append(mirror, {"event": "session", "session": "20300101_000000"})


def one_that_went_another_way(run: Path, mirror: Path) -> None:
    one_that_went_further(run, mirror)
    append(run, {"event": "session", "session": "20310101_000000"})


@pytest.mark.parametrize(
    "prepare, words",
    [
        (another_run, "this holds something else"),
        (strangers_files, "files of unknown origin"),
        (a_file, "something that is no folder"),
        (one_that_went_further, "goes further here"),
        (one_that_went_another_way, "goes on another way here"),
    ],
)
def test_nothing_is_written_over_what_is_not_this_runs_past(
    run: Path, tmp_path: Path, prepare: Callable[[Path, Path], None], words: str
) -> None:
    dest = tmp_path / "dest"
    prepare(run, dest / run.name)
    before = contents(dest)
    with pytest.raises(Refused, match=words) as caught:
        backed_up(run, dest)
    assert contents(dest) == before
    assert "another folder" in caught.value.do or "Move it away" in caught.value.do


def test_pins_and_other_words_of_a_person_in_the_mirror_do_not_stop_it(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    append(tmp_path / "dest" / run.name, {"event": "pinned", "session": "", "file": "iter_10.pth"})
    append(run, {"event": "noise", "session": "20300101_000000"})
    assert len(backed_up(run, tmp_path / "dest").parted) == 1
    assert files(tmp_path / "dest" / run.name)[JOURNAL] == files(run)[JOURNAL]


def test_places_that_make_no_sense_are_usage_errors(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for dest in (run, run / "backups", run.parent, tmp_path / "no" / "where", tmp_path / "file"):
        before = contents(tmp_path)
        with pytest.raises(UsageError):
            backed_up(run, dest)
        assert contents(tmp_path) == before
    for no_run in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError):
            backed_up(no_run, tmp_path.parent / "dest")


def test_a_mirror_that_is_being_trained_or_written_is_held(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    lock = RunLock(Disk(), own(tmp_path / "dest" / run.name), SystemClock())
    lock.acquire("someone")
    try:
        with pytest.raises(RunHeld):
            backed_up(run, tmp_path / "dest")
    finally:
        lock.release()


def test_a_run_that_is_half_in_the_archive_is_not_mirrored(run: Path, tmp_path: Path) -> None:
    append(run, {"event": "archiving", "session": "s", "to": "archive/s"})
    with pytest.raises(Refused, match="half of two"):
        backed_up(run, tmp_path / "dest")


def test_a_folder_of_another_program_is_backed_up_to_one_place(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(own(run))
    backed_up(run, tmp_path / "dest")
    assert files(tmp_path / "dest" / run.name) == files(run)
    assert not backed_up(run, tmp_path / "dest").copied
    other = Path(shutil.copytree(run, tmp_path / "other" / run.name, symlinks=True))
    with pytest.raises(Refused, match="something else"):
        backed_up(other, tmp_path / "dest")


# -- and back ----------------------------------------------------------------------------------------------------------


def test_a_lost_run_comes_back_whole(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    before = files(run)
    shutil.rmtree(run)
    (run / "unbroken").mkdir(parents=True)
    (run / "unbroken" / "lock").touch()  # of a launch that was refused
    done = brought(run, tmp_path / "dest")
    assert done.whole and files(run) == before and not (own(run) / "backup.json").exists()
    assert done.facts.newest_good is not None and done.facts.newest_good.step == 120
    assert not brought(run, tmp_path / "dest").brought


def test_only_what_is_missing_or_damaged_comes_back_and_nothing_whole_is_written_over(
    run: Path, tmp_path: Path
) -> None:
    backed_up(run, tmp_path / "dest")
    before = files(run)
    (run / "iter_50.pth").unlink()
    (own(run) / "run.json").write_text("{")
    (own(run) / "manifests" / "iter_60.pth.json").unlink()
    flip(newest(run), data_start(newest(run)) + 5)
    edit_json(sorted((own(run) / "configs").glob("*"))[0], lr=7)
    done = brought(run, tmp_path / "dest")
    assert set(done.brought) == {
        "iter_50.pth",
        "iter_120.pth",
        "unbroken/run.json",
        "unbroken/manifests/iter_60.pth.json",
    }
    assert len(done.aside) == 1 and (run / done.aside[0]).exists()
    after = files(run)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {JOURNAL, next(name for name in before if "/configs/" in name)}
    assert read_events(run / JOURNAL)[-1]["event"] == "brought back"


def test_what_the_run_let_go_of_itself_does_not_come_back(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    for step in (10, 20):
        (run / f"iter_{step}.pth").unlink()
    append(run, {"event": "removed", "session": "20300101_000000", "file": "iter_10.pth"})
    assert set(brought(run, tmp_path / "dest").brought) == {"iter_20.pth"}


def test_another_run_and_another_way_are_refused_with_ways_out(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    append(run, {"event": "session", "session": "20300101_000000"})
    append(tmp_path / "dest" / run.name, {"event": "session", "session": "20310101_000000"})
    with pytest.raises(Refused, match="went different ways") as caught:
        brought(run, tmp_path / "dest")
    assert "unbroken restore" in str(caught.value)
    set_record(run, id="another")
    with pytest.raises(Refused, match="something else is here"):
        brought(run, tmp_path / "dest")
    shutil.rmtree(run)
    run.mkdir()
    (run / "thesis.txt").write_text("years of work")
    with pytest.raises(Refused, match="something else is here"):
        brought(run, tmp_path / "dest")
    assert [path.name for path in run.iterdir()] == ["thesis.txt"]


def test_a_held_run_is_not_mended(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    lock = RunLock(Disk(), own(run), SystemClock())
    lock.acquire("someone")
    try:
        with pytest.raises(RunHeld):
            brought(run, tmp_path / "dest")
    finally:
        lock.release()


def test_a_damaged_backup_is_said_and_brings_what_is_sound(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    mirror = tmp_path / "dest" / run.name
    flip(mirror / "iter_120.pth", data_start(mirror / "iter_120.pth") + 3)
    done = brought(tmp_path / "new" / run.name, tmp_path / "dest")
    assert set(done.unsound) == {"iter_120.pth"}
    assert done.facts.newest_good is not None and done.facts.newest_good.step == 110
    for path in mirror.glob("*.pth"):
        path.write_bytes(b"")
    with pytest.raises(UnbrokenError, match="no checkpoint in this backup is sound"):
        brought(tmp_path / "newer" / run.name, tmp_path / "dest")
    assert not (tmp_path / "newer" / run.name).exists()


def test_a_backup_that_is_not_there_is_told_with_what_is(run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    with pytest.raises(UsageError, match=r"no backup of other here. Found plain_loop"):
        brought(tmp_path / "other", tmp_path / "dest")
    with pytest.raises(UsageError, match="no such folder"):
        brought(tmp_path / "other", tmp_path / "nowhere")
