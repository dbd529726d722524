"""A run on disk: where its files lie, who it is, what state it is in, and the run held open for work.

A *layout* gives the names of a run's files, as the guides show them. The *record* (`unbroken/run.json`) says once and
for all which run this is. A *view* is a run as one look finds it: each of its files is read once, when it is first
asked for, and all else that is said of a run on disk is made from it: its *history* (what the events add up to), its
*candidates* (files one could resume from, with what is wrong with them), its *summary* (what a listing shows), its
*survey* (everything a launch needs to know). An *open run* holds the lock, the journal and the store for one session.

Read first: `view.py` and `opened.py`: a run that is looked at, and one that is worked on.

Touches files (those of a run, and only while it is held open; a view changes nothing).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unbroken.run.candidates import Candidate, look_at
    from unbroken.run.layout import EPOCHS, ITERATIONS, Layout
    from unbroken.run.opened import OpenRun, SessionFiles
    from unbroken.run.record import Restoring, RunRecord, layout_of, layout_seen, read_record
    from unbroken.run.survey import MissingFile, Survey
    from unbroken.run.view import RunView
else:
    _LOADED_ON_FIRST_USE = {  # `ls` needs little of this room, and is quick because it loads no more
        "Candidate": "candidates",
        "look_at": "candidates",
        "EPOCHS": "layout",
        "ITERATIONS": "layout",
        "Layout": "layout",
        "MissingFile": "survey",
        "OpenRun": "opened",
        "SessionFiles": "opened",
        "RunRecord": "record",
        "layout_of": "record",
        "layout_seen": "record",
        "read_record": "record",
        "Restoring": "record",
        "Survey": "survey",
        "RunView": "view",
    }

    def __getattr__(name: str) -> object:
        """Load a name when it is first asked for."""
        if name not in _LOADED_ON_FIRST_USE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LOADED_ON_FIRST_USE[name]}"), name)


__all__ = [
    "EPOCHS",
    "ITERATIONS",
    "Candidate",
    "Layout",
    "MissingFile",
    "OpenRun",
    "Restoring",
    "RunRecord",
    "RunView",
    "SessionFiles",
    "Survey",
    "layout_of",
    "layout_seen",
    "look_at",
    "read_record",
]
