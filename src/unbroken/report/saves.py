"""The files of a run against their manifests and the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import Manifest
from unbroken.checkpoint.structure import Structure, open_checkpoint, structure_in
from unbroken.checkpoint.verify import verify_open
from unbroken.errors import UnbrokenError
from unbroken.fields import count_of
from unbroken.report.findings import Findings
from unbroken.run.candidates import Candidate
from unbroken.run.missing import known_saves, missing_files, that_matter
from unbroken.run.view import RunView
from unbroken.storage.moved import undisturbed


@dataclass(frozen=True, kw_only=True)
class SavedFile:
    """One checkpoint or weights file that is here, and what it says about itself."""

    name: str
    step: int | None
    session: str
    position: int | None
    size: int | None  # of the data set


def check_files(view: RunView, findings: Findings, *, verify: bool) -> list[SavedFile]:
    """Hold every file against its manifest and the journal; with `verify`, read every byte of it."""
    known = known_saves(view.events)
    # What a copy brought back, or a person, was saved all the same: of a file with a manifest the last save counts.
    last = {str(event.get("file")): event for event in view.events if event.get("event") == "saved"}
    found = []
    for item in sorted(view.candidates, key=lambda item: item.path):
        event = known.get(item.name) or (last.get(item.name) if item.manifest is not None else None)
        found.append(undisturbed(item.path, partial(_check, item, event, findings, verify=verify)))
    names = {item.name for item in view.candidates}
    ours = [item for item in view.candidates if view.record is None or item.run == view.record.id]
    missing = missing_files(view, ours)
    losses = that_matter(missing, ours)
    for lost in losses:
        findings.add(lost.name, lost.words, step=lost.step)
    if gone := sorted(item.name for item in missing if item not in losses):
        findings.note(f"no longer here, though the journal has not seen it go: {', '.join(gone[:8])}")
    for name in view.manifest_names:
        if name not in names and name not in {item.name for item in missing}:
            findings.note(f"manifests/{name}.json is about a file that is not here")
    return found


def _check(item: Candidate, event: Mapping[str, Any] | None, findings: Findings, *, verify: bool) -> SavedFile:
    path, manifest = item.path, item.manifest
    try:
        with open_checkpoint(path) as file:
            inside = structure_in(file, path)
            if manifest is None:
                _without_manifest(item, event, findings)
            else:
                _with_manifest(path, inside, manifest, event, findings)
            if verify:
                sha256, size_bytes = (manifest.sha256, manifest.size_bytes) if manifest is not None else (None, None)
                verdict = verify_open(file, path, expected_sha256=sha256, expected_bytes=size_bytes)
                if verdict.state != "good":
                    findings.add(path.name, verdict.reason)
    except UnbrokenError as error:
        findings.add(path.name, f"the file cannot be read: {error.what}")
        return SavedFile(name=path.name, step=None, session="", position=None, size=None)
    stamp = inside.stamp
    return SavedFile(
        name=path.name,
        step=inside.step,
        session=str(stamp.get("session", "")),
        position=count_of(stamp.get("position")),
        size=count_of(stamp.get("dataset_size")),
    )


def _without_manifest(item: Candidate, event: Mapping[str, Any] | None, findings: Findings) -> None:
    if event is not None:
        words = f"missing or unreadable, though {item.name} was saved after step {event.get('step')}"
        findings.add(f"manifests/{item.name}.json", words)
    else:
        findings.note(f"{item.name} has no manifest and no line in the journal: a save that a kill cut off, or foreign")


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
