"""A run as one file: what goes in, that it is whole, that it comes out again, and that nothing hostile does harm."""

from __future__ import annotations

import shutil
import threading
import zipfile
from pathlib import Path

import pytest

from tests.crash.faulty_disk import Crash, FaultyDisk, UnsyncedDisk
from tests.unbroken.cli.typing_commands import Type, contents, reads_well
from unbroken.clock import SystemClock
from unbroken.keep.pack import MINIMUM, Item, Need, choose, pack
from unbroken.keep.packed import check_packed
from unbroken.keep.unpack import unpack
from unbroken.run import ITERATIONS
from unbroken.run.layout import own
from unbroken.run.survey import survey
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock

RUN = Path("work_dirs/small")
KEPT_HERE = {"unbroken/lock", "unbroken/holder.json"}


def files_of(run: Path) -> dict[str, str]:
    """The files that travel: all but links and what is of the process here."""
    found = {name: what for name, what in contents(run).items() if what != "folder" and not what.startswith("link")}
    return {name: what for name, what in found.items() if name not in KEPT_HERE and not name.startswith("archive/")}


def without_list(found: dict[str, str]) -> dict[str, str]:
    return {name: what for name, what in found.items() if name != "unbroken/packed.json"}


def packed(out: Path = Path("small.zip"), **wanted: object) -> Path:
    return pack(RUN, out, **wanted, disk=Disk(), clock=SystemClock()).path  # type: ignore[arg-type]


# -- the choice -------------------------------------------------------------------------------------------------------


def item(name: str, need: Need, size_bytes: int = 1000, step: int = 0) -> Item:
    return Item(name=name, size_bytes=size_bytes, need=need, step=step, reason="damaged" * (need is Need.UNSOUND))


ITEMS = (
    item("archive/x/iter_9.pth", Need.ARCHIVE, 10_000),
    item("iter_30.pth", Need.OLDER, 10_000, 30),
    item("iter_10.pth", Need.OLDER, 10_000, 10),
    item("iter_20.pth", Need.OLDER, 10_000, 20),
    item("iter_40.pth", Need.NEWEST, 10_000, 40),
    item("best_mIoU_iter_20.pth", Need.BEST, 5_000, 20),
    item("unbroken/journal.jsonl", Need.RECORD),
    item("vis_data/scalars.json", Need.CURVE),
    item("s/s.log", Need.SESSION),
    item("eval/picture.png", Need.RESULT),
    item("iter_50.pth", Need.UNSOUND, 10, 50),
)


def test_everything_but_the_archive_and_what_is_unsound_goes_in() -> None:
    chosen = choose(ITEMS, minimal=False, most_bytes=None)
    assert chosen.fits and {one.item.name: one.reason for one in chosen.left_out} == {
        "archive/x/iter_9.pth": "the archive stays behind",
        "iter_50.pth": "damaged",
    }


def test_the_minimum_is_what_the_run_goes_on_from_with_its_history() -> None:
    chosen = choose(ITEMS, minimal=True, most_bytes=None)
    assert [one.name for one in chosen.taken] == [
        "iter_40.pth",
        "unbroken/journal.jsonl",
        "best_mIoU_iter_20.pth",
        "vis_data/scalars.json",
    ]


def test_the_least_needed_goes_first_and_the_minimum_never() -> None:
    everything = choose(ITEMS, minimal=False, most_bytes=None)
    gone, allowed = [], everything.size_bytes
    while (chosen := choose(ITEMS, minimal=False, most_bytes=allowed)).fits:
        assert chosen.size_bytes <= allowed
        gone = [one.item.name for one in chosen.left_out if one.reason == "for want of room"]
        allowed = chosen.size_bytes - 1
    assert gone == ["iter_10.pth", "iter_20.pth", "iter_30.pth", "eval/picture.png", "s/s.log"]
    assert all(one.need in MINIMUM for one in chosen.taken)


# -- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_a_run_that_was_packed_and_unpacked_is_the_same_run_and_goes_on(type_: Type) -> None:
    before = contents(RUN)
    answer = type_("pack", RUN, "small.zip")
    assert answer.code == 0, answer.err
    assert "small.zip: small at step 4" in answer.out and "every byte read back" in answer.out
    assert contents(RUN) == before
    done = type_("unpack", "small.zip", "elsewhere/small")
    assert done.code == 0, done.err
    assert "goes on after step 4 (iter_4.pth, verified by whole-file digest)" in done.out
    assert without_list(files_of(Path("elsewhere/small"))) == files_of(RUN)
    went_on = type_("train", "mapsage", "small.py", "--work-dir", "elsewhere/small", "--tag", "small")
    assert went_on.code == 0, went_on.err
    assert "RESUME - continue elsewhere/small at step 5 of 8" in went_on.out


