"""The digest of a whole file, `xxh3_128:0af3...` or `sha256:0af3...`: the one door for who takes one or compares two.

Whether a file is still as it was written says xxh3_128, at the speed of memory. SHA-256, ten times as slow, is for what
leaves this machine (backups, parcels): no one can make another file of the same digest, and `sha256sum` gives the same.
"""

from __future__ import annotations

import errno
import hashlib
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol

from unbroken.storage.files import WritableFile
from unbroken.storage.ordinary import open_ordinary

QUICK, STRONG = "xxh3_128", "sha256"
BLOCK_BYTES = 4 << 20


class Hasher(Protocol):
    """What takes a digest of bytes, one block after the other."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes in."""

    def hexdigest(self) -> str:
        """Return the digest of all so far."""
        ...


@cache
def can_take(kind: str) -> bool:
    """Whether digests of a kind can be taken here: an installation that is older than the files may lack a package."""
    if kind != QUICK:
        return kind == STRONG
    try:
        import xxhash  # noqa: F401
    except ImportError:
        return False
    return True


def hasher(kind: str) -> Hasher:
    """A new digest of a kind that can be taken."""
    if kind == STRONG:
        return hashlib.sha256()
    import xxhash  # here: looking at records alone does without

    return xxhash.xxh3_128()


def kind_of(digest: str) -> str:
    """The kind of a digest, as it says itself."""
    return digest.partition(":")[0]


def digest_of(file: BinaryIO, kind: str, *, into: memoryview | None = None) -> str:
    """The digest of an open file, from its beginning to its end; raises OSError when it cannot be read.

    With `into`, memory as long as the file, its bytes stand there afterwards.
    """
    file.seek(0)
    found, done = hasher(kind), 0
    block = memoryview(bytearray(BLOCK_BYTES)) if into is None else into[:BLOCK_BYTES]
    while size := file.readinto(block):  # type: ignore[attr-defined]  # which every binary file has
        found.update(block[:size])
        if into is not None:
            done += size
            block = into[done : done + BLOCK_BYTES]
            if not block and file.read(1):
                raise OSError(errno.EIO, "it has grown while it was read")
    return f"{kind}:{found.hexdigest()}"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file that is there, in hex digits alone; raises OSError when it cannot be read."""
    with open_ordinary(path) as file:
        return digest_of(file, STRONG).removeprefix(f"{STRONG}:")


def is_of(path: Path, digest: str) -> bool:
    """Whether a digest is that of a file; raises OSError when the file cannot be read."""
    if not can_take(kind_of(digest)):
        return False
    with open_ordinary(path) as file:
        return digest_of(file, kind_of(digest)) == digest


class Digests:
    """Both digests of the same bytes: of a file that is on its way to another machine."""

    def __init__(self) -> None:
        self._found = {kind: hasher(kind) for kind in (STRONG, QUICK) if can_take(kind)}

    def update(self, data: bytes) -> None:
        """Take more bytes in."""
        for each in self._found.values():
            each.update(data)

    @property
    def sha256(self) -> str:
        """The SHA-256 in hex digits alone."""
        return self._found[STRONG].hexdigest()

    @property
    def quick(self) -> str:
        """The other one as manifests have it; "" where it cannot be taken here."""
        return f"{QUICK}:{self._found[QUICK].hexdigest()}" if QUICK in self._found else ""

    @property
    def all(self) -> tuple[str, ...]:
        """Both as manifests have them."""
        return (f"{STRONG}:{self.sha256}", *filter(None, [self.quick]))


class DigestingFile:
    """A file that counts and hashes the bytes that pass through it."""

    def __init__(self, file: WritableFile) -> None:
        self._file = file
        self._kind = QUICK if can_take(QUICK) else STRONG
        self._found = hasher(self._kind)
        self.size_bytes = 0

    def write(self, data: bytes | memoryview, /) -> int:
        """Pass `data` on."""
        self._found.update(data)
        written = self._file.write(data)
        self.size_bytes += written
        return written

    def flush(self) -> None:
        """Nothing is buffered here."""
        self._file.flush()

    @property
    def digest(self) -> str:
        """The digest of everything written so far."""
        return f"{self._kind}:{self._found.hexdigest()}"
