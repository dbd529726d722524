"""Files one could resume from, each with what it holds and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unbroken.checkpoint import FORMAT
from unbroken.checkpoint.manifest import Manifest, read_manifest
from unbroken.checkpoint.stamp import checked_stamp
from unbroken.checkpoint.structure import Structure, read_structure
from unbroken.checkpoint.verify import verify_file
from unbroken.errors import DamagedFile, ForeignFile, UnbrokenError
from unbroken.run.layout import LAYOUTS
from unbroken.run.links import checkpoint_files
from unbroken.run.record import layout_seen
from unbroken.storage.moved import undisturbed
from unbroken.text import printable

COUNTING = ("unbroken ", "MMEngine ", "OpenPCDet ")  # programs whose files say at which step they were written


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One file; `inside` is what it says about itself, known once the file has been opened and found sound."""

    path: Path
    step: int
    kind: str  # "checkpoint", "weights", "foreign checkpoint", "foreign weights", "unknown"
    state: str  # "good", "unchecked", "damaged", "newer", or "foreign": sound, and nothing that we read
    reason: str = ""
    run: str = ""
    format_name: str = ""
    why: str = ""  # training cannot go on from it, where it is another program's
    listed: bool = False  # whether there is a manifest of it
    noted_epoch: int | None = None  # by its manifest, or in a file of another program
    inside: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)  # what a file of MMEngine says of itself

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def epoch(self) -> int | None:
        """Whole epochs that were done, where the file says so."""
        said = self.inside.get("epoch")
        return said if isinstance(said, int) else self.noted_epoch

    @property
    def recipe(self) -> str:
        """Which application wrote it; empty where it is none of ours."""
        run = self.inside.get("run")
        return str(run.get("recipe", "")) if isinstance(run, Mapping) else ""

    @property
    def recorded_step(self) -> int | None:
        """The step that the file itself records: a number in its name may be anything, such as a depth."""
        return self.step if self.format_name.startswith(COUNTING) and self.step >= 0 else None

    @property
    def resumable(self) -> bool:
        """Whether the file holds a full training state (sound or not)."""
        return self.kind in ("checkpoint", "foreign checkpoint")


def list_candidates(folder: Path, manifests: Path) -> list[Candidate]:
    """Every `.pth` in a folder, furthest step first, judged by manifest where there is one, else by content.

    A link is one of them where it stands for a file that was moved elsewhere; `latest.pth` is a convenience that
    resume never trusts. Raises Moved where one is removed or replaced in this moment.
    """
    files = checkpoint_files(folder, manifests.parent.parent)
    return sorted((glance_at(path, manifests) for path in files), key=furthest_first)


def furthest_first(candidate: Candidate) -> tuple[int, bool, bool, str]:
    """The order in which files are tried; among copies of one save, the one that was written under its name."""
    return -candidate.step, not candidate.listed, candidate.name.startswith("latest"), candidate.name


def look_at(path: Path, manifests: Path) -> Candidate:
    """Open and verify one file."""
    return confirm(glance_at(path, manifests), manifests)


def confirm(candidate: Candidate, manifests: Path) -> Candidate:
    """Verify a file byte by byte and read what it says about itself; Moved where it is not the same throughout."""
    if candidate.state != "unchecked":
        return candidate
    return undisturbed(candidate.path, lambda: _confirmed(candidate, manifests))


def _confirmed(candidate: Candidate, manifests: Path) -> Candidate:
    try:
        structure = read_structure(candidate.path)
    except ForeignFile as error:
        return replace(candidate, state="damaged" if candidate.listed else "foreign", reason=_words(error))
    except UnbrokenError as error:
        return replace(candidate, state="damaged", reason=_words(error))
    seen = replace(_from_structure(candidate.path, structure), listed=candidate.listed)
    if seen.state != "unchecked":
        return seen
    if gone := _stateless(structure, manifests.parent.parent):
        return replace(seen, state="damaged", reason=f"the state of {printable(gone[:80])} is missing", inside={})
    manifest = _manifest_of(candidate.path, manifests)
    if manifest is not None and seen.inside.get("save") not in (None, manifest.save):
        manifest = None  # written by a later save that was cut off before its manifest
    verdict = verify_file(
        candidate.path,
        expected_sha256=manifest.sha256 if manifest else None,
        expected_bytes=manifest.size_bytes if manifest else None,
    )
    if verdict.state != "good":
        return replace(seen, state="damaged", reason=verdict.reason)
    return replace(seen, state="good", reason=f"verified by {verdict.method}")


