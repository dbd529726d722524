"""Durable writes, pointers, and the one lock of a run."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from tests.processes import Popen
from unbroken.clock import SystemClock
from unbroken.errors import RunHeld
from unbroken.jsonlines import json_line
from unbroken.storage import PARTIAL_SUFFIX, Disk, WritableFile, durable_write, point_to, write_json
from unbroken.storage.digest import DigestingFile, is_of
from unbroken.storage.lock import RunLock, is_held, read_holder


class RecordingDisk(Disk):
    """The real disk, telling afterwards what it was asked and whether the new name was visible then."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def sync(self, file: WritableFile) -> None:
        self.asked.append("sync")
        super().sync(file)

    def rename(self, source: Path, target: Path) -> None:
        self.asked.append("rename")
        super().rename(source, target)

    def sync_folder(self, folder: Path) -> None:
        self.asked.append("sync folder")
        super().sync_folder(folder)


class FullDisk(Disk):
    """A disk on which nothing new can be created."""

    def create(self, path: Path) -> WritableFile:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class LinklessDisk(Disk):
    """A file system without symbolic links, as on memory sticks."""

    def link(self, path: Path, target: str) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))


def put(text: str):  # type: ignore[no-untyped-def]
    return lambda file: file.write(text.encode())


class Interrupting(Disk):
    """A disk in whose first flush of a file a signal is answered."""

    def __init__(self, ending: type[BaseException]) -> None:
        self.ending = ending

    def sync(self, file: WritableFile) -> None:
        raise self.ending


def test_a_durable_write_syncs_before_it_renames_and_the_folder_after(tmp_path: Path) -> None:
    disk = RecordingDisk()
    durable_write(disk, tmp_path / "a", put("new"))
    assert disk.asked == ["sync", "rename", "sync folder"]
    assert (tmp_path / "a").read_text() == "new"
    assert not (tmp_path / f"a{PARTIAL_SUFFIX}").exists()


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def fail(file: WritableFile) -> None:
        file.write(b"half of")
        raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(OSError, match="no space"):
        durable_write(Disk(), tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_a_write_in_which_a_signal_is_answered_leaves_nothing_behind(
    tmp_path: Path, ending: type[BaseException]
) -> None:
    """A folder that was made for the lock alone goes again only while nothing is in it."""
    lock = RunLock(Interrupting(ending), tmp_path / "run" / "unbroken", SystemClock())
    with pytest.raises(ending):
        lock.acquire("20250101_120000")
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_kill_left_does_not_get_into_the_next_write(tmp_path: Path) -> None:
    (tmp_path / f"a{PARTIAL_SUFFIX}").write_text("a long rest of an earlier write")
    durable_write(Disk(), tmp_path / "a", put("new"))
    assert (tmp_path / "a").read_text() == "new"


def test_json_keeps_every_language(tmp_path: Path) -> None:
    write_json(Disk(), tmp_path / "a.json", {"tag": "声呐 größer"})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"tag": "声呐 größer"}


def test_appended_lines_never_hold_a_newline_of_their_own(tmp_path: Path) -> None:
    disk = Disk()
    file = disk.open_append(tmp_path / "lines")
    file.write(json_line({"text": "two\nlines"}))
    file.write(json_line({"n": 2}))
    disk.close(file)
    assert [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()] == [
        {"text": "two\nlines"},
        {"n": 2},
    ]


def test_a_digest_taken_while_writing_is_that_of_the_file(tmp_path: Path) -> None:
    disk = Disk()
    inner = disk.create(tmp_path / "a")
    file = DigestingFile(inner)
    for piece in (b"abc", memoryview(b"defg")[1:], bytearray(100_000)):
        file.write(piece)  # type: ignore[arg-type]
    disk.close(inner)
    whole = (tmp_path / "a").read_bytes()
    assert file.size_bytes == len(whole) and is_of(tmp_path / "a", file.digest)
    (tmp_path / "a").write_bytes(whole[:-1] + b"x")
    assert not is_of(tmp_path / "a", file.digest)


def test_a_pointer_is_a_relative_link_that_survives_a_move(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("iter_1.pth", "iter_2.pth"):
        (run / name).write_text(name)
        assert point_to(Disk(), run / "latest.pth", name)
    assert (run / "latest.pth").readlink() == Path("iter_2.pth")
    moved = run.rename(tmp_path / "moved")
    assert (moved / "latest.pth").read_text() == "iter_2.pth"


def test_a_pointer_left_half_made_by_a_kill_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f"latest.pth{PARTIAL_SUFFIX}").symlink_to("iter_1.pth")
    assert point_to(Disk(), tmp_path / "latest.pth", "iter_2.pth")
    assert (tmp_path / "latest.pth").readlink() == Path("iter_2.pth")


def test_without_links_there_is_no_pointer_and_no_failure(tmp_path: Path) -> None:
    assert point_to(LinklessDisk(), tmp_path / "latest.pth", "iter_1.pth") is False
    assert list(tmp_path.iterdir()) == []


def lock(folder: Path, disk: Disk | None = None) -> RunLock:
    return RunLock(disk or Disk(), folder, SystemClock())


def test_a_lock_is_held_once_and_its_holder_is_named(tmp_path: Path) -> None:
    first = lock(tmp_path)
    assert first.acquire("one") is None
    assert is_held(tmp_path)
    with pytest.raises(RunHeld, match=r"this process has the run open itself, since 20[\d :-]+ \+0000\.") as caught:
        lock(tmp_path).acquire("two")
    assert caught.value.exit_code == 11
    first.release()
    assert not is_held(tmp_path)
    second = lock(tmp_path)
    assert second.acquire("three") is None, "the first let go in order"
    second.release()


def test_looking_whether_a_lock_is_held_creates_and_changes_nothing(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_free_at_once_and_its_owner_is_named(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from unbroken.storage import Disk; from unbroken.storage.lock import RunLock\n"
        "from unbroken.clock import SystemClock\n"
        "RunLock(Disk(), Path(sys.argv[1]), SystemClock()).acquire('one')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    process = Popen([sys.executable, "-c", program, str(tmp_path)])
    process.wait(timeout=60)
    assert not is_held(tmp_path)
    again = lock(tmp_path)
    previous = again.acquire("two")
    assert previous is not None
    assert (previous.pid, previous.session, previous.released) == (process.pid, "one", False)
    again.release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}', "\x00\x00"])
def test_an_unreadable_holder_file_is_no_obstacle(tmp_path: Path, text: str) -> None:
    (tmp_path / "holder.json").write_text(text)
    assert read_holder(tmp_path) is None
    held = lock(tmp_path)
    assert held.acquire("one") is None
    held.release()


def test_on_a_full_disk_the_lock_is_let_go_all_the_same(tmp_path: Path) -> None:
    """The session ends because of the full disk; that error must not be hidden by another."""

    class FillsUp(Disk):
        full = False

        def create(self, path: Path) -> WritableFile:
            return FullDisk().create(path) if self.full else super().create(path)

    disk = FillsUp()
    held = lock(tmp_path, disk)
    held.acquire("one")
    disk.full = True
    held.release()
    assert not is_held(tmp_path)
    previous = read_holder(tmp_path)
    assert previous is not None and not previous.released


def test_letting_go_twice_or_without_holding_harms_nobody(tmp_path: Path) -> None:
    held = lock(tmp_path)
    held.release()
    held.acquire("one")
    held.release()
    held.release()
    assert not is_held(tmp_path)
