"""Names of runs and sessions; names out of records become paths inside their folder, or none."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from unbroken.clock import SystemClock
from unbroken.ids import LeadsOut, free_name, is_name, new_id, place


def test_two_ids_are_never_the_same_and_always_16_hex_digits() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in ids)


def test_a_session_is_named_by_its_moment_and_a_number_when_that_is_taken() -> None:
    moment = datetime(2026, 11, 22, 0, 5, 9)
    taken: set[str] = set()
    names = []
    for _ in range(3):
        names.append(free_name(moment, taken))
        taken.add(names[-1])
    assert names == ["20261122_000509", "20261122_000509_2", "20261122_000509_3"]


def test_names_of_sessions_sort_as_they_happened() -> None:
    moments = [datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2, 13, 4, 5), datetime(2026, 11, 2, 3, 4, 5)]
    names = [free_name(moment, ()) for moment in moments]
    assert names == sorted(names)


def test_the_clock_of_this_machine_knows_its_offset_and_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is not None
    assert clock.monotonic_s() <= clock.monotonic_s()


HOSTILE = {
    "above": "../scripts",
    "above twice": "../../scripts",
    "above from inside": "a/../../b",
    "the folder itself": ".",
    "nothing": "",
    "absolute": "/etc/passwd",
    "a doubled separator": "a//b",
    "a folder's end": "a/",
    "a drive": "C:/windows",
    "a stream of a file": "file:stream",
    "backslashes": "a\\..\\b",
    "a share": "\\\\server\\share",
    "a device": "nul",
    "a device with an ending": "COM1.pth",
    "a NUL": "a\0b",
    "a line": "a\nb",
    "an escape": "a\x1b[2Jb",
    "a wildcard": "iter_*.pth",
    "a space at its end": "a ",
    "a dot at its end": "a.",
    "too long": "x" * 5_000,
    "too deep": "/".join("x" * 100 for _ in range(50)),
    "half a character": "a\udce9b",
    "a number": 7,
    "a list": ["a"],
    "none": None,
}


@pytest.mark.parametrize("recorded", HOSTILE.values(), ids=HOSTILE)
def test_no_hostile_name_becomes_a_path(recorded: object, tmp_path: Path) -> None:
    with pytest.raises(LeadsOut):
        place(tmp_path, recorded)
    assert not is_name(recorded)


@pytest.mark.parametrize("recorded", ["iter_80.pth", "20261129_223000_2", "实验 一", "a..b", ".hidden", "console"])
def test_names_that_runs_have_are_names(recorded: str, tmp_path: Path) -> None:
    assert is_name(recorded)
    assert place(tmp_path, recorded) == tmp_path / recorded


def test_a_path_with_parts_lies_below_its_folder(tmp_path: Path) -> None:
    assert place(tmp_path, "archive/1/iter_8.pth") == tmp_path / "archive" / "1" / "iter_8.pth"
    assert not is_name("archive/1")
