"""`backup` and `restore --from` as they are typed: what they print, answer and refuse."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unbroken.cli.typing_commands import Type, contents, reads_well
from tests.unbroken.real_runs import data_start, flip
from unbroken.clock import SystemClock
from unbroken.run.layout import own
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock

RUN, DEST = Path("work_dirs/small"), Path("backups")
OF_THE_COPY = {"unbroken/backup.json", "unbroken/lock", "unbroken/holder.json"}


def files(run: Path) -> dict[str, str]:
    return {name: what for name, what in contents(run).items() if name not in OF_THE_COPY and what != "folder"}


@pytest.mark.usefixtures("here")
def test_a_backup_is_a_run_like_any_other(type_: Type) -> None:
    answer = type_("backup", RUN, DEST)
    assert answer.code == 0, answer.err
    first, second, *others = answer.out.splitlines()
    assert first == "backups/small: at step 4" and second.endswith("copied, each read back and compared")
    assert others == [
        "to continue from it on another machine: the command of the training with --search backups",
        "to bring it back: unbroken restore work_dirs/small --from backups",
    ]
    assert files(DEST / "small") == files(RUN)
    assert type_("verify", DEST / "small").code == 0
    assert "small" in type_("ls", DEST).out
    why = type_("why", "mapsage", "small.py", "--work-dir", "elsewhere/small", "--tag", "small", "--search", DEST)
    assert "backups/small holds this run at step 4, verified by whole-file digest" in why.out
    went_on = type_("train", "mapsage", "small.py", "--work-dir", DEST / "small", "--tag", "small")
    assert went_on.code == 0 and "RESUME - continue backups/small at step 5 of 8" in went_on.out
    refused = type_("backup", RUN, DEST)  # the mirror knows more now
    assert refused.code == 10 and reads_well(refused) and "goes further here" in refused.err


@pytest.mark.usefixtures("here")
def test_again_it_copies_what_has_changed_and_says_so_as_data_too(type_: Type) -> None:
    type_("backup", RUN, DEST)
    (RUN / "notes.txt").write_text("a good run")
    data = type_("backup", RUN, DEST, "--json").data
    assert data["copied"] == [{"file": "notes.txt", "size_bytes": 10}]
    assert (data["step"], data["unsound"], data["backup"]) == (4, [], "backups/small")
    assert data["kept"] == len(files(DEST / "small")) - 1 - sum(path.is_symlink() for path in RUN.rglob("*"))
    assert "read again and as in the run" in type_("backup", RUN, DEST, "--verify").out


@pytest.mark.usefixtures("here")
def test_what_is_damaged_is_named_with_exit_code_12_and_all_else_is_done(type_: Type) -> None:
    type_("backup", RUN, DEST)
    flip(RUN / "iter_4.pth", data_start(RUN / "iter_4.pth") + 2)
    (RUN / "notes\x1b[2J.txt").write_text("hostile")
    answer = type_("backup", RUN, DEST)
    assert answer.code == 12
    assert "NOT copied: iter_4.pth - damaged: " in answer.out
    assert "the backup keeps what it has under this name" in answer.out and "\x1b" not in answer.out
    assert (DEST / "small" / "notes\x1b[2J.txt").exists()
    assert type_("verify", DEST / "small").code == 0
    mended = type_("restore", RUN, "--from", DEST)
    assert mended.code == 0 and "what was missing is there again: 1 file" in mended.out
    assert "damaged or older files moved to archive/" in mended.out
    assert type_("verify", RUN / "iter_4.pth").code == 0


@pytest.mark.usefixtures("here")
def test_a_lost_run_comes_back_with_the_command_that_continues_it(type_: Type) -> None:
    type_("backup", RUN, DEST)
    before = files(RUN)
    shutil.rmtree(RUN)
    answer = type_("restore", RUN, "--from", DEST)
    assert answer.code == 0, answer.err
    assert "it goes on after step 4 (iter_4.pth, verified by whole-file digest)" in answer.out
    assert "to continue: unbroken train mapsage" in answer.out
    assert files(RUN) == before
    again = type_("restore", RUN, "--from", DEST / "small", "--json").data
    assert (again["whole"], again["brought"], again["step"]) == (False, [], 4)
    elsewhere = type_("restore", "other/small", "--from", DEST)
    assert "it was trained with: " in elsewhere.out and files(Path("other/small")) == before


@pytest.mark.usefixtures("here")
def test_mistakes_and_refusals_say_what_to_do(type_: Type) -> None:
    type_("backup", RUN, DEST)
    before = contents(Path())
    for code, *words in (
        (2, "backup", "nowhere", DEST),
        (2, "backup", RUN, RUN / "inside"),
        (2, "backup", RUN, RUN.parent),
        (2, "backup", RUN, "no/such/folder"),
        (2, "backup", RUN, "small.py"),
        (2, "backup", ".", DEST),
        (2, "restore", RUN, "--from", "nowhere"),
        (2, "restore", RUN, "20200101_000000", "--from", DEST),
        (2, "restore", "work_dirs/smal", "--from", DEST),
        (10, "restore", DEST, "--from", DEST / "small"),
    ):
        answer = type_(*words)
        assert answer.code == code and reads_well(answer), (words, answer)
    assert contents(Path()) == before
    lock = RunLock(Disk(), own(RUN), SystemClock())
    lock.acquire("someone")
    try:
        assert type_("backup", RUN, DEST).code == 0  # it is only read
        assert type_("restore", RUN, "--from", DEST).code == 11
    finally:
        lock.release()


@pytest.mark.usefixtures("here")
def test_an_application_backs_up_beside_its_training(type_: Type) -> None:
    words = ("train", "mapsage", "small.py", "--work-dir", RUN, "--tag", "small", "--backup", DEST)
    answer = type_(*words)
    assert answer.code == 0, answer.err
    assert "each save is backed up to backups/small" in answer.out
    assert files(DEST / "small") == files(RUN)
    assert "8/8" in type_("ls", DEST).out
    inside = type_(*words[:-1], RUN / "x")
    assert inside.code == 2 and reads_well(inside)
