"""Every file of a run with how much it is needed: the facts that a parcel is chosen from. Looks only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from unbroken.checkpoint.removal import GOING_SUFFIX
from unbroken.ids import why_unsafe
from unbroken.keep.parcel import Item, Need
from unbroken.run.candidates import Candidate, confirm
from unbroken.run.folder import walk
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, Layout, manifests
from unbroken.run.names import BACKUP_LIST
from unbroken.run.survey import RESTORING, Survey
from unbroken.storage import PARTIAL_SUFFIX
from unbroken.storage.lock import LOCK_FILES
from unbroken.storage.moved import Moved
from unbroken.storage.request import FILE as REQUEST

PACKING_LIST = "packed.json"  # in the run's own folder: what a file that travelled held
EVENTS = ".tfevents."  # TensorBoard's, also where a run's record is older than its curves
# Of a process here, or of an earlier journey.
NOT_THE_RUNS = {*LOCK_FILES, REQUEST, RESTORING, PACKING_LIST, BACKUP_LIST}
LEFT_BEHIND = (PARTIAL_SUFFIX, f".pth{GOING_SUFFIX}")  # by a write or a removal that was cut off


def inventory(facts: Survey, layout: Layout, *, unsound: Mapping[str, str]) -> tuple[Item, ...]:
    """The files of a run; every checkpoint that may go in is verified first. `unsound` adds files with a reason.

    Raises Moved where one is removed or replaced in this moment.
    """
    run = facts.directory
    checked = {item.path: item for item in _verified(facts)}
    found, taken = [], set[str]()
    files = files_of(run, layout)
    for name, size_bytes in files.sizes.items():
        path = run / name
        item = Item(name=name, size_bytes=size_bytes, need=_need(run, path, layout))
        candidate = checked.get(path)
        if candidate is not None:
            item = _of_candidate(item, candidate, facts)
        why = unsound.get(name) or why_unsafe(name)
        if why or name.casefold() in taken:
            item = replace(item, need=Need.UNSOUND, reason=why or "another file has this name in other letters")
        taken.add(name.casefold())
        found.append(item)
    links = (
        Item(name=name, size_bytes=0, need=Need.LINK, reason="a link that is not followed") for name in files.links
    )
    return (*found, *links)


def _verified(facts: Survey) -> list[Candidate]:
    return [_confirmed(item, facts) for item in facts.candidates]


def _confirmed(item: Candidate, facts: Survey) -> Candidate:
    try:
        return confirm(item, manifests(facts.directory))
    except Moved:
        if not item.path.exists():
            raise
        return replace(item, state="damaged", reason="it changed each time while it was read")


@dataclass(frozen=True, kw_only=True)
class Files:
    """What of a run's folder is copied, by name below it with `/`, and the links that are not followed."""

    sizes: Mapping[str, int]
    links: tuple[str, ...]


def files_of(run: Path, layout: Layout) -> Files:
    """Ordinary files: the pointer is made again, and what was cut off is no file of the run."""
    links, sizes = list[str](), dict[str, int]()
    for folder, name, size_bytes in walk(str(run), (layout.checkpoint_folder,), links):
        kept_here = folder == OWN_FOLDER and name in NOT_THE_RUNS
        if not name.endswith(LEFT_BEHIND) and not kept_here:
            sizes[f"{folder}/{name}" if folder else name] = size_bytes
    pointer = (layout.checkpoints(run) / layout.pointer).relative_to(run).as_posix() if layout.pointer else ""
    return Files(sizes=dict(sorted(sizes.items())), links=tuple(sorted(set(links) - {pointer})))


def _of_candidate(item: Item, candidate: Candidate, facts: Survey) -> Item:
    item = replace(item, step=max(candidate.step, 0))
    if candidate.state == "damaged":
        return replace(item, need=Need.UNSOUND, reason=f"damaged: {candidate.reason}")
    if candidate.resumable:
        newest = facts.newest_good
        if not facts.owns(candidate):
            return replace(item, need=Need.UNSOUND, reason="of another run")
        return replace(item, need=Need.NEWEST if newest and newest.path == candidate.path else Need.OLDER)
    is_best = candidate.kind == "weights" and candidate.run == (facts.record.id if facts.record else candidate.run)
    return replace(item, need=Need.BEST if is_best else Need.RESULT)


def _need(run: Path, path: Path, layout: Layout) -> Need:
    name = path.relative_to(run).as_posix()
    first, *others = name.split("/")
    if first == ARCHIVE_FOLDER and others:
        return Need.ARCHIVE
    if first == OWN_FOLDER and others:
        return Need.RECORD
    folders = [folder for folder in (layout.curves, layout.evaluation_curves) if folder]
    of_curves = EVENTS in path.name or any(name.startswith(f"{folder}/") for folder in folders)
    if name == layout.run_scalars or of_curves:
        return Need.CURVE
    return Need.SESSION if path.suffix in (".log", ".txt", ".json", ".jsonl", ".py", ".yaml", ".yml") else Need.RESULT
