"""What a save reads of the files and records that are there: nothing that was known and has not changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.crash.faulty_disk import UnsyncedDisk

from unbroken.checkpoint.manifest import SaveFacts
from unbroken.checkpoint.store import CheckpointStore

opened: list[str] = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)


class Saves:
    """A store that keeps two checkpoints, or all of them."""

    def __init__(self, folder: Path, keep_last: int | None = 2) -> None:
        self.folder = folder
        (folder / "manifests").mkdir(exist_ok=True)
        self.removed: list[str] = []
        self.store = CheckpointStore(
            UnsyncedDisk(),
            folder,
            manifests=folder / "manifests",
            record=lambda event, **facts: self.removed.append(facts["file"]) if event == "removed" else None,
            pointer="",
            keep_last=keep_last,
        )

    def save(self, step: int) -> list[str]:
        """Save once; the names of all that was opened for it, beside what it writes itself."""
        facts = SaveFacts(
            file=f"iter_{step}.pth", kind="checkpoint", run="r", save=f"{step:016x}", session="s", step=step, epoch=0,
            time="t",
        )  # fmt: skip
        opened.clear()
        self.store.save(facts, lambda file: file.write(b"weights of step %d" % step))
        names = [Path(name).name for name in opened if str(self.folder) in name]
        return [name for name in names if not name.endswith(".partial") and (self.folder / "manifests").name != name]


def test_what_was_written_and_has_not_changed_is_not_read_again_before_another_goes(tmp_path: Path) -> None:
    saves = Saves(tmp_path)
    for step in range(1, 7):
        assert [name for name in saves.save(step) if name.endswith(".pth")] == []
    assert saves.removed == [f"iter_{step}.pth" for step in range(1, 5)]


def flip(path: Path) -> None:
    """Alter one byte in place and put the time back: its length, its inode and that time are what they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"W")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    """Another file of the same length and time takes the name."""
    before, other = path.stat(), path.with_suffix(".other")
    other.write_bytes(path.read_bytes().replace(b"weights", b"WEIGHTS"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows tells no time of change that nobody can set")
@pytest.mark.parametrize("alter", [flip, replace])
def test_what_changed_since_it_was_written_is_read_again_and_counts_for_nothing(
    tmp_path: Path, alter: Callable[[Path], None]
) -> None:
    saves = Saves(tmp_path)
    for step in (1, 2):
        saves.save(step)
    alter(tmp_path / "iter_2.pth")
    assert "iter_2.pth" in saves.save(3)
    assert saves.removed == [], "of the newest two one is damaged: the oldest is still needed"


def test_a_file_that_a_session_before_wrote_is_read_once(tmp_path: Path) -> None:
    for step in (1, 2):
        Saves(tmp_path).save(step)
    saves = Saves(tmp_path)
    assert sorted(name for name in saves.save(3) if name.endswith(".pth")) == ["iter_1.pth", "iter_2.pth"]
    assert [name for name in saves.save(4) if name.endswith(".pth")] == []


@pytest.mark.parametrize("keep_last", [None, 40])
def test_a_save_reads_no_manifest_again_however_many_there_are(tmp_path: Path, keep_last: int | None) -> None:
    for step in range(1, 31):
        Saves(tmp_path, None).save(step)
    saves = Saves(tmp_path, keep_last)
    assert saves.store.newest_bytes
    saves.save(31)
    assert saves.store.newest_bytes
    known = [name for name in saves.save(32) if name.endswith(".json")]
    assert saves.store.newest_bytes
    assert known == ["iter_32.pth.json"] * (keep_last is not None)  # only the one that is new
