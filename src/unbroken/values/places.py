"""Paths out of names that somebody wrote down: the one function that makes them, so that none leads out of its folder.

A journal, a record, a manifest or a packed run may come from a stranger. What they name has to lie where it would lie
if we had written it, on every system: no `..`, no absolute path, no drive, no device of Windows, nothing that a file
system refuses.
"""

from __future__ import annotations

import re
from pathlib import Path

LONGEST_PART_BYTES = 200  # of one name; some systems allow 255
LONGEST_BYTES = 2_000  # of a whole path
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')  # on Windows; a backslash separates folders there
DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)


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
