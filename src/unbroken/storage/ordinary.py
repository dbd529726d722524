"""The one way to open what a person or a stranger's record names: an ordinary file, and no more of it than it may have.

A name may lead to a device without end, to a pipe that nobody writes, or to a file of many gigabytes where a line was
expected. So the opening itself never waits, what was opened is looked at before a byte is read, and who reads says
how much there may be. Addresses of the web and of object stores lead nowhere: only what lies on this machine is read.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from unbroken.errors import UsageError
from unbroken.fields import BadField, typed
from unbroken.ids import LeadsOut
from unbroken.jsonlines import parsed_json
from unbroken.storage.files import AT_ONCE, BINARY

Record = TypeVar("Record")
MOST_RECORD_BYTES = 64 << 20  # of a record that is read as a whole: hundreds of times what any run has
BLOCK = 1 << 16  # bytes that are asked for at least
NO_FILE = {errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP}  # what opening a socket gives
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # a path has one slash left of two; one letter is a drive
FETCH = {
    "http": "wget {0}",
    "https": "wget {0}",
    "ftp": "wget {0}",
    "s3": "aws s3 cp {0} .",
    "gs": "gcloud storage cp {0} .",
    "gcs": "gcloud storage cp {0} .",
    "hf": "hf download REPOSITORY FILE",
}


class NotOrdinary(OSError):
    """What has this name is no ordinary file, or is larger than what it stands for ever is: an OSError."""


def open_ordinary(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open an ordinary file for reading, without ever waiting for the other end of a pipe.

    Args:
        path: As a person or a record names it.
    Returns:
        The file, to be closed.
    Raises:
        NotOrdinary: It is a folder, a pipe, a socket or a device.
        OSError: As `open` raises it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | AT_ONCE | BINARY)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise NotOrdinary(errno.EINVAL, "a socket or a device, not an ordinary file", str(path)) from None
    except ValueError as error:  # a NUL in the name, or one that the file system's encoding has not
        raise NotOrdinary(errno.EINVAL, f"no file can have this name ({error})", str(path)) from None
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            raise NotOrdinary(errno.EINVAL, f"{KINDS.get(kind, 'something else')}, not an ordinary file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_ordinary(path: str | os.PathLike[str]) -> None:
    """Raise what `open_ordinary` would, as far as it can be seen without opening the file."""
    kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116
    if kind != stat.S_IFREG:
        raise NotOrdinary(errno.EINVAL, f"{KINDS.get(kind, 'something else')}, not an ordinary file", str(path))
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def read_whole(path: str | os.PathLike[str], *, most_bytes: int = MOST_RECORD_BYTES) -> bytes:
    """Return all bytes of an ordinary file.

    Args:
        path: As a person or a record names it.
        most_bytes: So many bytes are believable; the usual 64 MiB are hundreds of times what a record of a run has.
    Raises:
        NotOrdinary: There are more, or it is no ordinary file.
        OSError: It cannot be read.
    """
    with open_ordinary(path) as file:
        size, data = os.fstat(file.fileno()).st_size, b""
        while size <= most_bytes and (block := file.read(max(size - len(data), BLOCK))):  # no memory for what is not
            data += block
            size = max(size, len(data))
        grown = size > most_bytes or os.fstat(file.fileno()).st_size > most_bytes
    if grown:
        raise NotOrdinary(errno.EFBIG, f"larger than {most_bytes:,} bytes", str(path))
    return data


def read_json(path: str | os.PathLike[str], *, most_bytes: int = MOST_RECORD_BYTES) -> Any:
    """Return the content of a JSON file.

    Args:
        path: As a person or a record names it.
        most_bytes: So many bytes are believable.
    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, or nested too deep.
    """
    return parsed_json(read_whole(path, most_bytes=most_bytes))


def is_ordinary(path: Path) -> bool:
    """Tell whether a name leads to an ordinary file, through a link or not.

    Args:
        path: The name.
    Returns:
        False also where that cannot be seen.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_remote(named: object) -> bool:
    """Tell whether a name is an address, such as `https://...`, `s3://...` or `open-mmlab://...`, and no path.

    Args:
        named: What was typed.
    Returns:
        True for what begins like an address, whether there is such a scheme or not.
    """
    return SCHEME.match(str(named)) is not None


def require_local(named: object, *, is_folder: bool = False) -> None:
    """Refuse an address with the command that fetches what it stands for.

    Args:
        named: What was typed; a path is let pass, there or not.
        is_folder: Whether a folder is expected there, which could be mounted.
    Raises:
        UsageError: It is an address, and no file is called so.
    """
    found = SCHEME.match(str(named))
    if found is None or Path(str(named)).exists():
        return
    scheme = found[1].lower()
    address = f"{found[1]}://{str(named)[found.end() :]}"
    what = "folder" if is_folder else "file"
    command = f"with `{FETCH[scheme].format(address)}` " if scheme in FETCH else ""
    mount = " or mount it" if is_folder else ""
    raise UsageError(
        address,
        "this is an address, and only what lies on this machine is read or written",
        do=f"Fetch it {command}first{mount}, and name the {what} here.",
    )


# -- records that are one JSON file each -----------------------------------------------------------------------------


def read_typed(path: str | os.PathLike[str], record: type[Record]) -> Record | None:
    """Return the record in a JSON file, or None where there is none or it does not hold what it should.

    Args:
        path: The file.
        record: A frozen dataclass whose fields say what the file holds.
    """
    return readable(lambda: load_typed(path, record))


def load_typed(path: str | os.PathLike[str], record: type[Record]) -> Record:
    """The same; OSError where it cannot be read, ValueError (BadField for a field) where it is damaged."""
    return typed(record, read_json(path))


def readable(load: Callable[[], Record]) -> Record | None:
    """What was loaded; None where it cannot be read or is damaged."""
    return read_result(load).value


class ReadResult(NamedTuple, Generic[Record]):
    """What came of reading a record: its value, or the error that says why there is none."""

    value: Record | None = None
    error: OSError | ValueError | None = None

    def require(self) -> Record:
        """The value; raises the error where there is none."""
        if self.error is not None:
            raise self.error
        return cast(Record, self.value)

    @property
    def absent(self) -> bool:
        """Whether there is no such file."""
        return isinstance(self.error, FileNotFoundError | NotADirectoryError)

    @property
    def fault(self) -> str:
        """Why the record cannot be used, in words; "" for one that can, and for one that is not there."""
        match self.error:
            case None | FileNotFoundError():
                return ""
            case BadField() | LeadsOut():
                return str(self.error)
            case OSError():
                return f"it cannot be read ({self.error.strerror or self.error})"
        return f"this is no record ({str(self.error)[:80]})"


def read_result(load: Callable[[], Record]) -> ReadResult[Record]:
    """Load a record, whatever comes of it."""
    try:
        return ReadResult(value=load())
    except (OSError, ValueError) as error:
        return ReadResult(error=error)
