"""Files of a run brought from one folder into another: compared by digest, copied, read back, under a durable order.

Backup, restore, unpacking and a launch that continues a copy write here, and nowhere else. A file of the source that
is damaged, unreadable or changing never takes the place of what the target holds.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from unbroken.checkpoint.sharded import files_in, head_of
from unbroken.errors import DamagedFile, Refused
from unbroken.fields import Kind, anything, count, list_of, mapping, mapping_of, text, whole
from unbroken.ids import why_unsafe
from unbroken.journal import NO_SESSION
from unbroken.jsonlines import parsed_line
from unbroken.keep.inventory import CheckpointFile, FileStat, Inventory, ListedFile, as_found, stamp_of
from unbroken.run.layout import ARCHIVE_FOLDER, BACKUP_LIST, own
from unbroken.storage import (
    Disk,
    NotTaken,
    WritableFile,
    durable_folder,
    durable_write,
    is_ordinary,
    open_ordinary,
    point_to,
    read_json,
    read_whole,
    write_json,
)
from unbroken.storage.digest import STRONG, Digests, sha256_of

BLOCK_BYTES = 1 << 22
EXTENDED_BYTES = 1 << 20  # from this size on, a file that has only grown is continued and not written anew
MOST_JOURNAL_BYTES = 1 << 30
NAME_REFUSED = {errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ}
LIST_FORMAT = 1
LIST_SCHEMA: Mapping[str, Kind] = {"format": count, "run": text, "source": text, "files": mapping_of(list_of(anything))}
Judge = Callable[[Digests], str]  # of digests: why a file with them is not sound, or ""


class Unsound(NotTaken):
    """The file of the source must not be taken, and why."""


class Moving(NotTaken):
    """The file of the source was replaced, removed or cut off between being listed and being read."""


# -- what a backup holds ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TargetFile:
    """A file of the target: its digest, and what both sides looked like when that was found out."""

    sha256: str
    source: FileStat
    copy: FileStat
    quick: str = ""  # its digest as manifests have it; not known of what earlier versions brought

    @property
    def digests(self) -> tuple[str, ...]:
        """All that is known."""
        return (f"{STRONG}:{self.sha256}", *filter(None, [self.quick]))


@dataclass(frozen=True, kw_only=True)
class BackupList:
    """Whose backup it is (`run` is empty for a run of another program), and its files: `unbroken/backup.json` there.

    The list only saves reading: where it is missing, garbled or does not fit a file any more, the bytes themselves are
    compared again.
    """

    run: str
    source: str
    files: Mapping[str, TargetFile] = field(default_factory=dict)


def read_list(mirror: Path) -> BackupList | None:
    """The list of a backup, if there is a readable one of a known format."""
    try:
        data = mapping(LIST_SCHEMA, required=LIST_SCHEMA)(read_json(own(mirror) / BACKUP_LIST), "")
        if data["format"] != LIST_FORMAT:
            return None
        files = {name: _held(*facts) for name, facts in data["files"].items()}
        return BackupList(run=data["run"], source=data["source"], files=files)
    except (OSError, ValueError, TypeError):
        return None


def write_list(disk: Disk, mirror: Path, listed: BackupList) -> None:
    """Write the list durably."""
    files = {name: astuple(held) for name, held in sorted(listed.files.items())}
    data = {"format": LIST_FORMAT, "run": listed.run, "source": listed.source, "files": files}
    write_json(disk, own(mirror) / BACKUP_LIST, data)


def _held(sha256: Any, source: Any, copy: Any, quick: Any = "") -> TargetFile:
    return TargetFile(
        sha256=text(sha256, "files"), source=_stamp(*source), copy=_stamp(*copy), quick=text(quick, "files")
    )


def _stamp(size_bytes: Any, changed_ns: Any) -> FileStat:
    return FileStat(size_bytes=count(size_bytes, "files"), changed_ns=whole(changed_ns, "files"))


# -- how two runs differ ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Two journals of one run: whether the one is the beginning of the other, and what only one of them knows."""

    is_beginning: bool
    only_here: Collection[str]  # sessions with lines that the other one has not; "" if those are of none
    only_there: Collection[str]


