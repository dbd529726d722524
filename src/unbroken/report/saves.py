"""The files of a run against their manifests and the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import Manifest, manifest_path, read_manifest
from unbroken.checkpoint.structure import Structure, read_structure
from unbroken.checkpoint.verify import verify_file
from unbroken.errors import UnbrokenError
from unbroken.fields import count_of
from unbroken.journal import Event
from unbroken.report.findings import Findings
from unbroken.run import Layout, read_record
from unbroken.run.candidates import list_candidates
from unbroken.run.layout import manifests
from unbroken.run.links import checkpoint_files
from unbroken.run.missing import known_saves, missing_files, that_matter
from unbroken.storage.moved import undisturbed


@dataclass(frozen=True, kw_only=True)
class SavedFile:
    """One checkpoint or weights file that is here, and what it says about itself."""

    name: str
    step: int | None
    session: str
    position: int | None
    size: int | None  # of the data set


def check_files(
    run: Path, layout: Layout, events: Sequence[Event], findings: Findings, *, verify: bool
) -> list[SavedFile]:
    """Hold every file against its manifest and the journal; with `verify`, read every byte of it."""
    folder, records = layout.checkpoints(run), manifests(run)
    known = known_saves(events)
    # What a copy brought back, or a person, was saved all the same: of a file with a manifest the last save counts.
    last = {str(event.get("file")): event for event in events if event.get("event") == "saved"}
    here = checkpoint_files(folder, run)
    found = []
    for path in here:
        event = known.get(path.name) or (last.get(path.name) if read_manifest(records, path.name) else None)
        found.append(undisturbed(path, partial(_check, path, records, event, findings, verify=verify)))
    names = {path.name for path in here}
    record = read_record(run)
    candidates = [item for item in list_candidates(folder, records) if record is None or item.run == record.id]
    missing = missing_files(run, layout, candidates, events)
    losses = that_matter(missing, candidates)
    for item in losses:
        findings.add(item.name, item.words, step=item.step)
    if gone := sorted(item.name for item in missing if item not in losses):
        findings.note(f"no longer here, though the journal has not seen it go: {', '.join(gone[:8])}")
    for path in sorted(records.glob("*.json")):
        if path.stem not in names and path.stem not in {item.name for item in missing}:
            findings.note(f"manifests/{path.name} is about a file that is not here")
    return found


def _check(
    path: Path, records: Path, event: Mapping[str, Any] | None, findings: Findings, *, verify: bool
) -> SavedFile:
    try:
        inside = read_structure(path)
    except UnbrokenError as error:
        findings.add(path.name, f"the file cannot be read: {error.what}")
        return SavedFile(name=path.name, step=None, session="", position=None, size=None)
    manifest = read_manifest(records, path.name)
    if manifest is None:
        _without_manifest(path, records, event, findings)
    else:
        _with_manifest(path, inside, manifest, event, findings)
    if verify:
        _verify(path, manifest, findings)
    stamp = inside.stamp
    return SavedFile(
        name=path.name,
        step=inside.step,
        session=str(stamp.get("session", "")),
        position=count_of(stamp.get("position")),
        size=count_of(stamp.get("dataset_size")),
    )


def _without_manifest(path: Path, records: Path, event: Mapping[str, Any] | None, findings: Findings) -> None:
    where = f"manifests/{manifest_path(records, path.name).name}"
    if event is not None:
        findings.add(where, f"missing or unreadable, though {path.name} was saved after step {event.get('step')}")
    else:
        findings.note(f"{path.name} has no manifest and no line in the journal: a save that a kill cut off, or foreign")


def _with_manifest(
    path: Path, inside: Structure, manifest: Manifest, event: Mapping[str, Any] | None, findings: Findings
) -> None:
    save = inside.stamp.get("save")
    if save is not None and save != manifest.save:
        # The next save was renamed into place and killed before its manifest; its bytes are judged by themselves.
        findings.note(f"{path.name} holds save {save}, its manifest is of {manifest.save}: a save that a kill cut off")
        return
    if inside.step is not None and inside.step != manifest.step:
        words = f"the manifest says step {manifest.step}, the file says step {inside.step}"
        findings.add(path.name, words, step=inside.step)
    if path.stat().st_size != manifest.size_bytes:
        words = f"{path.stat().st_size} bytes, the manifest says {manifest.size_bytes}"
        findings.add(path.name, words, step=manifest.step)
    if event is None:
        findings.note(f"{path.name} is not in the journal: the session was killed before it could say so")
    elif event.get("sha256") != manifest.sha256:
        words = "is not the save that the journal knows: a session was killed before it could say so"
        findings.note(f"{path.name} {words}")


def _verify(path: Path, manifest: Manifest | None, findings: Findings) -> None:
    sha256, size_bytes = (manifest.sha256, manifest.size_bytes) if manifest is not None else (None, None)
    try:
        verdict = verify_file(path, expected_sha256=sha256, expected_bytes=size_bytes)
    except UnbrokenError as error:
        findings.add(path.name, error.what)
        return
    if verdict.state != "good":
        findings.add(path.name, verdict.reason)
