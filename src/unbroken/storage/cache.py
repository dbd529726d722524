"""What was worked out of files, kept in the user's cache folder for the next command, until one of the files changes.

It may be deleted at any time. What cannot be read, was written by another version, or tells of files that are not as
they were then is not there; what cannot be written is not kept. Neither is ever an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from unbroken.clock import Clock, SystemClock
from unbroken.jsonlines import parsed_json
from unbroken.storage.files import Disk
from unbroken.storage.ordinary import read_whole
from unbroken.version import __version__

FOLDER = "known"  # below the user's cache folder
MOST_ENTRIES = 200  # each of some ten kilobytes
MOST_BYTES = 8 << 20  # of one that is read
GRAIN_NS = 3_000_000_000  # FAT counts in two seconds: a change of a file that is younger might not show in its times


class Cache:
    """Values by what they are about, each with the state of the files that it was worked out of.

    Args:
        folder: The user's cache folder; None: nothing is kept.
        disk: What changes the disk; None: `Disk()`.
        clock: Says when the work begins, which is now; None: the system's.
    """

    def __init__(self, folder: Path | None = None, *, disk: Disk | None = None, clock: Clock | None = None) -> None:
        # Windows tells no time of change that nobody can set.
        self._folder = folder / FOLDER if folder is not None and os.name != "nt" else None
        self._disk = disk or Disk()
        self._began_ns = int((clock or SystemClock()).now().timestamp() * 1e9)

    def get(self, *about: str) -> Any:
        """Return what was kept about this, while each of its files is as it was.

        Args:
            *about: All that the value hangs on beside those files.
        Returns:
            The value, as JSON gives it; None where there is none.
        """
        if self._folder is None:
            return None
        try:
            digest, _, text = read_whole(self._folder / _name(about), most_bytes=MOST_BYTES).partition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() != digest:  # cut off, or two have written at once
                return None
            kept = parsed_json(text)
            return kept["value"] if all(state_of(path) == tuple(was) for path, was in kept["files"].items()) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, *about: str, value: object, files: Iterable[str]) -> None:
        """Keep a value, unless one of its files was changed so lately that a further change might not show.

        Args:
            *about: As for `get`.
            value: JSON-able.
            files: Every file and folder that it was worked out of.
        """
        if self._folder is None:
            return
        with suppress(OSError, ValueError, TypeError):
            states = {os.path.abspath(path): state_of(path) for path in files}  # noqa: PTH100 - links stay links
            if any(max(state[-2:]) > self._began_ns - GRAIN_NS for state in states.values()):
                return
            text = json.dumps({"files": states, "value": value}).encode()
            self._write(self._folder, _name(about), hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    def _write(self, folder: Path, name: str, content: bytes) -> None:
        """Put a file under its name whole, not durably: what a power cut spoils here is made again."""
        self._disk.make_folder(folder)
        partial = folder / f"{name}.{os.getpid()}"
        file = self._disk.create(partial)
        try:
            file.write(content)
        finally:
            self._disk.close(file)
        self._disk.rename(partial, folder / name)
        for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)[:-MOST_ENTRIES]:
            self._disk.remove(path)


def _name(about: Iterable[str]) -> str:
    text = "\0".join([__version__, sys.version, *about])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def state_of(path: str) -> tuple[int, ...]:
    """What the system says of a file or folder; whatever is changed in it, one of these numbers changes."""
    found = os.stat(path)  # noqa: PTH116 - of hundreds of names
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def loaded_code(*packages: str) -> Iterator[str]:
    """The files of what is loaded: all modules of these packages, and of any other that is installed its first one.

    Args:
        *packages: Top-level names.
    Yields:
        Their paths.
    """
    for name, module in list(sys.modules.items()):
        top, _, below = name.partition(".")
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and top not in sys.stdlib_module_names and (not below or top in packages):
            yield file


def cache_folder(environment: Mapping[str, str]) -> Path | None:
    """Where what can be made again is kept: UNBROKEN_CACHE (empty: nowhere), or a folder among the user's caches.

    Args:
        environment: That of the process.
    """
    if (chosen := environment.get("UNBROKEN_CACHE")) is not None:
        return Path(chosen).absolute() if chosen else None
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        if (place := Path(environment.get(name, ""))).is_absolute():
            return place / "unbroken"
    try:
        return Path.home() / ".cache" / "unbroken"
    except RuntimeError:  # a user without a home
        return None
