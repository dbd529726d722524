"""The index: it only saves time; whatever happens to it, the list is that of the runs' own files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, environment
from tests.unbroken.run.runs_in_short import Writer, append, finished
from unbroken.report.index import TYPES, VERSION, IndexRow, RunIndex
from unbroken.report.listing import configs_of, list_runs
from unbroken.storage import Disk

SEED = 20_261_122
LATER_S = time.time() + 3600  # so that nothing counts as changed just now


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve runs in two folders."""
    for number in range(12):
        finished(tmp_path / "runs" / f"group{number % 2}" / f"run{number:02d}", score=float(number))
    return tmp_path / "runs"


def index_in(folder: Path) -> RunIndex:
    return RunIndex(folder / "cache", Disk())


def file_of(folder: Path) -> Path:
    return folder / "cache" / f"runs-{VERSION}.sqlite"


def listed(root: Path, index: RunIndex | None = None, **options: bool) -> list[IndexRow]:
    return list_runs(str(root), index or index_in(root.parent), now_s=LATER_S, **options)


def plain(rows: list[IndexRow]) -> list[IndexRow]:
    return [row._replace(signature=0) for row in rows]


def test_every_column_has_its_type() -> None:
    assert len(TYPES) == len(IndexRow._fields)


def test_the_second_list_is_the_first_and_reads_no_run(root: Path) -> None:
    first = listed(root)
    assert [row.label for row in first] == sorted(row.label for row in first if int(row.label[3:]) % 2 == 0) + sorted(
        row.label for row in first if int(row.label[3:]) % 2
    )
    assert listed(root) == first == listed(root, anew=True)
    for run in root.glob("*/*"):  # unreadable now, and not looked into: neither times nor sizes change
        for file in (run / "unbroken/manifests").iterdir():
            file.write_bytes(b"x" * file.stat().st_size)
    assert listed(root) == first != listed(root, anew=True)


def test_a_run_that_changed_is_read_anew_and_others_are_not(root: Path) -> None:
    before = {row.label: row for row in listed(root)}
    writer = Writer(root / "group0" / "run00", id=before["run00"].id)
    writer.sessions = 1
    writer.session(plan={"verdict": "Resume", "step": 100}, total=200)
    writer.save(150)
    writer.end("stopped", step=150)
    (root / "group1" / "run01" / "iter_100.pth").unlink()
    shutil.rmtree(root / "group1" / "run03")
    finished(root / "group1" / "new")
    after = {row.label: row for row in listed(root)}
    assert (after["run00"].status, after["run00"].step, after["run00"].total) == ("stopped", 150, 200)
    assert after["run01"].status == "lost" and "run03" not in after and "new" in after
    assert after["run02"] == before["run02"]
    assert len(index_in(root.parent).rows(str(root))) == 12, "the row of the folder that vanished is dropped"


def test_a_run_that_just_changed_is_not_trusted(root: Path) -> None:
    rows = list_runs(str(root), index_in(root.parent), now_s=time.time())
    assert {row.signature for row in rows} == {0}
    assert plain(listed(root)) == plain(rows) and 0 not in {row.signature for row in listed(root)}


def test_a_list_of_a_part_leaves_the_rest_of_the_index_alone(root: Path) -> None:
    whole = listed(root)
    assert listed(root / "group1") == whole[6:] and listed(root / "group1" / "run01") == whole[6:7]
    (root.parent / "runs2").mkdir()
    assert listed(root.parent / "runs2") == []
    assert list(index_in(root.parent).rows(str(root)).values()) == whole
    assert len(index_in(root.parent).rows("/")) == 12


