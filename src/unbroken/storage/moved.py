"""Looking at files that a live process saves, replaces and removes meanwhile.

A file that is gone between two looks is no file of the run any more, and one that was replaced is another: what was
found of it is forgotten, and who looked looks again from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from unbroken.errors import Refused

Found = TypeVar("Found")
TRIES_OF_ONE = 10
TRIES = 100  # a live training saves slower than a folder is listed


class Moved(FileNotFoundError):
    """A file was removed or replaced between two looks at it."""


def undisturbed(path: Path, look: Callable[[], Found]) -> Found:
    """What `look` finds of a file that is the same before and after.

    One that was replaced is looked at again; Moved where it is gone, or replaced each time.
    """
    after = stamp(path)
    for _ in range(TRIES_OF_ONE):
        before = after
        try:
            found = look()
        except FileNotFoundError as error:
            raise Moved(*error.args) from error
        after = stamp(path)
        if after == before:
            return found
    raise Moved(f"{path} was replaced each time it was looked at")


def looked_again(where: Path, look: Callable[[], Found]) -> Found:
    """What `look` finds, once no file was moved while it looked; Refused where there is no end to that."""
    for _ in range(TRIES):
        try:
            return look()
        except Moved:
            continue
    raise Refused(
        where, "its files change faster than they can be looked at", do="Run it again when the session has ended."
    )


def stamp(path: Path) -> tuple[int, ...]:
    """What tells a file, or what lies in a folder, from what will be there later; Moved where nothing is there."""
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            return ()  # a link to a file that is not there stays one
        raise Moved(*error.args) from error
    except (OSError, ValueError):
        return ()  # what cannot be seen is for `look` to say
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