def _stateless(structure: Structure, run: Path) -> str:
    """The first tracked part that has no state in a file of ours, neither by its own name nor by a layout's."""
    stamp = structure.stamp
    if structure.kind != "unbroken checkpoint":
        return ""
    homes = [layout.keys for layout in (*LAYOUTS, layout_seen(run)[0])]
    at_home = {name for keys in homes for name, key in keys.items() if key in structure.tree}
    return next((name for name in stamp["tracked"] if name not in stamp["parts"] and name not in at_home), "")


def glance_at(path: Path, manifests: Path) -> Candidate:
    """Judge one file by its manifest if it has one, else by what it says about itself; its numbers are not read.

    Raises Moved where it is removed or replaced in this moment.
    """
    manifest = _manifest_of(path, manifests)
    return undisturbed(path, lambda: replace(_glance(path, manifest), listed=manifest is not None))


def _manifest_of(path: Path, manifests: Path) -> Manifest | None:
    """The manifest of a file, unless it was written for a file of another name."""
    manifest = read_manifest(manifests, path.name)
    return manifest if manifest is not None and manifest.file == path.name else None


def _glance(path: Path, manifest: Manifest | None) -> Candidate:
    if manifest is not None and path.is_file() and manifest.size_bytes == path.stat().st_size:
        return Candidate(
            path=path,
            step=manifest.step,
            noted_epoch=manifest.epoch,
            kind=manifest.kind,
            state="unchecked",
            run=manifest.run,
        )
    try:
        return _from_structure(path, read_structure(path))
    except UnbrokenError as error:
        if isinstance(error, ForeignFile) and manifest is None:
            return Candidate(path=path, step=step_in_name(path), kind="unknown", state="foreign", reason=_words(error))
        return Candidate(
            path=path,
            step=manifest.step if manifest else step_in_name(path),
            kind=manifest.kind if manifest else kind_of_name(path),
            state="damaged",
            reason=_words(error),
            run=manifest.run if manifest else "",
        )


def _from_structure(path: Path, structure: Structure) -> Candidate:
    inside = structure.stamp
    run, number = inside.get("run"), inside.get("format")
    seen = Candidate(
        path=path,
        step=structure.step if structure.step is not None else step_in_name(path),
        kind=_kind(structure),
        state="unchecked",
        run=str(run.get("id", "")) if isinstance(run, Mapping) else "",
        format_name=structure.kind,
        why=structure.why,
        noted_epoch=structure.epoch,
        inside=inside,
        meta=_meta(structure),
    )
    if type(number) is int and number > FORMAT:
        return replace(seen, state="newer", reason=f"format {number}, this version knows {FORMAT}")
    try:
        checked_stamp(structure)
    except DamagedFile as error:
        return replace(seen, state="damaged", reason=_words(error), inside={})
    return seen


def _meta(structure: Structure) -> Mapping[str, Any]:
    found = structure.tree.get("meta") if isinstance(structure.tree, dict) and not structure.stamp else None
    return found if isinstance(found, dict) else {}


def _kind(structure: Structure) -> str:
    maker, _, what = structure.kind.rpartition(" ")
    if what == "checkpoint" and f"{maker} " in COUNTING:
        return "checkpoint" if maker == "unbroken" else "foreign checkpoint"
    if what in ("weights", "state_dict"):
        return "weights" if maker == "unbroken" else "foreign weights"
    return "unknown"


def kind_of_name(path: Path) -> str:
    """What an unreadable file was, by its name: only used to say what was lost, never to resume."""
    return "weights" if path.name.startswith("best_") else "checkpoint"


def step_in_name(path: Path) -> int:
    """The last number in a name, -1 without one: what is shown for a file that says nothing itself."""
    digits = re.findall("[0-9]+", path.stem)
    return int(digits[-1]) if digits else -1


def _words(error: UnbrokenError) -> str:
    return error.what + (f" (expected {error.expected}, found {error.found})" if error.found else "")
