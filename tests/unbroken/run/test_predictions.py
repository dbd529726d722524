"""Pictures of predictions: which stay, what their files are called, and that nothing else is touched."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.crash.faulty_disk import FaultyDisk
from unbroken.run.predictions import drop_pictures, evaluations_in, file_names, kept_steps, write_pictures
from unbroken.storage import Disk


def test_the_last_three_evaluations_and_the_best_keep_their_pictures() -> None:
    steps = range(10, 101, 10)
    assert kept_steps(steps, now=100, best=40) == {40, 80, 90, 100}
    assert kept_steps(steps, now=100, best=90) == {80, 90, 100}
    assert kept_steps(steps, now=100, best=None) == {80, 90, 100}
    assert kept_steps([10], now=10, best=10) == {10}


def test_pictures_of_a_history_that_was_left_go() -> None:
    assert kept_steps([10, 20, 30, 40, 50], now=20, best=10) == {10, 20}


def test_what_is_dropped_are_pictures_by_step_and_nothing_of_the_user(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write_pictures(Disk(), tmp_path, step, {"tile": b"x"})
    (tmp_path / "30" / "tile.png.partial").write_bytes(b"ha")
    (tmp_path / "20" / "other.png.partial").write_bytes(b"ha")
    (tmp_path / "10" / "notes.txt").write_text("mine")
    (tmp_path / "best of all").mkdir()
    (tmp_path / "best of all" / "tile.png").write_bytes(b"mine")
    (tmp_path / "7").write_text("a file")
    drop_pictures(Disk(), tmp_path, keep={30})
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"30/tile.png", "10/notes.txt", "best of all/tile.png", "7"}
    assert set(evaluations_in(tmp_path)) == {10, 30}
    drop_pictures(Disk(), tmp_path / "missing", keep=())


def test_names_of_samples_become_names_of_files() -> None:
    hostile = ["../../etc/passwd", "a\x1b[31m", "海港_0001", "海港_0002", "", "A", "a", "x" * 500, "CON/..", "."]
    found = file_names(hostile)
    assert len({name.casefold() for name in found}) == len(hostile)
    assert found[:4] == ["etc_passwd", "a_31m", "海港_0001", "海港_0002"]
    for name in found:
        assert name and "/" not in name and "\\" not in name and "." not in name and len(name) <= 44
    assert file_names(["1 2", "1_2", "1_2"]) == ["1_2", "1_2_2", "1_2_3"]


def test_a_picture_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    look = FaultyDisk()
    write_pictures(look, tmp_path / "look", 5, {"a": b"first", "b": b"second"})
    refusable = [n for n, request in enumerate(look.requests) if request.kind in FaultyDisk.CAN_FAIL]
    assert len(refusable) > 8
    for number in refusable:
        place = tmp_path / str(number)
        disk = FaultyDisk(fail_at=number, errno=errno.ENOSPC, stays_full=True)
        with pytest.raises(OSError, match="No space"):
            write_pictures(disk, place, 5, {"a": b"first", "b": b"second"})
        for path in place.rglob("*.png"):
            assert path.read_bytes() == {"a.png": b"first", "b.png": b"second"}[path.name]