@pytest.mark.usefixtures("here")
def test_what_any_zip_program_makes_of_the_file_is_found_by_searching(type_: Type) -> None:
    with zipfile.ZipFile(packed()) as archive:
        assert archive.testzip() is None
        archive.extractall("input/some-data-set")
    answer = type_("why", "mapsage", "small.py", "--work-dir", "new", "--tag", "small", "--search", "input")
    assert "input/some-data-set/small holds this run at step 4, verified by whole-file digest" in answer.out


@pytest.mark.usefixtures("here")
def test_a_packed_run_that_is_only_mounted_is_named_with_what_unpacks_it(type_: Type) -> None:
    Path("input").mkdir()
    file = packed(Path("input/out.zip"))
    with zipfile.ZipFile("input/other.zip", "w") as other:
        other.writestr("notes.txt", "of something else")
    answer = type_("why", "mapsage", "small.py", "--work-dir", "new", "--tag", "small", "--search", "input")
    assert "plan: FRESH" in answer.out
    assert f"note: {file} holds this run at step 4, packed: unbroken unpack {file} new" in answer.out


@pytest.mark.usefixtures("here")
def test_into_a_folder_goes_a_file_with_a_telling_name_and_nothing_is_replaced(type_: Type) -> None:
    Path("out").mkdir()
    assert [type_("pack", RUN, "out").code for _ in range(2)] == [0, 0]
    assert sorted(path.name for path in Path("out").iterdir()) == ["small_step_4.zip", "small_step_4_2.zip"]
    again = type_("pack", RUN, "out/small_step_4.zip")
    assert again.code == 2 and reads_well(again)
    assert type_("pack", RUN, RUN / "x.zip").code == 2
    assert type_("pack", "nowhere", "x.zip").code == 2


@pytest.mark.usefixtures("here")
def test_the_minimum_is_smaller_and_still_goes_on(type_: Type) -> None:
    shutil.copyfile(RUN / "iter_4.pth", RUN / "iter_3.pth")
    (RUN / "pictures").mkdir()
    (RUN / "pictures" / "1.png").write_bytes(bytes(100_000))
    data = type_("pack", RUN, "small.zip", "--minimal", "--json").data
    names = {one["file"] for one in data["packed"]}
    assert {"iter_4.pth", "unbroken/run.json", "vis_data/scalars.json"} <= names
    assert any(name.startswith("best_mIoU") for name in names)
    assert {one["file"] for one in data["left_out"]} >= {"iter_3.pth", "pictures/1.png"}
    assert data["size_bytes"] == Path("small.zip").stat().st_size
    assert type_("unpack", "small.zip", "new/small", "--json").data["step"] == 4


@pytest.mark.usefixtures("here")
def test_a_size_is_kept_and_what_does_not_fit_is_said_or_refused(type_: Type) -> None:
    (RUN / "pictures").mkdir()
    (RUN / "pictures" / "1.png").write_bytes(bytes(1_000_000))
    everything = pack(RUN, Path("whole.zip"), disk=Disk(), clock=SystemClock())
    whole = everything.size_bytes
    assert whole <= everything.parcel.size_bytes, "what is promised to fit must fit"
    listed = type_("pack", RUN, "small.zip", "--max-size", f"{whole - 900_000}B", "--json")
    assert listed.code == 0, listed.err
    left_out = {one["file"]: one["reason"] for one in listed.data["left_out"]}
    assert left_out["pictures/1.png"] == "for want of room" and all(name.endswith(".png") for name in left_out)
    assert Path("small.zip").stat().st_size < whole - 900_000
    refused = type_("pack", RUN, "tiny.zip", "--max-size", "10KB")
    assert refused.code == 10 and reads_well(refused)
    assert "the minimum does not fit" in refused.err and "at most 10,000 bytes" in refused.err
    assert not Path("tiny.zip").exists()


@pytest.mark.usefixtures("here")
def test_names_that_not_every_system_allows_stay_behind(type_: Type) -> None:
    for name in ("a:b.txt", "back\\slash.txt", "Notes.txt", "notes.txt"):
        (RUN / name).write_text(name)
    answer = type_("pack", RUN, "small.zip")
    assert answer.code == 0, answer.err
    assert "a:b.txt" in answer.out and "not every system allows" in answer.out
    assert type_("unpack", "small.zip", "new").code == 0
    assert {path.name for path in Path("new").glob("*.txt")} == {"Notes.txt"}


