"""The furthest checkpoint of a run, by its records where they tell, else by what the files say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbroken.fields import count_of
from unbroken.run.folder import Files, json_of
from unbroken.run.links import MANIFESTS

if TYPE_CHECKING:
    from unbroken.run.candidates import Candidate

UNKNOWN = 1 << 63  # a file that the journal does not know may be the furthest


@dataclass(frozen=True, kw_only=True)
class Furthest:
    """The furthest checkpoint that can be continued from, or that there was one."""

    step: int = 0
    found: bool = False
    lost: bool = False  # something was saved, and nothing is here that could be continued from
    program: str = ""  # that wrote it, when that is not ours
    path: Path | None = None
    inside: Mapping[str, Any] = field(default_factory=dict)  # what a file says of itself, where it was opened


def furthest_checkpoint(directory: Path, files: Files, *, run: str, saved: Mapping[str, int]) -> Furthest:
    """Look for it; `saved` are the steps of the files that the journal knows. A file with a manifest is not opened."""
    best, unlisted = Furthest(), list[str]()
    for name in sorted(files.sizes, key=lambda name: saved.get(name, UNKNOWN), reverse=True):
        if best.found and saved.get(name, UNKNOWN) <= best.step:
            break
        manifest = json_of(f"{directory}/{MANIFESTS}/{name}.json") if name in files.manifests else None
        if manifest is None or not _describes(manifest, name, files.sizes[name]):
            unlisted.append(name)
            continue
        step = count_of(manifest.get("step"))
        is_its_own = manifest.get("kind") == "checkpoint" and (not run or manifest.get("run") == run)
        if is_its_own and step is not None and (not best.found or step > best.step):
            best = Furthest(step=step, found=True, path=_place(directory, files, name))
    seen = _opened(directory, files, unlisted, run=run, has_saves=bool(saved)) if unlisted else Furthest()
    if seen.found and (not best.found or seen.step > best.step):
        return seen
    return best if best.found else Furthest(lost=seen.lost or bool(saved))


def _describes(manifest: Any, name: str, size_bytes: int) -> bool:
    return isinstance(manifest, dict) and manifest.get("file") == name and manifest.get("size_bytes") == size_bytes


def _opened(directory: Path, files: Files, names: Sequence[str], *, run: str, has_saves: bool) -> Furthest:
    """Open files that have no manifest: all of a run of ours, else from the furthest name on down to a good one."""
    from unbroken.run.candidates import glance_at

    best, lost = Furthest(), False
    for name in sorted(names, key=_number_in, reverse=True):
        try:
            item = glance_at(_place(directory, files, name), directory / MANIFESTS)
        except OSError:  # removed in this moment
            continue
        belongs = not run or item.run == run or (item.kind == "foreign checkpoint" and not has_saves)
        lost = lost or (item.resumable and (belongs or (item.state == "damaged" and not item.run)))
        if item.resumable and belongs and item.state == "unchecked" and (not best.found or item.step > best.step):
            best = _found(item)
            if not run:
                break
    return best if best.found else Furthest(lost=lost)


def _found(item: Candidate) -> Furthest:
    foreign = item.kind == "foreign checkpoint"
    program = item.format_name.partition(" ")[0] if foreign else ""
    return Furthest(step=max(item.step, 0), found=True, program=program, path=item.path, inside=item.inside)


def _number_in(name: str) -> int:
    digits = "".join(char if char.isascii() and char.isdigit() else " " for char in name).split()
    return int(digits[-1][:18]) if digits else -1


def _place(directory: Path, files: Files, name: str) -> Path:
    return directory / files.checkpoint_folder / name