@pytest.mark.parametrize("ruin", ["removed", "empty", "text", "half", "zeros", "another schema", "a folder", "bits"])
def test_a_ruined_index_is_rebuilt_or_done_without(root: Path, ruin: str) -> None:
    first, file = listed(root), file_of(root.parent)
    whole = file.read_bytes()
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for _ in range(40 if ruin == "bits" else 1):
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
        if ruin == "another schema":
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    f"import sqlite3; sqlite3.connect({str(file)!r}).execute('CREATE TABLE runs (a)')",
                ],
                check=True,
            )
        elif ruin == "a folder":
            file.mkdir()
        elif ruin == "bits":
            flipped = bytearray(whole)
            for _ in range(8):
                flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
            file.write_bytes(flipped)
        elif ruin != "removed":
            size = len(whole)
            file.write_bytes(
                {"empty": b"", "text": b"hello" * 999, "half": whole[: size // 2], "zeros": bytes(size)}[ruin]
            )
        again = listed(root)
        if ruin != "bits":  # a flipped bit in a name cannot be seen; that it is no error is all there is to ask
            assert again == first
            assert ruin == "a folder" or listed(root) == first
    assert listed(root, anew=True) == first


def test_without_a_folder_or_on_a_disk_that_refuses_the_runs_are_listed_all_the_same(root: Path) -> None:
    class FullDisk(Disk):
        def make_folder(self, folder: Path) -> None:
            raise OSError(28, "No space left on device")

    first = listed(root)
    assert plain(listed(root, RunIndex(None, Disk()))) == plain(first)
    assert plain(listed(root, RunIndex(root.parent / "other", FullDisk()))) == plain(first)
    (root.parent / "file").write_text("in the way")
    assert plain(listed(root, RunIndex(root.parent / "file", Disk()))) == plain(first)


WRITE = """
import sys, time
from pathlib import Path
from unbroken.report.index import RunIndex
from unbroken.report.listing import list_runs
from unbroken.storage import Disk
root, cache, who = sys.argv[1:]
index = RunIndex(Path(cache), Disk())
print("ready", flush=True)
sys.stdin.readline()
until = time.monotonic() + 4
while time.monotonic() < until:
    rows = list_runs(root, index, now_s=time.time() + 3600, anew=True)
    assert len(rows) == 12, len(rows)
    index.replace([row._replace(folder=f"/{who}/{n}") for n in range(300) for row in rows[:1]], gone=[f"/{who}/7"])
print("done")
"""


def test_two_writers_at_once_and_one_that_is_killed_harm_nothing(root: Path) -> None:
    first = listed(root)
    command = [sys.executable, "-c", WRITE, str(root), str(root.parent / "cache")]
    processes = [
        Popen([*command, who], env=environment(), stdin=PIPE, stdout=PIPE, stderr=STDOUT, text=True)
        for who in ("a", "b", "killed")
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    time.sleep(0.5)
    processes[2].send_signal(signal.SIGKILL)
    said = [process.communicate(timeout=PATIENCE_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, -9] and said[0] == said[1] == "done\n", said
    assert listed(root) == first
    known = index_in(root.parent).rows("/")
    assert {f"/{who}/{n}" for who in "ab" for n in range(300) if n != 7} <= set(known)


def test_what_sqlite_cannot_hold_stays_outside(root: Path) -> None:
    odd = os.fsdecode(bytes(root / "group0") + b"/odd\xff\xfe")
    finished(Path(odd), tag="odd")
    again = [listed(root) for _ in range(2)]
    assert again[0] == again[1] and odd in {row.folder for row in again[0]}
    assert odd not in index_in(root.parent).rows(str(root)) and len(index_in(root.parent).rows(str(root))) == 12
    assert len(listed(Path(odd))) == 1


def test_configs_are_read_once_and_again_when_a_run_changed(root: Path) -> None:
    index = index_in(root.parent)
    config = configs_of(listed(root), str(root), index)
    assert [config(row) for row in listed(root)] == [{"optimizer": {"lr": 0.01}}] * 12
    for file in root.glob("group1/*/unbroken/configs/*"):
        file.unlink()
    config = configs_of(listed(root), str(root), index)
    assert config(listed(root)[-1]) == {"optimizer": {"lr": 0.01}}, "it is in the index"
    append(root / "group1" / "run11", {"event": "timing", "total": 100})
    rows = listed(root)
    assert configs_of(rows, str(root), index)(rows[-1]) == {}


def test_many_runs_are_read_by_several_processes(tmp_path: Path) -> None:
    writer = finished(tmp_path / "runs" / "run0000")
    for number in range(1, 520):
        shutil.copytree(writer.folder, tmp_path / "runs" / f"run{number:04d}")
    several = list_runs(str(tmp_path / "runs"), RunIndex(None, Disk()), now_s=LATER_S, processes=3)
    alone = list_runs(str(tmp_path / "runs"), RunIndex(None, Disk()), now_s=LATER_S)
    assert several == alone and len(several) == 520


def test_a_run_that_is_being_trained_is_looked_at_each_time(root: Path) -> None:
    run = root / "group0" / "run00"
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(99)"  # noqa: E501
    listed(root)
    with Popen([sys.executable, "-c", hold, str(run / "unbroken/lock")], stdout=PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        append(run, {"event": "session", "session": "s", "time": "2026-11-22T08:00:00+00:00", "plan": {}})
        assert listed(root)[0].status == "running"
        process.kill()
    assert listed(root)[0].status == "killed"