def divergence(here: Path, there: Path) -> Divergence:
    """Compare the journals of two folders; one that is missing is the beginning of any."""
    mine, other = _journal(here), _journal(there)
    lines, others = mine.splitlines(keepends=True), other.splitlines(keepends=True)
    return Divergence(
        is_beginning=other.startswith(mine),
        only_here=_sessions(set(lines) - set(others)),
        only_there=_sessions(set(others) - set(lines)),
    )


def _journal(run: Path) -> bytes:
    try:
        return read_whole(own(run) / "journal.jsonl", most_bytes=MOST_JOURNAL_BYTES)
    except FileNotFoundError:
        return b""


def _sessions(lines: Iterable[bytes]) -> set[str]:
    found = set()
    for line in lines:
        if (record := parsed_line(line)) is not None:
            session = record.get("session")
            found.add(session if isinstance(session, str) else NO_SESSION)
    return found


def set_aside(events: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The files that launches moved into the archive, each with its new path below the run's folder, oldest first."""
    found = []
    for event in events:
        name, to = str(event.get("file")), str(event.get("to")).replace("\\", "/")
        inside = to.startswith(f"{ARCHIVE_FOLDER}/") and not why_unsafe(f"{to}/{name}") and "/" not in name
        if event.get("event") == "set aside" and inside:
            found.append((name, f"{to}/{name}"))
    return found


def is_beginning(path: Path, of: Path) -> bool:
    """Whether all of a file is how another one begins; False where one of them cannot be read."""
    try:
        with open_ordinary(path) as mine, open_ordinary(of) as other:
            size_bytes = os.fstat(mine.fileno()).st_size
            return _digests_of(mine, size_bytes).all == _digests_of(other, size_bytes).all
    except (OSError, Moving, Unsound):
        return False


# -- one file --------------------------------------------------------------------------------------------------------


def write_verified(
    disk: Disk, target: Path, blocks: Iterable[bytes], *, require: Callable[[Digests], None] = lambda _digests: None
) -> Digests:
    """Write a file that gets its name once it was read back, durably; its digests.

    `require` is given them before, and what it raises prevents that. DamagedFile if other bytes are read.
    """
    digests = Digests()

    def fill(file: WritableFile) -> None:
        for block in blocks:
            digests.update(block)
            file.write(block)

    def check(partial: Path) -> None:
        require(digests)
        if sha256_of(partial) != digests.sha256:
            raise _not_as_written(target)

    durable_write(disk, target, fill, check=check)
    return digests


def copy_checkpoint(disk: Disk, source: Path, target: Path) -> None:
    """Copy a checkpoint as it is now, a file or all of a folder with its head last, and read it back."""
    for path in files_in(source):
        copied = target / path.relative_to(source)
        durable_folder(disk, copied.parent)
        copy_file(disk, path, copied)


def copy_file(disk: Disk, source: Path, target: Path) -> None:
    """Copy one file as it is now, and read it back."""
    with open_ordinary(source) as reader:
        write_verified(disk, target, iter(lambda: reader.read(BLOCK_BYTES), b""))


def require_room(place: Path, *, needed: int, free: int, what: str, do: str) -> None:
    """Raise Refused where so many bytes do not fit."""
    if needed > free:
        raise Refused(
            place,
            f"there is no room {what}: {needed - free:,} bytes more are needed",
            expected=f"{needed:,} bytes",
            found=f"{free:,} bytes free",
            do=do,
        )


# -- one folder ------------------------------------------------------------------------------------------------------


class Sync:
    """What is brought from `source` to `target`; `known` is what an earlier call found out, `anew` does not believe it.

    `linked` are the folders of the target, by their names below it, that may be links to another place.
    """

    def __init__(
        self,
        disk: Disk,
        source: Path,
        target: Path,
        known: Mapping[str, TargetFile],
        *,
        anew: bool = False,
        linked: Collection[str] = (),
    ) -> None:
        self._disk, self._source, self._target, self._anew, self._linked = disk, source, target, anew, linked
        self.files = dict(known)
        self.copied: dict[str, int] = {}  # bytes
        self.kept: set[str] = set()
        self.unsound: dict[str, str] = {}
        self.moving: set[str] = set()
        self._folders: set[Path] = set()

    def is_held(self, item: ListedFile) -> bool:
        """Whether the target is known to hold this file as it is."""
        held = self.files.get(item.name)
        if held is None or (self._anew and item.name not in self.copied and item.name not in self.kept):
            return False
        return held.source == item.stamp and held.copy == stamp_of(self._target / item.name)

    def held(self, path: Path) -> TargetFile | None:
        """What is known of a file of the target."""
        return self.files.get(path.relative_to(self._target).as_posix())

    def is_as_it_came(self, path: Path) -> bool:
        """Whether a file of the target is known, and was not touched since it was read back."""
        held = self.held(path)
        return held is not None and held.copy == stamp_of(path)

    def forget(self, path: Path) -> None:
        """A file or a folder of the target has gone."""
        gone = path.relative_to(self._target).as_posix()
        for name in [name for name in self.files if f"{name}/".startswith(f"{gone}/")]:
            del self.files[name]

    def take(self, item: ListedFile, judge: Judge | None = None, *, still: bool = False, once: bool = False) -> bool:
        """Bring one file; whether the target holds it now.

        `still`: it must be the file that was listed; another one may have grown. `once`: what the target has stays.
        """
        self.unsound.pop(item.name, None)
        if self.is_held(item):
            self.kept.add(item.name)
            return True
        try:
            with self._opened(item, still=still) as reader:
                self._bring(item, reader, judge, once=once)
        except Unsound as error:
            self.unsound[item.name] = str(error)
            return False
        except Moving:
            self.moving.add(item.name)
            return False
        return True

    def take_checkpoint(self, item: CheckpointFile, judge: Judge | None = None) -> bool:
        """Bring a checkpoint and then its manifest: without one, it is judged by itself.

        Of a folder the head comes last: until then there is no checkpoint.
        """
        if not all(self.take(shard, still=True) for shard in item.shards):
            return False
        taken = self.take(item.found, judge, still=True)
        if taken and item.manifest_found is not None:
            self.take(item.manifest_found, still=True)
        return taken

    def move(self, path: Path, to: str) -> None:
        """Move a file of the target to another place in it, durably."""
        target = self._target / to
        durable_folder(self._disk, target.parent)
        self._disk.rename(path, target)
        for folder in (path.parent, target.parent):
            self._disk.sync_folder(folder)
        was = path.relative_to(self._target).as_posix()
        for name in [name for name in self.files if f"{name}/".startswith(f"{was}/")]:
            self.files[to + name.removeprefix(was)] = self.files.pop(name)

    def point(self, inventory: Inventory) -> None:
        """Make the run's own link again, where it leads to a file that has come, and the file system has links."""
        name, folder = inventory.pointer, inventory.layout.checkpoints(self._target)
        pointer = folder / inventory.layout.pointer
        if not name or Path(name).name != name or not is_ordinary(head_of(folder / name)):
            return
        if not pointer.is_symlink() or pointer.readlink() != Path(name):
            point_to(self._disk, pointer, name)

    def _bring(self, item: ListedFile, reader: BinaryIO, judge: Judge | None, *, once: bool) -> None:
        def require(digests: Digests) -> None:
            if judge is not None and (why := judge(digests)):
                raise Unsound(why)

        target = self._target / item.name
        here, held = stamp_of(target), self.files.get(item.name)
        if here is not None and here.size_bytes == item.size_bytes:
            digests = _digests_of(reader, here.size_bytes)
            if digests.sha256 == sha256_of(target):
                require(digests)
                self._remember(item, digests)
                self.kept.add(item.name)
                return
        if here is not None and once and (held is None or sha256_of(target) == held.sha256):
            self.kept.add(item.name)
        elif here is None or judge is not None or not self._extended(item, reader, target, here):
            reader.seek(0)
            self._make_folder(target.parent)
            try:
                digests = write_verified(self._disk, target, _blocks(reader, item.size_bytes), require=require)
            except OSError as error:
                if error.errno not in NAME_REFUSED:
                    raise
                raise Unsound("the file system there does not take this name") from error
            self._remember(item, digests)
            self.copied[item.name] = item.size_bytes

    def _extended(self, item: ListedFile, reader: BinaryIO, target: Path, here: FileStat) -> bool:
        """Continue a large file that has only grown; a kill leaves a shorter beginning of it."""
        if not EXTENDED_BYTES <= here.size_bytes < item.size_bytes or target.stat().st_nlink > 1:
            return False  # a copy made of hard links is the source itself
        digests = _digests_of(reader, here.size_bytes)
        if digests.sha256 != sha256_of(target):
            return False
        added = hashlib.sha256()
        file = self._disk.open_append(target)
        try:
            for block in _blocks(reader, item.size_bytes - here.size_bytes):
                digests.update(block)
                added.update(block)
                file.write(block)
            self._disk.sync(file)
        finally:
            self._disk.close(file)
        with open_ordinary(target) as written:
            written.seek(here.size_bytes)
            if hashlib.file_digest(written, "sha256").digest() != added.digest():
                raise _not_as_written(target)
        self._remember(item, digests)
        self.copied[item.name] = item.size_bytes - here.size_bytes
        return True

    def _remember(self, item: ListedFile, digests: Digests) -> None:
        now = stamp_of(self._target / item.name)
        if now is not None:
            self.files[item.name] = TargetFile(sha256=digests.sha256, source=item.stamp, copy=now, quick=digests.quick)

    def _make_folder(self, folder: Path) -> None:
        if folder in self._folders:
            return
        durable_folder(self._disk, folder)
        below = folder.relative_to(self._target)
        for part in (below, *below.parents):
            path, may_lead_out = self._target / part, part.as_posix() in self._linked
            if path.is_symlink() and path != self._target and not may_lead_out:
                raise Refused(path, "this leads out of the folder that is written", do="Remove the link.")
        self._folders.add(folder)

    @contextmanager
    def _opened(self, item: ListedFile, *, still: bool) -> Iterator[BinaryIO]:
        try:
            reader = open_ordinary(self._source / item.name)
        except FileNotFoundError:
            raise Moving from None
        except OSError as error:
            raise _unreadable(error) from error
        with reader:
            now = as_found(item.name, os.fstat(reader.fileno()))
            if now.stamp != item.stamp and (still or now.inode != item.inode):
                raise Moving
            yield reader


def _digests_of(reader: BinaryIO, size_bytes: int) -> Digests:
    """The digests of a file's first bytes."""
    digests = Digests()
    reader.seek(0)
    for block in _blocks(reader, size_bytes):
        digests.update(block)
    return digests


def _blocks(reader: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    """So many bytes from where the reader stands."""
    left = size_bytes
    while left:
        try:
            block = reader.read(min(BLOCK_BYTES, left))
        except OSError as error:
            raise _unreadable(error) from error
        if not block:
            raise Moving
        left -= len(block)
        yield block


def _unreadable(error: OSError) -> Unsound:
    return Unsound(f"the file cannot be read ({error.strerror or error})")


def _not_as_written(path: Path) -> DamagedFile:
    return DamagedFile(
        path,
        "what was written there does not read back as it was written",
        do="The disk there may be failing: look after it, then run the same command again.",
    )
