"""A run's lock: true on file systems with locks and without, and looked at again while it is held."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.twin.killing import environment
from tests.without_locks import LIES, flock_answers
from unbroken.clock import SystemClock
from unbroken.errors import RunHeld
from unbroken.storage import Disk
from unbroken.storage.file_lock import stand_in
from unbroken.storage.lock import RunLock, is_held, read_holder
from unbroken.storage.soft_lock import Owner

ANSWERS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EIO, LIES]


def told_in(folder: Path, answer: int | None) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [sys.executable, "-m", "tests.unbroken.storage.lock_story", str(folder)]
    before = flock_answers(answer) if answer is not None else None
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before
    )


def test_locks_decide_where_there_are_any_and_elsewhere_an_owner_with_signs_of_life(tmp_path: Path) -> None:
    """All worlds at once: most of each story is a wait for a lock that is held."""
    worlds = {answer: told_in(tmp_path / str(answer), answer) for answer in (None, *ANSWERS)}
    endings = {answer: process.communicate(timeout=240) for answer, process in worlds.items()}
    expected = {answer: "with flock" if answer is None else "with a stand-in" for answer in worlds}
    assert endings == {answer: (f"told, {words}\n", "") for answer, words in expected.items()}


def lock(folder: Path) -> RunLock:
    return RunLock(Disk(), folder, SystemClock())


def held(folder: Path, session: str) -> RunLock:
    folder.mkdir(exist_ok=True)
    taken = lock(folder)
    taken.acquire(session)
    return taken


def test_a_lock_that_nobody_took_after_it_was_removed_is_made_again_and_that_is_said(tmp_path: Path) -> None:
    own = tmp_path / "unbroken"
    mine = held(own, "one")
    for path in own.iterdir():
        path.unlink()
    assert not is_held(own)
    mine.require(now=True)
    assert is_held(own)
    assert mine.said() == ["warning: the lock of this run was removed or replaced; nobody took it, it is made again"]
    assert (holder := read_holder(own)) is not None and holder.session == "one"
    with pytest.raises(RunHeld):
        lock(own).acquire("two")
    mine.release()
    assert not is_held(own)


@pytest.mark.parametrize("ended", [False, True], ids=["at work", "gone again"])
def test_a_lock_that_another_took_is_lost_for_good_and_nothing_of_theirs_is_touched(
    tmp_path: Path, *, ended: bool
) -> None:
    own = tmp_path / "unbroken"
    mine = held(own, "one")
    (own / "lock").unlink()
    other = held(own, "two")
    if ended:
        other.release()
    before = (own / "holder.json").read_bytes()
    for _ in range(2):
        with pytest.raises(RunHeld, match="this session's lock was removed") as caught:
            mine.require(now=True)
        assert caught.value.exit_code == 11
    mine.release()
    assert (own / "holder.json").read_bytes() == before
    assert is_held(own) is not ended
    other.release()


def test_a_lock_whose_folder_was_moved_away_is_lost(tmp_path: Path) -> None:
    mine = held(tmp_path / "unbroken", "one")
    (tmp_path / "unbroken").rename(tmp_path / "elsewhere")
    with pytest.raises(RunHeld, match="moved away"):
        mine.require(now=True)
    mine.release()
    assert not (tmp_path / "unbroken").exists()
    assert not json.loads((tmp_path / "elsewhere/holder.json").read_text("utf-8"))["released"]


@pytest.mark.parametrize("says", ["another machine", "nothing"])
def test_a_stand_in_whose_time_lies_in_the_future_is_no_sign_of_life(tmp_path: Path, says: str) -> None:
    own = tmp_path / "unbroken"
    held(own, "one").release()
    left = stand_in(own / "lock")
    owner = Owner(id="x", host="far", machine="far", pid=1, started="1", place=str(left.resolve()), inode=1)
    left.write_text(json.dumps(asdict(owner)) if says == "another machine" else "")
    now_s = time.time()
    os.utime(left, (now_s + 2, now_s + 2))  # the clock of a server is seldom ours to the second
    assert is_held(own)
    os.utime(left, (now_s + 1e6, now_s + 1e6))
    assert not is_held(own)
    held(own, "two").release()


def test_who_waits_for_a_lock_that_is_removed_takes_the_one_that_has_its_name_now(tmp_path: Path) -> None:
    own = tmp_path / "unbroken"
    mine, waiting = held(own, "one"), lock(own)
    waiter = threading.Thread(target=lambda: waiting.acquire("two"))
    waiter.start()
    mine.discard()
    own.rename(tmp_path / "away")  # perhaps with a lock in it that the waiter has made and not looked at yet
    waiter.join()
    assert is_held(own), "and not one that lies under another name by now"
    waiting.release()


def test_a_session_is_named_once_the_folder_is_its_own(tmp_path: Path) -> None:
    """A name that was free a moment before may have been taken by the session that was waited for."""
    own = tmp_path / "unbroken"
    mine, names = held(own, "one"), list[str]()
    second = lock(own)

    def name() -> str:
        assert (own / "taken").exists()
        names.append("two")
        return "two"

    waiter = threading.Thread(target=lambda: second.acquire(name))
    waiter.start()
    (own / "taken").touch()
    mine.release()
    waiter.join()
    assert names == ["two"] and second.session == "two"
    second.release()


@pytest.mark.parametrize("answer", [None, errno.ENOLCK, LIES], ids=["flock", "ENOLCK", "granted to all"])
def test_of_many_processes_that_take_turns_at_a_file_none_loses_what_another_wrote(
    tmp_path: Path, answer: int | None
) -> None:
    file = tmp_path / "count"
    file.write_text("0")
    program = (
        "import sys; from pathlib import Path\n"
        "from unbroken.storage.file_lock import turn_at; from unbroken.clock import SystemClock\n"
        "file = Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    with turn_at(file, SystemClock(), wait_s=60):\n"
        "        file.write_text(str(int(file.read_text()) + 1))\n"
    )
    before = flock_answers(answer) if answer is not None else None
    command = [sys.executable, "-c", program, str(file)]
    counting = [subprocess.Popen(command, env=environment(), preexec_fn=before) for _ in range(3)]
    assert [process.wait(timeout=120) for process in counting] == [0, 0, 0]
    assert file.read_text() == "60"
    assert list(tmp_path.iterdir()) == [file]
