"""SHA-256 of a file, or of what is written while it is written; `sha256sum` gives the same number."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unbroken.storage.files import WritableFile
from unbroken.storage.ordinary import open_ordinary

LARGE_BYTES = 1 << 18


def sha256_of(path: Path) -> str:
    """The digest of a file that is there; raises OSError when it cannot be read."""
    with open_ordinary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestingFile:
    """A file that counts and hashes the bytes that pass through it."""

    def __init__(self, file: WritableFile) -> None:
        from concurrent.futures import ThreadPoolExecutor  # it loads logging, which looking does without

        self._file = file
        self._hash = hashlib.sha256()
        self._helper = ThreadPoolExecutor(max_workers=1)  # hashes a large block while it is being written
        self.size_bytes = 0

    def write(self, data: bytes | memoryview, /) -> int:
        """Pass `data` on."""
        size_bytes = memoryview(data).nbytes
        beside = self._helper.submit(self._hash.update, data) if size_bytes >= LARGE_BYTES else None
        try:
            self.size_bytes += self._file.write(data)
        finally:
            if beside is not None:  # `data` is the caller's again when this returns
                beside.result()
        if beside is None:
            self._hash.update(data)
        return size_bytes

    def flush(self) -> None:
        """Nothing is buffered here."""
        self._file.flush()

    @property
    def sha256(self) -> str:
        """The digest of everything written so far; nothing more is written afterwards."""
        self._helper.shutdown()
        return self._hash.hexdigest()
