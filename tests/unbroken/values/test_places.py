"""Names out of records become paths inside their folder, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from unbroken.values import LeadsOut, is_name, place

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
