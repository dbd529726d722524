"""A folder as it is found: damage is seen before anything is loaded, and nothing that looks is ever changed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unbroken.real_runs import (
    as_mmengine,
    contents,
    data_start,
    drop_events,
    drop_manifests,
    edit_json,
    flip,
    look,
    manifest,
    newest,
    of_a_newer_format,
    of_another_run,
    rewrite,
    set_record,
)

SEED = 20_261_122


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def one_bit_of_a_weight(path: Path) -> None:
    flip(path, data_start(path) + 17, bit=6)


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(SEED).randbytes(path.stat().st_size))


def zeros_at_the_end(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-4096] + bytes(4096))


def all_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_web_page(path: Path) -> None:
    path.write_text("<html>Sign in to your account</html>")


DAMAGES = (half, empty, one_bit_of_a_weight, garbage, zeros_at_the_end, all_zeros, a_web_page)


def test_a_sound_run_is_surveyed_as_what_it_is(run: Path) -> None:
    found = look(run)
    assert found.newest_good is not None
    assert (found.newest_good.name, found.newest_good.step) == ("iter_120.pth", 120)
    assert found.newest_good.reason == "verified by whole-file digest"
    assert (found.saves_ever, found.finished_at, found.held) == (12, 120, False)
    assert len(found.sessions) == 1
    assert [item.step for item in found.candidates] == list(range(120, 0, -10))
    assert "latest.pth" not in [item.name for item in found.candidates]


def test_only_the_furthest_file_is_read_to_its_end(run: Path) -> None:
    assert [item.state for item in look(run).candidates] == ["good"] + ["unchecked"] * 11


@pytest.mark.parametrize("with_manifest", [True, False], ids=["manifest", "no manifest"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda item: item.__name__)
def test_a_damaged_newest_file_is_seen_before_loading_and_the_older_one_is_used(
    run: Path, damage: Callable[[Path], None], with_manifest: bool
) -> None:
    damage(newest(run))
    if not with_manifest:
        manifest(run, "iter_120.pth").unlink()
    before = contents(run)
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 110
    first = found.candidates[0]
    assert (first.name, first.state) == ("iter_120.pth", "damaged")
    assert len(first.reason) > 10
    assert contents(run) == before


def test_one_flipped_bit_anywhere_is_seen(run: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    whole = newest(run).read_bytes()
    for _ in range(120):
        at, bit = chance.randrange(len(whole)), chance.randrange(8)
        newest(run).write_bytes(whole)
        flip(newest(run), at, bit)
        found = look(run)
        assert found.newest_good is not None and found.newest_good.step == 110, f"byte {at}, bit {bit}"
        assert found.candidates[0].state == "damaged", f"byte {at}, bit {bit}"


def test_one_flipped_bit_in_any_tensor_is_seen_without_a_manifest_too(run: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    manifest(run, "iter_120.pth").unlink()
    whole, start = newest(run).read_bytes(), data_start(newest(run))
    for _ in range(40):
        at = start + chance.randrange(256)
        newest(run).write_bytes(whole)
        flip(newest(run), at, chance.randrange(8))
        assert look(run).candidates[0].state == "damaged", f"byte {at}"


def test_several_damaged_files_are_all_named_and_the_first_good_one_is_used(run: Path) -> None:
    for step, damage in ((120, half), (110, one_bit_of_a_weight), (100, empty)):
        damage(run / f"iter_{step}.pth")
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 90
    assert [item.step for item in found.candidates if item.state == "damaged"] == [120, 110, 100]


def test_a_folder_under_a_checkpoint_name_is_no_checkpoint(run: Path) -> None:
    a_folder(newest(run))
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 110


def test_a_file_of_another_run_under_our_name_and_manifest_is_never_ours(run: Path) -> None:
    """The replaced file even has the length that the manifest promises."""
    path = of_another_run(newest(run))
    manifest = run / "unbroken/manifests" / f"{path.name}.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**facts, "size_bytes": path.stat().st_size}))
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 110
    assert found.candidates[0].run == "77aa00bb11cc22dd"


def test_a_checkpoint_of_another_run_that_is_further_is_passed_over(run: Path) -> None:
    of_another_run(newest(run), run / "iter_500.pth")
    found = look(run)
    assert found.newest_good is not None and found.newest_good.name == "iter_120.pth"


def test_an_older_save_copied_over_a_newer_name_counts_as_what_it_holds(run: Path) -> None:
    shutil.copy(run / "iter_50.pth", newest(run))
    found = look(run)
    assert found.newest_good is not None
    assert (found.newest_good.name, found.newest_good.step) == ("iter_110.pth", 110)
    assert [item.step for item in found.candidates] == sorted([item.step for item in found.candidates], reverse=True)


def test_names_do_not_count_only_what_is_recorded_inside_does(run: Path) -> None:
    newest(run).rename(run / "iter_7.pth")
    drop_manifests(run)
    found = look(run)
    assert found.newest_good is not None
    assert (found.newest_good.name, found.newest_good.step) == ("iter_7.pth", 120)


def test_a_deleted_manifest_leaves_the_files_own_checksums(run: Path) -> None:
    manifest(run, "iter_120.pth").unlink()
    found = look(run)
    assert found.newest_good is not None
    assert (found.newest_good.step, found.newest_good.reason) == (120, "verified by zip CRC")


def test_a_manifest_of_another_file_is_not_believed(run: Path) -> None:
    shutil.copy(manifest(run, "iter_10.pth"), manifest(run, "iter_120.pth"))
    found = look(run)
    assert found.newest_good is not None
    assert (found.newest_good.name, found.newest_good.step) == ("iter_120.pth", 120)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"file": 3}', "\x00" * 40])
def test_an_unreadable_manifest_is_as_good_as_none(run: Path, text: str) -> None:
    manifest(run, "iter_120.pth").write_text(text)
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 120


def test_killed_between_file_and_manifest_the_new_file_is_good_by_its_checksums(run: Path) -> None:
    """The same step saved again (with its evaluation), and the manifest is still that of the first save."""
    rewrite(newest(run), lambda tree: tree["unbroken"].update(save="fedcba9876543210"))
    found = look(run)
    assert found.newest_good is not None
    assert (found.newest_good.step, found.newest_good.reason) == (120, "verified by zip CRC")


def test_a_flipped_bit_between_file_and_manifest_is_seen_as_well(run: Path) -> None:
    rewrite(newest(run), lambda tree: tree["unbroken"].update(save="fedcba9876543210"))
    flip(newest(run), data_start(newest(run)) + 3)
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 110


def test_a_newer_format_is_named_as_such_with_and_without_manifest(run: Path) -> None:
    of_a_newer_format(newest(run))
    assert look(run).candidates[0].state == "newer"
    drop_manifests(run)
    assert look(run).candidates[0].state == "newer"


def test_a_nonsensical_format_number_is_no_reason_to_crash(run: Path) -> None:
    rewrite(newest(run), lambda tree: tree["unbroken"].update(format="latest"), run / "strange.pth")
    assert look(run).newest_good is not None


def test_file_times_do_not_count(run: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for path in run.rglob("*"):
        if not path.is_symlink():
            moment = chance.randrange(10**9)
            os.utime(path, (moment, moment))
    assert [item.step for item in look(run).candidates] == list(range(120, 0, -10))


def renamed(run: Path) -> Path:
    return run.rename(run.with_name("renamed by hand"))


def links_dropped(run: Path) -> Path:
    (run / "latest.pth").unlink()
    return run


def links_turned_into_copies(run: Path) -> Path:
    return Path(shutil.copytree(run, run.with_name("copied"), symlinks=False))


def zipped_and_unpacked(run: Path) -> Path:
    archive = shutil.make_archive(str(run.with_name("packed")), "zip", run)
    shutil.unpack_archive(archive, run.with_name("unpacked"))
    return run.with_name("unpacked")


def read_only(run: Path) -> Path:
    for path in [run, *run.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    return run


@pytest.mark.parametrize(
    "move", [renamed, links_dropped, links_turned_into_copies, zipped_and_unpacked, read_only], ids=lambda f: f.__name__
)
def test_wherever_a_run_is_carried_it_resumes_at_the_same_step(run: Path, move: Callable[[Path], Path]) -> None:
    place = move(run)
    before = contents(place)
    found = look(place)
    assert found.newest_good is not None
    assert (found.newest_good.name, found.newest_good.step) == ("iter_120.pth", 120)
    assert found.finished_at == 120
    assert contents(place) == before


def test_only_a_copy_of_latest_was_carried_over(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    shutil.copy(run / "latest.pth", place / "latest.pth")
    found = look(place)
    assert found.newest_good is not None
    assert (found.newest_good.name, found.newest_good.step) == ("latest.pth", 120)


def test_one_file_alone_is_a_run(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    shutil.copy(run / "iter_60.pth", place)
    found = look(place)
    assert found.record is None and found.has_history
    assert found.newest_good is not None and found.newest_good.step == 60


@pytest.mark.parametrize("lost", ["run.json", "journal.jsonl", "manifests", ""])
def test_what_is_lost_of_the_records_does_not_change_the_step(run: Path, lost: str) -> None:
    target = run / "unbroken" / lost
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 120
    assert found.has_history


def test_a_foreign_checkpoint_counts_only_until_the_run_has_its_own(run: Path) -> None:
    as_mmengine(newest(run), run / "iter_9000.pth", step=9000)
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 120
    (run / "unbroken" / "journal.jsonl").unlink()
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 120
    for step in range(10, 130, 10):
        (run / f"iter_{step}.pth").unlink()
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 9000


def test_a_run_whose_files_were_all_set_aside_still_has_a_history(run: Path) -> None:
    archive = run / "archive"
    archive.mkdir()
    with (run / "unbroken" / "journal.jsonl").open("a") as journal:
        for step in range(10, 130, 10):
            (run / f"iter_{step}.pth").rename(archive / f"iter_{step}.pth")
            journal.write(f'{{"event":"set aside","file":"iter_{step}.pth"}}\n')
    found = look(run)
    assert found.newest_good is None
    assert found.has_history and found.saves_ever == 12


def test_a_run_that_went_on_after_its_end_is_not_finished(run: Path) -> None:
    with (run / "unbroken" / "journal.jsonl").open("a") as journal:
        journal.write('{"event":"saved","kind":"checkpoint","file":"iter_130.pth","step":130}\n')
    assert look(run).finished_at is None


def test_what_a_cut_off_save_left_is_named_and_does_not_count(run: Path) -> None:
    newest(run).rename(run / "iter_120.pth.partial")
    found = look(run)
    assert found.partials == ("iter_120.pth.partial",)
    assert found.newest_good is not None and found.newest_good.step == 110


def test_files_of_other_kinds_among_the_checkpoints_harm_nobody(run: Path) -> None:
    (run / "notes.pth").write_text("remember the milk")
    (run / "iter_x.pth").write_bytes(b"PK\x03\x04")
    (run / "dangling.pth").symlink_to("nowhere.pth")
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 120


def test_a_record_of_another_run_makes_every_file_foreign(run: Path) -> None:
    set_record(run, id="77aa00bb11cc22dd")
    found = look(run)
    assert found.newest_good is None


def test_an_unfinished_run_says_so(run: Path) -> None:
    drop_events(run, '"event":"finished"')
    assert look(run).finished_at is None


def test_a_manifest_with_keys_of_the_future_is_still_read(run: Path) -> None:
    edit_json(manifest(run, "iter_120.pth"), compressed="zstd")
    found = look(run)
    assert found.newest_good is not None and found.newest_good.reason == "verified by whole-file digest"


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    found = look(tmp_path / "nothing")
    assert not found.exists and not found.has_history and found.candidates == ()
