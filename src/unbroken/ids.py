"""Names of runs, saves and sessions, and what a recorded name may be: the one way from it to a path.

A *run id* is the random name a run gets once; it is inside every checkpoint, so that a file is recognised wherever it
is copied to. A *session name* is the local time at which a process began to work on a run. A journal, a record, a
manifest or a packed run may come from a stranger: what they name has to lie where it would lie if we had written it,
on every system: no `..`, no absolute path, no drive, no device of Windows, nothing that a file system refuses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container
from datetime import datetime
from functools import lru_cache
from pathlib import Path

LONGEST_PART_BYTES = 200  # of one name; some systems allow 255
LONGEST_BYTES = 2_000  # of a whole path
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')  # on Windows; a backslash separates folders there
DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)


def new_id() -> str:
    """A random name of 16 hex digits (64 bits: no two runs of a laboratory will ever share one)."""
    import secrets  # 10 ms that only a run's beginning and its saves pay for

    return secrets.token_hex(8)


def host_name() -> str:
    """That of this machine in the network."""
    if hasattr(os, "uname"):
        return os.uname().nodename
    import socket

    return socket.gethostname()


def free_name(moment: datetime, taken: Container[str]) -> str:
    """`YYYYmmdd_HHMMSS`, with `_2`, `_3`... when a name of the same second is taken."""
    base = moment.strftime("%Y%m%d_%H%M%S")
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    return name


class LeadsOut(ValueError):
    """A recorded name that is no path inside the folder that it was recorded for: a ValueError."""


def place(folder: Path, recorded: object) -> Path:
    """Return the path below a folder that a recorded name stands for: the one way to make a path of what a file says.

    Args:
        folder: Out of which it may not lead.
        recorded: The name, with `/` between its parts.
    Raises:
        LeadsOut: It is absolute, has `..`, or is no name on some system.
    Example:
        >>> from pathlib import Path
        >>> from unbroken import place
        >>> place(Path("run"), "logs/first.log").as_posix()
        'run/logs/first.log'
        >>> place(Path("run"), "../other")
        Traceback (most recent call last):
        unbroken.ids.LeadsOut: '../other' does not stay inside the folder
    """
    if why := why_unsafe(recorded):
        raise LeadsOut(f"{str(recorded)[:80]!r} {why}")
    return folder / str(recorded)


def is_name(recorded: object) -> bool:
    """Tell whether something is the name of one file or folder, on every system.

    Args:
        recorded: Anything.
    Returns:
        False for what has a `/`, is no text, or is a device of Windows.
    """
    return isinstance(recorded, str) and "/" not in recorded and not why_unsafe(recorded)


def why_unsafe(recorded: object) -> str:
    """What keeps a recorded name from being a path inside a folder, as the end of a sentence; "" where nothing does."""
    return _why_unsafe(recorded) if isinstance(recorded, str) else "is no name"


@lru_cache(maxsize=1000)  # a journal names its session in every line
def _why_unsafe(recorded: str) -> str:
    parts = recorded.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "does not stay inside the folder"
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "has a name that is no text"
    if max(sizes) > LONGEST_PART_BYTES or sum(sizes) > LONGEST_BYTES:
        return "has a name that is too long"
    if FORBIDDEN.search(recorded) or any(part[-1] in " ." or DEVICES.fullmatch(part) for part in parts):
        return "has a name that not every system allows"
    return ""
