"""What a command writes of a run stays inside its folder, also where the folder is a copy that a stranger made.

A folder of checkpoints may be a link: people keep large files on another disk. Another folder of the run may be one
only where it leads to what the run kept there before it was moved; nothing is written into any other folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unbroken.errors import DamagedFile
from unbroken.run.folder import entries
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, Layout

SESSIONS = r"[0-9]{8}_[0-9]{6}(?:_[0-9]+)?"
RECORDS = r".*\.(?:json|jsonl|partial)|lock|configs|manifests"


def require_inside(run: Path, layout: Layout | None = None) -> None:
    """Raise DamagedFile where a folder that a command may write into leads out of the run's own."""
    for name, kept in _folders(layout):
        path = run / name
        if is_inside(path, run):
            continue
        found = [entry.name for entry in entries(str(path))]
        if not found or not all(re.fullmatch(kept, entry) for entry in found):
            raise DamagedFile(
                path,
                "this folder is a link that leads out of the run, and nothing is written through it",
                expected="a folder in the run, or a link to what the run kept there before",
                found=os.path.realpath(path),
                do="Put a folder in its place, or remove the link.",
            )


def _folders(layout: Layout | None) -> Iterator[tuple[str, str]]:
    """The folders that a command may write into, each with the names that it has there."""
    yield from ((OWN_FOLDER, RECORDS), (f"{OWN_FOLDER}/manifests", RECORDS), (f"{OWN_FOLDER}/configs", RECORDS))
    yield ARCHIVE_FOLDER, SESSIONS
    if layout is not None:
        yield from ((name, r"events\.out\.tfevents\..*") for name in (layout.curves, layout.evaluation_curves) if name)
        yield layout.predictions, r"[0-9]+"
        if (beside := PurePosixPath(layout.run_scalars).parent.as_posix()) != ".":
            yield beside, r"scalars\.json.*|config\.py"


def is_inside(path: Path, run: Path) -> bool:
    """Whether a path lies in a folder or is it, all links followed."""
    home, led = os.path.realpath(run), os.path.realpath(path)  # Path.resolve would complain of a loop of links
    return led == home or led.startswith(home.rstrip(os.sep) + os.sep)
