"""What a command writes of a run stays inside its folder, also where the folder is a copy that a stranger made.

A folder of checkpoints may be a link: people keep large files on another disk. What is written beside them (records,
logs, curves, pictures, the archive) is small and lies in the run itself; a link there leads somewhere nobody meant.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from unbroken.errors import DamagedFile
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, Layout

OWN_FOLDERS = (OWN_FOLDER, f"{OWN_FOLDER}/manifests", f"{OWN_FOLDER}/configs", ARCHIVE_FOLDER)


def require_inside(run: Path, layout: Layout | None = None) -> None:
    """Raise DamagedFile where a folder that a command may write into leads out of the run's own."""
    shown = (layout.curves, layout.evaluation_curves, layout.predictions) if layout is not None else ()
    beside = str(PurePosixPath(layout.run_scalars).parent) if layout is not None and layout.run_scalars else ""
    for name in (*OWN_FOLDERS, *shown, beside):
        path = run / name
        if not is_inside(path, run):
            raise DamagedFile(
                path,
                "this folder is a link that leads out of the run, and nothing is written through it",
                expected="a folder in the run (only the one of the checkpoints may be a link)",
                found=os.path.realpath(path),
                do="Put a folder in its place, or remove the link.",
            )


def is_inside(path: Path, run: Path) -> bool:
    """Whether a path lies in a folder or is it, all links followed."""
    home, led = os.path.realpath(run), os.path.realpath(path)  # Path.resolve would complain of a loop of links
    return led == home or led.startswith(home.rstrip(os.sep) + os.sep)
