"""What is kept of earlier commands is there while all it hangs on is as it was, and is never in anybody's way."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clocks import Ahead
from unbroken.clock import SystemClock
from unbroken.storage.cache import GRAIN_NS, MOST_ENTRIES, Cache, cache_folder, loaded_code


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"as it was")
    (folder / "here").symlink_to("a.txt")
    return folder


def kept(tmp_path: Path, data: Path) -> Cache:
    cache = Cache(tmp_path / "cache", clock=Ahead())
    cache.put("data", value={"fits": [1, None]}, files=[str(data), str(data / "here"), str(data / "a.txt")])
    assert cache.get("data") == {"fits": [1, None]} == Cache(tmp_path / "cache").get("data")
    return cache


def written_over(data: Path) -> None:
    """The same size, and the times that can be set as they were."""
    before = (data / "a.txt").stat()
    (data / "a.txt").write_bytes(b"otherwise")
    os.utime(data / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


def led_elsewhere(data: Path) -> None:
    shutil.copy2(data / "a.txt", data.parent / "b.txt")
    (data / "here").unlink()
    (data / "here").symlink_to("../b.txt")


CHANGES: dict[str, Callable[[Path], object]] = {
    "written over": written_over,
    "longer": lambda data: (data / "a.txt").write_bytes(b"as it was, and more"),
    "replaced": lambda data: (shutil.copy2(data / "a.txt", data / "new"), os.replace(data / "new", data / "a.txt")),
    "gone": lambda data: (data / "a.txt").unlink(),
    "one more": lambda data: (data / "c.txt").touch(),
    "unreadable": lambda data: (data / "a.txt").chmod(0),
    "led elsewhere": led_elsewhere,
    "all of it another": lambda data: (data.rename(data.parent / "old"), shutil.copytree(data.parent / "old", data)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_kept_is_there_until_one_of_its_files_changes(
    tmp_path: Path, data: Path, change: Callable[[Path], object]
) -> None:
    cache = kept(tmp_path, data)
    change(data)
    assert cache.get("data") is None


def test_what_hangs_on_a_file_of_this_moment_is_not_kept(tmp_path: Path, data: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put("data", value=1, files=[str(data / "a.txt")])
    assert cache.get("data") is None
    age_s = SystemClock().now().timestamp() - (data / "a.txt").stat().st_ctime
    assert age_s < GRAIN_NS / 1e9, "this machine is too slow for the test to mean anything"


def test_other_words_are_another_question(tmp_path: Path, data: Path) -> None:
    cache = kept(tmp_path, data)
    for about in (("dat", "a"), ("data", ""), ("",), ("data\0",), ("\udc80",)):
        assert cache.get(*about) is None


def test_a_damaged_entry_is_as_good_as_none(tmp_path: Path, data: Path) -> None:
    cache = kept(tmp_path, data)
    (entry,) = (tmp_path / "cache" / "known").iterdir()
    whole = entry.read_bytes()
    for place in range(len(whole)):
        entry.write_bytes(whole[:place])
        assert cache.get("data") is None
        entry.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.get("data") is None
    entry.unlink()
    for instead in (lambda: entry.mkdir(), lambda: os.mkfifo(entry), lambda: entry.symlink_to("/dev/zero")):
        instead()
        assert cache.get("data") is None
        entry.rmdir() if entry.is_dir() else entry.unlink()


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path, data: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (None, tmp_path / "file", Path("/proc/nowhere")):
        cache = Cache(folder, clock=Ahead())
        cache.put("data", value=1, files=[str(data)])
        assert cache.get("data") is None
    cache = Cache(tmp_path / "cache", clock=Ahead())
    cache.put("data", value=object(), files=[str(data)])
    cache.put("data", value=1, files=[str(data / "not there")])
    assert cache.get("data") is None


def test_the_oldest_entries_go(tmp_path: Path, data: Path) -> None:
    cache = Cache(tmp_path / "cache", clock=Ahead())
    for number in range(MOST_ENTRIES + 3):
        cache.put(str(number), value=number, files=[str(data)])
    assert len(list((tmp_path / "cache" / "known").iterdir())) == MOST_ENTRIES
    assert cache.get(str(MOST_ENTRIES + 2)) == MOST_ENTRIES + 2


def test_code_is_every_module_of_a_package_and_the_first_file_of_the_others() -> None:
    found = set(loaded_code("unbroken"))
    ours = {module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "unbroken"}
    assert ours <= found and pytest.__file__ in found
    assert not {os.__file__, sys.modules["_pytest.fixtures"].__file__} & found


def test_the_user_says_where_it_is(tmp_path: Path) -> None:
    assert cache_folder({"UNBROKEN_CACHE": ""}) is None
    assert cache_folder({"UNBROKEN_CACHE": str(tmp_path), "XDG_CACHE_HOME": "/x"}) == tmp_path
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "unbroken"
    assert cache_folder({"XDG_CACHE_HOME": "not/absolute"}) == Path.home() / ".cache" / "unbroken"
