"""SHA-256 of what is written, taken while it is written; `sha256sum` gives the same number."""

from __future__ import annotations

import hashlib

from unbroken.storage.files import WritableFile


class DigestingFile:
    """A file that counts and hashes the bytes that pass through it."""

    def __init__(self, file: WritableFile) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes, /) -> int:
        """Pass `data` on."""
        self._hash.update(data)
        self.size_bytes += self._file.write(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing is buffered here."""
        self._file.flush()

    @property
    def sha256(self) -> str:
        """The digest of everything written so far."""
        return self._hash.hexdigest()
