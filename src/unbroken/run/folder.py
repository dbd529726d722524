"""What lies in a run's folder, by name and size: found in one walk, nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from unbroken.run.links import FOLDERS, RECORDS, is_checkpoint_elsewhere, why_not_followed
from unbroken.storage import read_json
from unbroken.storage.records import readable


def json_of(path: Path | str) -> Any:
    """The content of a JSON file; None for one that cannot be read."""
    return readable(lambda: read_json(path))


def entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError:
        return


def walk(run: str, parts: Collection[str], links: list[str] | None = None) -> Iterator[tuple[str, str, os.stat_result]]:
    """Folder (below the run's, with `/`), name and facts of each file of a run, also behind links (see `run.links`).

    `parts` are the folders in which checkpoints may lie. The names of links that are not followed go to `links`.
    """
    waiting, left_out, behind = [""], [] if links is None else links, set[str]()
    while waiting:
        folder = waiting.pop()
        try:
            found = list(os.scandir(f"{run}/{folder}"))
        except OSError:
            continue
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                if entry.is_symlink():
                    if not _is_followed(run, parts, folder, entry):
                        left_out.append(name)
                        continue
                    behind.add(os.path.realpath(entry.path))
                if entry.is_dir():
                    waiting.append(name)
                elif entry.is_file():
                    yield folder, entry.name, entry.stat()
            except OSError:  # retention of a live process
                continue
        if behind:  # a folder of this run that one of its links leads to is not walked a second time
            home = os.path.realpath(run)
            waiting = [name for name in waiting if f"{home}/{name}" not in behind]


def _is_followed(run: str, parts: Collection[str], folder: str, entry: os.DirEntry[str]) -> bool:
    if entry.is_dir():
        name = f"{folder}/{entry.name}" if folder else entry.name
        return (name in FOLDERS or name in parts) and not why_not_followed(entry.path, run)
    if folder in parts and entry.name.endswith(".pth"):
        return is_checkpoint_elsewhere(entry.path, run)
    is_record = folder in RECORDS and entry.name.endswith((".json", ".jsonl"))
    return is_record and entry.is_file() and not why_not_followed(entry.path, run)
