"""Structures that are kept: only of files that stay as they are, and for as long as they do."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch
from tests.unbroken.run.runs_in_short import SetClock

from unbroken.checkpoint.structure import GRAIN_S, MOST_KEPT, MOST_NODES, Recent, read_structure
from unbroken.errors import DamagedFile


@pytest.fixture
def recent() -> Recent:
    """By its clock, every file of a test was written a minute ago."""
    return Recent(SetClock(datetime.now().astimezone() + timedelta(minutes=1)))


def written(path: Path, value: int) -> Path:
    torch.save({"state_dict": {"w": torch.ones(2)}, "meta": {"iter": value}}, path)
    return path


def test_a_file_that_stays_is_taken_apart_once_by_whatever_name(tmp_path: Path, recent: Recent) -> None:
    path = written(tmp_path / "iter_4.pth", 4)
    first = read_structure(path, recent=recent)
    assert read_structure(path, recent=recent).tree is first.tree
    (tmp_path / "latest.pth").symlink_to(path.name)
    again = read_structure(tmp_path / "latest.pth", recent=recent)
    assert again.path == tmp_path / "latest.pth" and again.tree is first.tree


@pytest.mark.parametrize("how", ["over its bytes", "another file"])
def test_a_file_of_the_same_size_and_times_is_read_anew(tmp_path: Path, how: str, recent: Recent) -> None:
    path = written(tmp_path / "iter_4.pth", 4)
    facts = path.stat()
    assert read_structure(path, recent=recent).step == 4
    (tmp_path / "new").mkdir()
    changed = written(tmp_path / "new" / "iter_4.pth", 5)
    if how == "another file":
        changed.replace(path)
    else:
        path.write_bytes(changed.read_bytes())
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size and path.stat().st_mtime_ns == facts.st_mtime_ns
    assert read_structure(path, recent=recent).step == 5


def test_a_file_that_was_damaged_since_is_not_taken_for_whole(tmp_path: Path, recent: Recent) -> None:
    path = written(tmp_path / "iter_4.pth", 4)
    read_structure(path, recent=recent)
    facts, data = path.stat(), path.read_bytes()
    path.write_bytes(data.replace(b"state_dict", b"state_dick"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(DamagedFile, match="altered"):
        read_structure(path, recent=recent)


def test_what_was_written_a_moment_ago_is_not_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "iter_4.pth", 4)
    changed = datetime.fromtimestamp(path.stat().st_ctime).astimezone()
    clock = SetClock(changed + timedelta(seconds=GRAIN_S / 2))
    recent = Recent(clock)
    assert read_structure(path, recent=recent).tree is not read_structure(path, recent=recent).tree
    clock.moment = changed + timedelta(seconds=GRAIN_S * 2)
    assert read_structure(path, recent=recent).tree is read_structure(path, recent=recent).tree


def test_few_are_kept_and_none_that_is_large(tmp_path: Path, recent: Recent) -> None:
    paths = [written(tmp_path / f"iter_{number}.pth", number) for number in range(MOST_KEPT + 1)]
    trees = [read_structure(path, recent=recent).tree for path in paths]
    kept = [read_structure(path, recent=recent).tree is tree for path, tree in zip(paths[::-1], trees[::-1])]
    assert kept == [True] * MOST_KEPT + [False]
    large = tmp_path / "large.pth"
    torch.save({"counters": dict.fromkeys(map(str, range(MOST_NODES)), 1)}, large)
    assert read_structure(large, recent=recent).tree is not read_structure(large, recent=recent).tree
