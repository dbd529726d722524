"""A folder of sample data: whole, or written again, and never in the place of anything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from unbroken.errors import UsageError
from unbroken.ids import LeadsOut, place
from unbroken.storage import Disk, durable_folder, is_ordinary, read_json, write_json

SETTINGS: Final = "settings.json"  # written first: whose folder this is
MANIFEST: Final = "manifest.json"  # written last: that it is complete

Written = tuple[Mapping[str, Any], Mapping[str, int]]


def write_samples(
    folder: Path, settings: Mapping[str, Any], *, noun: str, write: Callable[[], Written]
) -> dict[str, Any]:
    """Write a folder of sample data, unless it is there already; what a kill left is written again.

    Args:
        folder: Where they belong: nowhere yet, an empty folder, or one of the same settings.
        settings: All that decides what is in it, as plain values; `format` names the kind of data and its version, and
            `train` and `val` say how many samples each part has.
        noun: What samples are called here, in the plural: "tiles".
        write: Writes all of them below the folder; returns facts about each part by its name, and the size in bytes of
            each file by its path below the folder.
    Returns:
        What was done: "directory", "written" (how many samples), "message" (a sentence), "settings" and "splits" (the
        facts about each part).
    Raises:
        UsageError: The folder holds anything else.
    """
    manifest = _finished(folder, settings)
    samples = f"{settings['train']} training and {settings['val']} validation {noun}"
    did, written = f"Nothing to do: {samples} of these parameters are already there", 0
    if manifest is None:
        durable_folder(Disk(), folder)
        write_json(Disk(), folder / SETTINGS, settings)
        splits, files = write()
        manifest = {"format": settings["format"], "settings": settings, "splits": splits, "files": files}
        write_json(Disk(), folder / MANIFEST, manifest)
        did, written = f"Wrote {samples}", settings["train"] + settings["val"]
    return {
        "directory": str(folder),
        "written": written,
        "message": f"{did} ({folder}).",
        "settings": manifest["settings"],
        "splits": manifest["splits"],
    }


def _finished(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest if all is there already, None if there is something to write."""
    if not folder.exists():
        return None
    found = _read_object(folder / SETTINGS)
    if found is None and folder.is_dir() and all(entry.name == SETTINGS for entry in folder.iterdir()):
        return None  # empty, or killed while the settings were being written
    if found != settings:
        ours = found is not None and found.get("format") == settings["format"]
        known = ", ".join(f"{key} {value}" for key, value in (found or {}).items() if key != "format")
        raise UsageError(
            folder,
            "the directory is in use",
            expected="an empty directory, or sample data of the same parameters",
            found=f"sample data of {known}" if ours else "other files",
            do="Choose another directory.",
        )
    manifest = _read_object(folder / MANIFEST)
    try:
        files = [(place(folder, name), size) for name, size in manifest["files"].items()] if manifest else []
    except (LeadsOut, KeyError, AttributeError):  # it lists something else than files here
        return None
    whole = all(is_ordinary(path) and path.stat().st_size == size for path, size in files)
    return manifest if whole else None


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        data = read_json(path)
    except (OSError, ValueError):  # a kill may have torn it
        return None
    return data if isinstance(data, dict) else None
