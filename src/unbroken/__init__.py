"""Long trainings out of short, interruptible sessions, as if they had never been interrupted.

A *run* is one experiment in one folder; a *session* is one process that works on it, and a run has one or more. A
*step* is one optimizer step, counted over all sessions. A *checkpoint* is one file from which training continues
exactly. A *launch* decides what a session does: begin, *resume*, fine-tune, nothing (it is finished), or refuse.

Importing this package costs nothing and loads no torch. The doors are `unbroken.train` (your own loop, or `fit`),
`unbroken.config` (configs as typed values), `unbroken.storage` (durable files), `unbroken.demo` (sample data and a
demonstration), `unbroken.errors`, the command line `unbroken`, and the names below, with which an application describes
its jobs. All of them: docs/api.md. The rooms behind the doors, each with a page of its own, import only those below
them: DESIGN.md.

Touches nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unbroken.checkpoint.unpickle import read_pickle
    from unbroken.ids import LeadsOut, is_name, place
    from unbroken.journal import read_steps
    from unbroken.launch.extension import Blend, Extension
    from unbroken.launch.job import Environment, Job, Later, LaunchOptions, ProcessOptions, Recipe, Start, WrittenUnder
    from unbroken.launch.options import (
        accidents,
        add_common_options,
        add_weights_key,
        disk_quota,
        folder,
        processes,
        require_launcher,
        saves,
        session_limit,
        start_from,
    )
    from unbroken.option_parser import OptionParser, device_name
    from unbroken.quantities import counted, size_text, some_of
    from unbroken.run.layout import EPOCHS, ITERATIONS, Layout
    from unbroken.storage import (
        Disk,
        NotOrdinary,
        WritableFile,
        durable_folder,
        durable_write,
        is_ordinary,
        open_ordinary,
        read_json,
        read_whole,
        require_local,
        write_json,
        write_whole,
    )
    from unbroken.text import NOT_TEXT, text_of
    from unbroken.version import __version__
else:
    _LOADED_ON_FIRST_USE = {
        "__version__": "unbroken.version",
        "open_run": "unbroken.train",
        "Extension": "unbroken.launch.extension",
        "Blend": "unbroken.launch.extension",
        "Environment": "unbroken.launch.job",
        "Job": "unbroken.launch.job",
        "LaunchOptions": "unbroken.launch.job",
        "Later": "unbroken.launch.job",
        "ProcessOptions": "unbroken.launch.job",
        "Start": "unbroken.launch.job",
        "WrittenUnder": "unbroken.launch.job",
        "OptionParser": "unbroken.option_parser",
        "accidents": "unbroken.launch.options",
        "processes": "unbroken.launch.options",
        "saves": "unbroken.launch.options",
        "add_common_options": "unbroken.launch.options",
        "add_weights_key": "unbroken.launch.options",
        "device_name": "unbroken.option_parser",
        "disk_quota": "unbroken.launch.options",
        "folder": "unbroken.launch.options",
        "require_launcher": "unbroken.launch.options",
        "session_limit": "unbroken.launch.options",
        "start_from": "unbroken.launch.options",
        "Recipe": "unbroken.launch.job",
        "EPOCHS": "unbroken.run.layout",
        "ITERATIONS": "unbroken.run.layout",
        "Layout": "unbroken.run.layout",
        "read_pickle": "unbroken.checkpoint.unpickle",
        "Disk": "unbroken.storage",
        "NotOrdinary": "unbroken.storage",
        "WritableFile": "unbroken.storage",
        "durable_folder": "unbroken.storage",
        "durable_write": "unbroken.storage",
        "write_json": "unbroken.storage",
        "write_whole": "unbroken.storage",
        "is_ordinary": "unbroken.storage",
        "open_ordinary": "unbroken.storage",
        "read_json": "unbroken.storage",
        "read_steps": "unbroken.journal",
        "read_whole": "unbroken.storage",
        "counted": "unbroken.quantities",
        "size_text": "unbroken.quantities",
        "some_of": "unbroken.quantities",
        "LeadsOut": "unbroken.ids",
        "NOT_TEXT": "unbroken.text",
        "is_name": "unbroken.ids",
        "place": "unbroken.ids",
        "require_local": "unbroken.storage",
        "text_of": "unbroken.text",
    }

    def __getattr__(name: str) -> object:
        """Load a name when it is first asked for."""
        if name not in _LOADED_ON_FIRST_USE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_LOADED_ON_FIRST_USE[name]), name)


__all__ = [
    "EPOCHS",
    "ITERATIONS",
    "NOT_TEXT",
    "Blend",
    "Disk",
    "Environment",
    "Extension",
    "Job",
    "Later",
    "LaunchOptions",
    "Layout",
    "LeadsOut",
    "NotOrdinary",
    "OptionParser",
    "ProcessOptions",
    "Recipe",
    "Start",
    "WritableFile",
    "WrittenUnder",
    "__version__",
    "accidents",
    "add_common_options",
    "add_weights_key",
    "counted",
    "device_name",
    "disk_quota",
    "durable_folder",
    "durable_write",
    "folder",
    "is_name",
    "is_ordinary",
    "open_ordinary",
    "place",
    "processes",
    "read_json",
    "read_pickle",
    "read_steps",
    "read_whole",
    "require_launcher",
    "require_local",
    "saves",
    "session_limit",
    "size_text",
    "some_of",
    "start_from",
    "text_of",
    "write_json",
    "write_whole",
]