@pytest.mark.usefixtures("here")
def test_damaged_checkpoints_stay_behind_and_a_run_without_a_sound_one_is_refused(type_: Type) -> None:
    shutil.copyfile(RUN / "iter_4.pth", RUN / "iter_9.pth")
    (RUN / "iter_9.pth").write_bytes((RUN / "iter_9.pth").read_bytes()[:5000])
    answer = type_("pack", RUN, "small.zip")
    assert answer.code == 0 and "left out: iter_9.pth - damaged: the file is cut off" in answer.out
    (RUN / "iter_4.pth").write_bytes(b"")
    refused = type_("pack", RUN, "other.zip")
    assert refused.code == 12 and "no checkpoint here is sound" in refused.err


@pytest.mark.usefixtures("here")
def test_a_run_that_is_held_may_be_packed_while_its_records_grow_and_its_saves_are_replaced() -> None:
    lock = RunLock(Disk(), own(RUN), SystemClock())
    lock.acquire("someone")
    stop = threading.Event()
    source = (RUN / "iter_4.pth").read_bytes()

    def work() -> None:
        while not stop.is_set():
            with (own(RUN) / "journal.jsonl").open("a") as journal:
                journal.write('{"event": "noise", "session": "20261120_000000"}\n')
            partial = RUN / "iter_3.pth.partial"
            partial.write_bytes(source)
            partial.replace(RUN / "iter_3.pth")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(3):
            path = packed(Path(f"{number}.zip"))
            done = unpack(path, Path(f"run{number}"), disk=UnsyncedDisk(), clock=SystemClock())
            assert done.facts.newest_good is not None and done.facts.newest_good.step == 4
            assert not done.facts.held
    finally:
        stop.set()
        worker.join()
        lock.release()


# -- killed anywhere --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_packing_that_is_killed_anywhere_leaves_no_file_under_the_name_but_a_whole_one() -> None:
    number, over, before = 0, False, contents(RUN)
    while not over:
        out = Path(f"out{number}") / "small.zip"
        disk = FaultyDisk(crash_at=number, when=("torn", "after", "before")[number % 3])
        try:
            pack(RUN, out, minimal=True, disk=disk, clock=SystemClock())
            over = number >= len(disk.requests)
        except Crash:
            disk.bury()
        if out.exists():
            check_packed(out)
        else:
            pack(RUN, out, minimal=True, disk=UnsyncedDisk(), clock=SystemClock())
        assert [path.name for path in out.parent.iterdir()] == ["small.zip"]
        number += 7 if not over else 0  # each seventh request: there is one for every write
    assert number > 30 and contents(RUN) == before


@pytest.mark.usefixtures("here")
def test_unpacking_that_is_killed_anywhere_goes_on_and_nothing_half_is_taken_for_a_run(type_: Type) -> None:
    path, number, over, kept = packed(minimal=True), 0, False, 0
    wanted = files_of(RUN)
    while not over:
        target = Path(f"to{number}") / "small"
        disk = FaultyDisk(crash_at=number, when=("before", "torn", "after")[number % 3])
        try:
            unpack(path, target, disk=disk, clock=SystemClock())
            over = number >= len(disk.requests)
        except Crash:
            disk.bury()
        if not (target / "unbroken/run.json").exists():  # perhaps a lock is there
            assert type_("ls", target.parent if target.parent.is_dir() else ".", "--json").data == (
                [] if target.parent.is_dir() else type_("ls", ".", "--json").data
            )
            kept = max(kept, unpack(path, target, disk=UnsyncedDisk(), clock=SystemClock()).kept)
        assert without_list(files_of(target)).items() <= wanted.items()
        assert survey(target, ITERATIONS).newest_good is not None
        assert [one.name for one in target.parent.iterdir()] == ["small"]
        shutil.rmtree(target.parent)
        number += 1
    assert number > 30 and kept > 5


@pytest.mark.usefixtures("here")
def test_what_another_packed_file_had_left_half_unpacked_is_not_mixed_in() -> None:
    first = packed()
    unpack(first, Path("one"), disk=UnsyncedDisk(), clock=SystemClock())
    Path("one").rename("new.partial")
    (Path("new.partial") / "stranger.txt").write_text("not in the list")
    (Path("new.partial") / "iter_4.pth").write_bytes(b"half")
    done = unpack(first, Path("new"), disk=UnsyncedDisk(), clock=SystemClock())
    assert without_list(files_of(done.directory)) == files_of(RUN)
    assert done.facts.newest_good is not None
