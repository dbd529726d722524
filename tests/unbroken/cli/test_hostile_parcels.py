"""Packed runs that are damaged, made by others or made to do harm: refused, and nothing is written or overwritten."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.faulty_disk import UnsyncedDisk
from tests.unbroken.cli.test_packing import RUN, packed
from tests.unbroken.cli.typing_commands import Type, contents, reads_well
from unbroken.clock import SystemClock
from unbroken.errors import DamagedFile, NewerFormat, Refused, UsageError
from unbroken.keep.packed import check_packed, read_list
from unbroken.keep.unpack import unpack
from unbroken.storage import Disk

Change = Callable[[zipfile.ZipInfo], None]


def rebuilt(source: Path, target: Path, *, change: Change = lambda _: None, more: tuple[object, ...] = ()) -> Path:
    """The same zip with its entries changed, and others before the list."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        *files, last = old.infolist()
        for info in files:
            data = old.read(info)
            fresh = zipfile.ZipInfo(info.filename)
            fresh.external_attr = info.external_attr
            change(fresh)
            new.writestr(fresh, data)
        for info in more:
            new.writestr(info, b"harm")  # type: ignore[arg-type]
        new.writestr(zipfile.ZipInfo(last.filename), old.read(last))
    return target


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def compressed(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


HOSTILE = {
    "absolute": "/tmp/harm",
    "above": "small/../../harm",
    "above at once": "../harm",
    "backslashes": "small\\..\\harm",
    "a drive": "C:/harm",
    "a link": link("small/harm"),
    "compressed": compressed("small/harm"),
    "not listed": "small/harm",
    "another folder": "other/harm",
    "twice in another case": "small/UNBROKEN/RUN.JSON",
    "a file where a folder is": "small/unbroken",
    "a folder": "small/x/",
    "a long name": f"small/{'x' * 300}",
    "a control character": "small/a\x07b",
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_before_anything_is_written(tmp_path: Path, kind: str, type_: Type) -> None:
    rebuilt(packed(), Path("hostile.zip"), more=(HOSTILE[kind],))
    before = sorted(tmp_path.parent.rglob("*harm*"))
    answer = type_("unpack", "hostile.zip", "new")
    assert answer.code == 12 and reads_well(answer), answer.err
    assert not Path("new").exists() and not Path("new.partial").exists()
    assert sorted(tmp_path.parent.rglob("*harm*")) == before


@pytest.mark.usefixtures("here")
def test_a_file_that_claims_to_be_huge_is_refused() -> None:
    whole = bytearray(packed().read_bytes())
    at = whole.rfind(b"PK\x01\x02")
    for start in (20, 24):  # both sizes in the zip's directory
        whole[at + start : at + start + 4] = (2**31).to_bytes(4, "little")
    Path("huge.zip").write_bytes(whole)
    with pytest.raises(DamagedFile):
        unpack(Path("huge.zip"), Path("new"), disk=Disk(), clock=SystemClock())


@pytest.mark.usefixtures("here")
def test_a_plain_file_a_foreign_zip_and_every_kind_of_cut_are_said() -> None:
    whole = packed().read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        Path("cut.zip").write_bytes(whole[:length])
        with pytest.raises(DamagedFile):
            unpack(Path("cut.zip"), Path("new"), disk=Disk(), clock=SystemClock())
    with zipfile.ZipFile("foreign.zip", "w") as archive:
        archive.writestr("a/b.txt", "hello")
    with pytest.raises(DamagedFile, match="no packed run"):
        read_list(Path("foreign.zip"))
    with pytest.raises(UsageError):
        unpack(Path("none.zip"), Path("new"), disk=Disk(), clock=SystemClock())
    assert not Path("new").exists()


@pytest.mark.usefixtures("here")
def test_a_flipped_bit_anywhere_is_found_and_nothing_is_taken_for_a_run(type_: Type) -> None:
    whole = packed().read_bytes()
    with zipfile.ZipFile("small.zip") as archive:
        spots = [info.header_offset + 100 + info.file_size // 2 for info in archive.infolist() if info.file_size > 200]
    for spot in spots:
        Path("flipped.zip").write_bytes(whole[:spot] + bytes([whole[spot] ^ 4]) + whole[spot + 1 :])
        with pytest.raises(DamagedFile):
            check_packed(Path("flipped.zip"))
        with pytest.raises(DamagedFile):
            unpack(Path("flipped.zip"), Path("new/small"), disk=UnsyncedDisk(), clock=SystemClock())
        assert not Path("new/small").exists()
    assert type_("ls", "new", "--json").data == []


@pytest.mark.usefixtures("here")
def test_a_run_that_is_there_is_never_overwritten(type_: Type) -> None:
    packed()
    before = contents(RUN)
    answer = type_("unpack", "small.zip", RUN)
    assert answer.code == 10 and "nothing is overwritten" in answer.err
    assert contents(RUN) == before
    Path("empty").mkdir()
    assert type_("unpack", "small.zip", "empty").code == 0
    Path("linked").symlink_to("empty")
    assert type_("unpack", "small.zip", "linked").code == 10


class FullDisk(Disk):
    def free_bytes(self, folder: Path) -> int:
        return 1000


@pytest.mark.usefixtures("here")
def test_no_room_is_said_before_anything_is_written() -> None:
    path = packed()
    with pytest.raises(Refused, match="no room"):
        unpack(path, Path("new"), disk=FullDisk(), clock=SystemClock())
    assert not Path("new.partial").exists()


@pytest.mark.usefixtures("here")
def test_a_packed_run_of_a_newer_version_is_refused() -> None:
    with zipfile.ZipFile(packed()) as old, zipfile.ZipFile("newer.zip", "w") as new:
        *files, last = old.infolist()
        for info in files:
            new.writestr(replace_info(info), old.read(info))
        new.writestr(replace_info(last), json.dumps({**json.loads(old.read(last)), "format": 2}))
    with pytest.raises(NewerFormat, match="newer version of unbroken packed"):
        read_list(Path("newer.zip"))


def replace_info(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(info.filename)
