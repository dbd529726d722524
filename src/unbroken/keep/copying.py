"""Bringing files of a run from one folder into another, each read back before it takes its name.

A file of the source that is damaged, unreadable or changing never takes the place of what the target holds.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from unbroken.errors import DamagedFile, Refused
from unbroken.keep.backup_list import Held, Stamp, stamp_of
from unbroken.keep.listing import Found
from unbroken.storage import Disk, NotTaken, WritableFile, durable_folder, durable_write, open_ordinary

BLOCK_BYTES = 1 << 22
EXTENDED_BYTES = 1 << 20  # from this size on, a file that has only grown is continued and not written anew
NAME_REFUSED = {errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ}
Judge = Callable[[str], str]  # of a digest: why a file with it is not sound, or ""


class Unsound(NotTaken):
    """The file of the source must not be taken, and why."""


class Moving(NotTaken):
    """The file of the source was replaced, removed or cut off between being listed and being read."""


def sound(_digest: str) -> str:
    """Nothing is known that a file of this digest should be."""
    return ""


class Copying:
    """What is brought from `source` to `target`; with `anew`, what is known of a file is not believed.

    `linked` are the folders of the target, by their names below it, that may be links to another place.
    """

    def __init__(
        self,
        disk: Disk,
        source: Path,
        target: Path,
        known: Mapping[str, Held],
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

    def is_held(self, item: Found) -> bool:
        """Whether the target is known to hold this file as it is."""
        held = self.files.get(item.name)
        if held is None or (self._anew and item.name not in self.copied and item.name not in self.kept):
            return False
        return held.source == item.stamp and held.copy == stamp_of(self._target / item.name)

    def take(self, item: Found, judge: Judge = sound, *, still: bool = False, once: bool = False) -> bool:
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

    def _bring(self, item: Found, reader: BinaryIO, judge: Judge, *, once: bool) -> None:
        target = self._target / item.name
        here = stamp_of(target)
        if here is None:
            self._copy(item, reader, target, judge)
        elif (digest := self._same(item, reader, target, here)) is not None:
            self._require_sound(judge, digest)
            self._remember(item, digest)
            self.kept.add(item.name)
        elif once and self._is_as_known(item.name, target):
            self.kept.add(item.name)
        elif judge is not sound or not self._extended(item, reader, target, here):
            self._copy(item, reader, target, judge)

    def _same(self, item: Found, reader: BinaryIO, target: Path, here: Stamp) -> str | None:
        """The digest of both sides, if they are the same."""
        if here.size_bytes != item.stamp.size_bytes:
            return None
        digest = _digest_of(reader, here.size_bytes).hexdigest()
        return digest if digest == _digest_at(target) else None

    def _is_as_known(self, name: str, target: Path) -> bool:
        held = self.files.get(name)
        return held is None or _digest_at(target) == held.sha256

    def _copy(self, item: Found, reader: BinaryIO, target: Path, judge: Judge) -> None:
        digest = hashlib.sha256()

        def fill(file: WritableFile) -> None:
            reader.seek(0)
            for block in _blocks(reader, item.stamp.size_bytes):
                digest.update(block)
                file.write(block)

        def check(partial: Path) -> None:
            self._require_sound(judge, digest.hexdigest())
            if _digest_at(partial) != digest.hexdigest():
                raise _not_as_written(target)

        self._make_folder(target.parent)
        try:
            durable_write(self._disk, target, fill, check=check)
        except OSError as error:
            if error.errno not in NAME_REFUSED:
                raise
            raise Unsound("the file system there does not take this name") from error
        self._remember(item, digest.hexdigest())
        self.copied[item.name] = item.stamp.size_bytes

    def _extended(self, item: Found, reader: BinaryIO, target: Path, here: Stamp) -> bool:
        """Continue a large file that has only grown; a kill leaves a shorter beginning of it."""
        if not EXTENDED_BYTES <= here.size_bytes < item.stamp.size_bytes or target.stat().st_nlink > 1:
            return False  # a copy made of hard links is the source itself
        digest = _digest_of(reader, here.size_bytes)
        if digest.hexdigest() != _digest_at(target):
            return False
        added = hashlib.sha256()
        file = self._disk.open_append(target)
        try:
            for block in _blocks(reader, item.stamp.size_bytes - here.size_bytes):
                digest.update(block)
                added.update(block)
                file.write(block)
            self._disk.sync(file)
        finally:
            self._disk.close(file)
        with open_ordinary(target) as written:
            written.seek(here.size_bytes)
            if hashlib.file_digest(written, "sha256").digest() != added.digest():
                raise _not_as_written(target)
        self._remember(item, digest.hexdigest())
        self.copied[item.name] = item.stamp.size_bytes - here.size_bytes
        return True

    def _require_sound(self, judge: Judge, digest: str) -> None:
        if why := judge(digest):
            raise Unsound(why)

    def _remember(self, item: Found, digest: str) -> None:
        now = stamp_of(self._target / item.name)
        if now is not None:
            self.files[item.name] = Held(sha256=digest, source=item.stamp, copy=now)

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
    def _opened(self, item: Found, *, still: bool) -> Iterator[BinaryIO]:
        path = self._source / item.name
        try:
            reader = open_ordinary(path)
        except FileNotFoundError:
            raise Moving from None
        except OSError as error:
            raise _unreadable(error) from error
        with reader:
            facts = os.fstat(reader.fileno())
            same = Stamp(size_bytes=facts.st_size, changed_ns=facts.st_mtime_ns) == item.stamp
            if not same and (still or facts.st_ino != item.inode):
                raise Moving
            yield reader


def prefix_digest(path: Path, size_bytes: int) -> str | None:
    """The digest of the first bytes of a file; None if there are not so many."""
    try:
        with open_ordinary(path) as reader:
            return _digest_of(reader, size_bytes).hexdigest()
    except (OSError, Moving, Unsound):
        return None


def _digest_of(reader: BinaryIO, size_bytes: int) -> hashlib._Hash:
    digest = hashlib.sha256()
    reader.seek(0)
    for block in _blocks(reader, size_bytes):
        digest.update(block)
    return digest


def _digest_at(path: Path) -> str:
    with open_ordinary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
