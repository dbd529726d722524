"""The training as a child of `supervising`: `python -m unbroken.cli.child JSON`; nobody types this."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Callable, Sequence

from unbroken.cli.crashes import Place
from unbroken.cli.entry import run_tool


def child_command(arguments: Sequence[str]) -> int:
    """Train as the parent was told to; notes what comes next, so that the parent can name it after a crash."""
    told = json.loads(arguments[0])
    sys.path[:] = told["path"]
    faulthandler.enable(all_threads=False)  # a fault in native code shows where Python was
    from unbroken.cli.train import train_as_told

    return train_as_told(
        told["recipe"],
        told["arguments"],
        typed=told["typed"],
        began_s=told["began_s"],
        restarted=told["restarted"],
        coming=_noting(told["note"]),
    )


def _noting(descriptor: int | None) -> Callable[[str, int, Callable[[], list[tuple[int, int]]]], None] | None:
    if descriptor is None:
        return None

    def note(what: str, step: int, samples: Callable[[], list[tuple[int, int]]]) -> None:
        place = Place(what=what, step=step, samples=tuple(samples()))
        os.pwrite(descriptor, place.as_note(), 0)

    return note


if __name__ == "__main__":
    raise SystemExit(run_tool(child_command))
