"""What must be true of a run's lock, told by real processes; run by the tests in worlds with flock and without.

`python -m tests.unbroken.storage.lock_story FOLDER`; with `hold` behind it, only take the lock and wait for a line.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from unbroken.clock import SystemClock
from unbroken.errors import RunHeld
from unbroken.storage import Disk
from unbroken.storage.lock import LOCK_FILES, RunLock, is_held
from unbroken.storage.soft_lock import SILENT_S, read_owner

ELSEWHERE = {"host": "node9", "machine": "another boot pid:[1]"}


def lock(folder: Path) -> RunLock:
    return RunLock(Disk(), folder, SystemClock())


def is_free(folder: Path) -> bool:
    taken = lock(folder)
    try:
        taken.acquire("try")
    except RunHeld:
        return False
    taken.withdraw()
    return True


def holding(folder: Path, how: str = "hold") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unbroken.storage.lock_story", str(folder), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def main(root: Path) -> None:
    soft = one_holds_it(root / "run")
    nothing_else_blocks(root / "empty")
    a_forked_process_does_not_keep_it(root / "forked")
    if soft:
        another_machine_has_time_to_give_a_sign(root / "elsewhere")
    print("told, with a stand-in" if soft else "told, with flock")


def one_holds_it(folder: Path) -> bool:
    folder.mkdir()
    first = holding(folder)
    stand_in = folder / "lock.owner"
    soft = stand_in.exists()
    assert is_held(folder)
    try:
        lock(folder).acquire("two")
        raise AssertionError("two of them")
    except RunHeld as held:
        assert f"process {first.pid} on " in held.what, held
        assert ("has no locks: a lock file with a sign of life every 10 s stands in" in held.what) == soft, held
    copy = Path(shutil.copytree(folder, folder.with_name("copy")))
    assert not is_held(copy) and is_free(copy), "what travelled with a copy holds nothing"
    first.kill()
    waited_for(lambda: not is_held(folder))  # not buried yet: it is dead all the same
    again = lock(folder)
    previous = again.acquire("three")
    assert previous is not None and previous.pid == first.pid, "whose lock is taken over is said"
    assert any("has no locks" in line for line in again.said()) == soft
    again.require(now=True)
    again.release()
    assert not is_held(folder) and not stand_in.exists()
    assert {path.name for path in folder.iterdir()} <= set(LOCK_FILES), "nothing is left behind"
    first.communicate()
    return soft


def nothing_else_blocks(folder: Path) -> None:
    for content in (b"", b"4711\nnode9\n", b"{", bytes(range(256))):
        folder.mkdir()
        (folder / "lock").write_bytes(content)
        assert not is_held(folder) and is_free(folder), content
        (folder / "lock.owner").write_bytes(content)
        os.utime(folder / "lock.owner", (1, 1))
        assert not is_held(folder) and is_free(folder), content
        shutil.rmtree(folder)


def a_forked_process_does_not_keep_it(folder: Path) -> None:
    folder.mkdir()
    parent = holding(folder, "fork")
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    try:
        assert not is_held(folder) and is_free(folder)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.communicate()


def another_machine_has_time_to_give_a_sign(folder: Path) -> None:
    folder.mkdir()
    first = holding(folder)
    first.kill()
    first.communicate()
    file = folder / "lock.owner"
    owner = json.loads(file.read_text("utf-8"))
    with file.open("r+") as same:  # the same file, as a server shows it to two machines
        same.write(json.dumps(owner | ELSEWHERE))
        same.truncate()
    assert read_owner(file) is not None
    assert is_held(folder) and not is_free(folder)
    silent = time.time() - SILENT_S - 1
    os.utime(file, (silent, silent))
    assert not is_held(folder) and is_free(folder)


def waited_for(what: object) -> None:
    give_up = time.monotonic() + 60
    while not what():  # type: ignore[operator]
        assert time.monotonic() < give_up
        time.sleep(0.005)


def hold(folder: Path, how: str) -> None:
    held = lock(folder)
    held.acquire("one")
    print("held", flush=True)
    if how == "fork" and os.fork() == 0:
        print(os.getpid(), flush=True)
        signal.pause()
    sys.stdin.readline()


if __name__ == "__main__":
    if sys.argv[2:]:
        hold(Path(sys.argv[1]), sys.argv[2])
    else:
        main(Path(sys.argv[1]))
