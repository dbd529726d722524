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
        self.failure: BaseException | None = None  # the first one; serialisers may hide it behind their own

    def write(self, data: bytes, /) -> int:
        """Pass `data` on."""
        if self.failure is not None:
            raise self.failure
        try:
            self.size_bytes += self._file.write(data)
        except BaseException as failure:
            self.failure = failure
            raise
        self._hash.update(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing is buffered here."""
        self._file.flush()

    @property
    def sha256(self) -> str:
        """The digest of everything written so far."""
        return self._hash.hexdigest()
