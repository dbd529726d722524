"""Names of runs, saves and sessions, and what a recorded name may be: the one way from it to a path.

A *run id* is the random name a run gets once; it is inside every checkpoint, so that a file is recognised wherever it
is copied to. A *session name* is the local time at which a process began to work on a run. A journal, a record, a
manifest or a packed run may come from a stranger: what they name has to lie where it would lie if we had written it,
on every system: no `..`, no absolute path, no drive, no device of Windows, nothing that a file system refuses.
"""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import datetime
from pathlib import Path

LONGEST_PART_BYTES = 200  # of one name; some systems allow 255
LONGEST_BYTES = 2_000  # of a whole path
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')  # on Windows; a backslash separates folders there
DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)


def new_id() -> str:
    """A random name of 16 hex digits (64 bits: no two runs of a laboratory will ever share one)."""
    import secrets  # 10 ms that only a run's beginning and its saves pay for

    return secrets.token_hex(8)


def free_name(moment: datetime, taken: Container[str]) -> str:
    """`YYYYmmdd_HHMMSS`, with `_2`, `_3`... when a name of the same second is taken."""
    base = moment.strftime("%Y%m%d_%H%M%S")
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    return name


class LeadsOut(ValueError):
    """A recorded name that is no path inside the folder that it was recorded for."""


def place(folder: Path, recorded: object) -> Path:
    """The path below `folder` that a recorded name stands for, with `/` between its parts; LeadsOut for any other."""
    if why := why_unsafe(recorded):
        raise LeadsOut(f"{str(recorded)[:80]!r} {why}")
    return folder / str(recorded)


def is_name(recorded: object) -> bool:
    """Whether it is the name of one file or folder, on every system."""
    return isinstance(recorded, str) and "/" not in recorded and not why_unsafe(recorded)


def why_unsafe(recorded: object) -> str:
    """What keeps a recorded name from being a path inside a folder, as the end of a sentence; "" where nothing does."""
    if not isinstance(recorded, str):
        return "is no name"
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
