"""The functions that are running, and which of them are the script's own."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

OURS = str(Path(__file__).resolve().parent.parent)
LIBRARIES = (OURS, *filter(None, map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))))


def user_frames() -> Iterator[FrameType]:
    """The running functions that are the script's own, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code):
            yield frame
        frame = frame.f_back


def is_users(code: CodeType) -> bool:
    """Whether code is neither ours nor a library's."""
    return is_users_file(code.co_filename)


@cache
def is_users_file(name: str) -> bool:
    """The same of a file, by where it lies; what is typed into a notebook or a prompt is the user's."""
    of_library = "site-packages" in name or any(name.startswith(f"{folder}/") for folder in LIBRARIES)
    return not of_library and not name.startswith("<frozen")


def frames_with(thing: object) -> list[FrameType]:
    """The script's running functions from the innermost one to the outermost one that has a variable for a thing."""
    frames = list(user_frames())
    having = [place for place, frame in enumerate(frames) if any(each is thing for each in frame.f_locals.values())]
    return frames[: max(having, default=0) + 1]


def is_users_class(kind: type) -> bool:
    """Whether a class is the script's own."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    return kind.__module__ == "__main__" or (isinstance(file, str) and is_users_file(file))
