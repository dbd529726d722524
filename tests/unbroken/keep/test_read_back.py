"""A disk that alters bytes on their way: nothing that a backup or a pack wrote is believed before it was read back."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.crash.faulty_disk import UnsyncedDisk
from tests.unbroken.keep.test_backup import backed_up, brought, files
from unbroken.clock import SystemClock
from unbroken.errors import DamagedFile, Refused
from unbroken.keep.destination import mirror_in
from unbroken.keep.pack import pack
from unbroken.keep.restore import restore_from
from unbroken.keep.sync import EXTENDED_BYTES, copy_file
from unbroken.keep.unpack import unpack
from unbroken.run import ITERATIONS
from unbroken.run.survey import survey
from unbroken.storage import WritableFile

LOG = "notes.log"


class AlteredFile:
    """An open file of which the last byte of each write arrives with a bit turned."""

    def __init__(self, inner: WritableFile) -> None:
        self.inner = inner

    def write(self, data: bytes, /) -> int:
        content = bytearray(data)
        if content:
            content[-1] ^= 1
        return self.inner.write(bytes(content))

    def flush(self) -> None:
        self.inner.flush()


class AlteringDisk(UnsyncedDisk):
    """The real disk, but what is written under one name is not what was asked for."""

    def __init__(self, name: str) -> None:
        self._names = {name, f"{name}.partial"}

    def create(self, path: Path) -> WritableFile:
        return self._opened(path, super().create(path))

    def open_append(self, path: Path) -> WritableFile:
        return self._opened(path, super().open_append(path))

    def _opened(self, path: Path, file: WritableFile) -> WritableFile:
        return AlteredFile(file) if path.name in self._names else file

    def close(self, file: Any) -> None:
        super().close(file.inner if isinstance(file, AlteredFile) else file)


@pytest.mark.parametrize(
    "name",
    [
        "iter_120.pth",
        "iter_120.pth.json",
        "journal.jsonl",
        "metrics.jsonl",
        "run.json",
        "scalars.json",
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_new_copy_that_reads_back_otherwise_never_takes_its_name(
    name: str, run: Path, tmp_path: Path, *, begun: bool
) -> None:
    found = sorted(path.relative_to(run) for path in run.rglob(name) if path.is_file())
    mirrored = tmp_path / "dest" / run.name / found[0]
    before = None
    if begun:  # there is an older whole one, which stays
        backed_up(run, tmp_path / "dest")
        mirrored.write_bytes(before := b"an older one")
    with pytest.raises(DamagedFile, match="does not read back as it was written"):
        backed_up(run, tmp_path / "dest", disk=AlteringDisk(name))
    assert not mirrored.exists() or mirrored.read_bytes() == before
    kept = [path.read_bytes() for path in (tmp_path / "dest").rglob(mirrored.name)]  # a record moves aside first
    assert before is None or before in kept
    assert not list((tmp_path / "dest").rglob("*.partial"))
    backed_up(run, tmp_path / "dest")
    assert files(run).items() <= files(tmp_path / "dest" / run.name).items()


def grown(run: Path, tmp_path: Path) -> Path:
    """A large log of which the backup has the beginning; its copy."""
    (run / LOG).write_bytes(b"a line\n" * (EXTENDED_BYTES // 7 + 1))
    backed_up(run, tmp_path / "dest")
    with (run / LOG).open("ab") as log:
        log.write(b"one line more\n" * 1000)
    return tmp_path / "dest" / run.name / LOG


def test_the_end_that_a_large_copy_is_continued_with_is_read_back(run: Path, tmp_path: Path) -> None:
    copy = grown(run, tmp_path)
    node = copy.stat().st_ino
    with pytest.raises(DamagedFile, match="does not read back as it was written"):
        backed_up(run, tmp_path / "dest", disk=AlteringDisk(LOG))
    assert copy.stat().st_ino == node, "this is the way that continues a copy"
    backed_up(run, tmp_path / "dest")
    assert copy.read_bytes() == (run / LOG).read_bytes()


def test_a_large_copy_whose_beginning_was_altered_is_written_anew(run: Path, tmp_path: Path) -> None:
    copy = grown(run, tmp_path)
    content = bytearray(copy.read_bytes())
    content[10] ^= 1
    copy.write_bytes(content)
    backed_up(run, tmp_path / "dest")
    assert copy.read_bytes() == (run / LOG).read_bytes()


@pytest.mark.parametrize("name", ["iter_120.pth", "unbroken/manifests/iter_120.pth.json", LOG, "unbroken/run.json"])
def test_a_copy_of_the_same_size_is_compared_byte_by_byte(name: str, run: Path, tmp_path: Path) -> None:
    (run / LOG).write_bytes(b"short\n")
    backed_up(run, tmp_path / "dest")
    copy = tmp_path / "dest" / run.name / name
    content = bytearray(copy.read_bytes())
    content[-3] ^= 1
    copy.write_bytes(content)
    assert name in backed_up(run, tmp_path / "dest").copied
    assert copy.read_bytes() == (run / name).read_bytes()


def test_what_is_in_the_archive_of_a_backup_is_compared_with_what_it_was(run: Path, tmp_path: Path) -> None:
    name = "archive/20261101_080000/old.log"
    (run / name).parent.mkdir(parents=True)
    (run / name).write_bytes(b"as it was\n")
    backed_up(run, tmp_path / "dest")
    copy = tmp_path / "dest" / run.name / name
    copy.write_bytes(b"as it is\n")
    assert name in backed_up(run, tmp_path / "dest").copied and copy.read_bytes() == b"as it was\n"


@pytest.mark.parametrize("name", ["iter_120.pth", "journal.jsonl"])
def test_what_a_restore_brings_is_read_back(name: str, run: Path, tmp_path: Path) -> None:
    backed_up(run, tmp_path / "dest")
    back = tmp_path / "back" / run.name
    with pytest.raises(DamagedFile, match="does not read back as it was written"):
        restore_from(back, mirror_in(run, tmp_path / "dest"), disk=AlteringDisk(name), clock=SystemClock())
    assert not back.exists()
    brought(back, tmp_path / "dest")
    newest = survey(back, ITERATIONS).newest_good
    assert newest is not None and newest.step == 120


@pytest.mark.parametrize("name", ["iter_120.pth", "journal.jsonl"])
def test_what_is_unpacked_or_comes_in_from_a_copy_is_read_back(name: str, run: Path, tmp_path: Path) -> None:
    packed = pack(run, tmp_path / "run.zip", disk=UnsyncedDisk(), clock=SystemClock()).path
    new, source = tmp_path / "new", next(path for path in run.rglob(name) if path.is_file())
    with pytest.raises(DamagedFile, match="does not read back as it was written"):
        unpack(packed, new, disk=AlteringDisk(name), clock=SystemClock())
    with pytest.raises(DamagedFile, match="does not read back as it was written"):
        copy_file(AlteringDisk(name), source, tmp_path / name)
    assert not new.exists() and not (tmp_path / name).exists()
    unpack(packed, new, disk=UnsyncedDisk(), clock=SystemClock())
    copy_file(UnsyncedDisk(), source, tmp_path / name)
    assert (tmp_path / name).read_bytes() == source.read_bytes() and survey(new, ITERATIONS).newest_good is not None


def test_a_packed_run_that_reads_back_otherwise_is_not_kept(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zip"
    with pytest.raises(DamagedFile):
        pack(run, out, disk=AlteringDisk(out.name), clock=SystemClock())
    assert not list(tmp_path.glob("run.zip*"))


def test_a_copy_with_a_second_name_is_written_anew_and_the_second_stays_as_it_was(run: Path, tmp_path: Path) -> None:
    copy, snapshot = grown(run, tmp_path), tmp_path / "of yesterday.log"
    os.link(copy, snapshot)
    before = snapshot.read_bytes()
    backed_up(run, tmp_path / "dest")
    assert copy.read_bytes() == (run / LOG).read_bytes() and snapshot.read_bytes() == before


class RefusingDisk(UnsyncedDisk):
    """A disk that answers with an error to one name."""

    def __init__(self, name: str, error: int) -> None:
        self._name, self._error = f"{name}.partial", error

    def create(self, path: Path) -> WritableFile:
        if path.name == self._name:
            raise OSError(self._error, os.strerror(self._error), str(path))
        return super().create(path)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ])
def test_a_name_that_the_disk_there_does_not_take_is_said_and_all_else_is_copied(
    error: int, run: Path, tmp_path: Path
) -> None:
    (run / LOG).write_bytes(b"short\n")
    done = backed_up(run, tmp_path / "dest", disk=RefusingDisk(LOG, error))
    assert done.unsound == {LOG: "the file system there does not take this name"} and done.step == 120
    assert files(tmp_path / "dest" / run.name) == {name: what for name, what in files(run).items() if name != LOG}


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_any_other_refusal_of_the_disk_ends_the_backup(error: int, run: Path, tmp_path: Path) -> None:
    (run / LOG).write_bytes(b"short\n")
    with pytest.raises(Refused, match="could not be written"):
        backed_up(run, tmp_path / "dest", disk=RefusingDisk(LOG, error))
    assert not backed_up(run, tmp_path / "dest").unsound
