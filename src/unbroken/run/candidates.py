"""Files one could resume from, each with what it holds and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbroken.checkpoint import FORMAT
from unbroken.checkpoint.manifest import Manifest, read_manifest
from unbroken.checkpoint.sharded import is_sharded, size_of
from unbroken.checkpoint.stamp import checked_stamp
from unbroken.checkpoint.structure import Structure, read_structure
from unbroken.clock import START
from unbroken.errors import DamagedFile, ForeignFile, UnbrokenError
from unbroken.run.folder import checkpoint_files
from unbroken.run.layout import LAYOUTS, Layout
from unbroken.run.record import layout_seen
from unbroken.storage.moved import undisturbed
from unbroken.text import printable

if TYPE_CHECKING:  # what takes a checkpoint apart is loaded by who opens one: a listing seldom does
    from unbroken.checkpoint.structure import Structure

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
    shut: bool = False  # this user may not read it, so whether it is sound is not known
    noted_epoch: int | None = None  # by its manifest, or in a file of another program
    inside: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)  # what a file of MMEngine says of itself
    manifest: Manifest | None = field(default=None, compare=False, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)  # of another program's file

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
    """Every checkpoint in a folder, furthest step first, judged by manifest where there is one, else by content.

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
    return confirm(glance_at(path, manifests), layout_seen(manifests.parent.parent)[0])


def confirm(candidate: Candidate, layout: Layout) -> Candidate:
    """Verify a file byte by byte and read what it says about itself; Moved where it is not the same throughout.

    `layout` is that of its run: it says under which keys the parts lie.
    """
    if candidate.state != "unchecked":
        return candidate
    with START.inside("verify"):
        return undisturbed(candidate.path, lambda: _confirmed(candidate, layout))


def _confirmed(candidate: Candidate, layout: Layout) -> Candidate:
    from unbroken.checkpoint.kept import keep, room_for
    from unbroken.checkpoint.structure import open_checkpoint, structure_in
    from unbroken.checkpoint.verify import WHOLE_FILE, verify_open

    manifest = candidate.manifest
    try:
        with open_checkpoint(candidate.path) as file:  # what is read of it is what is verified
            structure = structure_in(file, candidate.path)
            seen = replace(_from_structure(candidate.path, structure), listed=candidate.listed, manifest=manifest)
            if seen.state != "unchecked":
                return seen
            if gone := _stateless(structure, layout):
                missing = f"the state of {printable(gone[:80])} is missing"
                return replace(seen, state="damaged", reason=missing, inside={})
            if manifest is not None and seen.inside.get("save") not in (None, manifest.save):
                manifest = None  # written by a later save that was cut off before its manifest
            verdict = verify_open(
                file,
                candidate.path,
                expected_digest=manifest.digest if manifest else None,
                expected_bytes=manifest.size_bytes if manifest else None,
                into=(memory := room_for(file)),
            )
            if memory is not None and verdict.state == "good" and verdict.method == WHOLE_FILE:
                keep(file, structure, memory)  # for the launch that loads it, if one is asked
    except ForeignFile as error:
        return replace(candidate, state="damaged" if candidate.listed else "foreign", reason=_words(error))
    except UnbrokenError as error:
        return replace(candidate, state="damaged", shut=_is_shut(error), reason=_words(error))
    if verdict.state != "good":
        return replace(seen, state="damaged", reason=verdict.reason)
    return replace(seen, state="good", reason=f"verified by {verdict.method}")


def verified_down_to_first_good(
    found: Sequence[Candidate], layout: Layout, *, belongs: Callable[[Candidate], bool]
) -> list[Candidate]:
    """Verify the furthest file, and the next while it is not good; what a file says counts, not its manifest."""
    waiting, done, satisfied = list(found), list[Candidate](), False
    while waiting:
        item = waiting.pop(0)
        wanted = item.resumable and not satisfied and belongs(item)
        if wanted and item.state == "unchecked":
            seen = confirm(item, layout)
            if seen.step != item.step:  # it belongs at another place in the order
                waiting = sorted([*waiting, seen], key=furthest_first)
                continue
            item = seen
        # The file itself may have said that it is of another run.
        satisfied = satisfied or (wanted and item.state == "good" and belongs(item))
        done.append(item)
    return done


def _stateless(structure: Structure, layout: Layout) -> str:
    """The first tracked part that has no state in a file of ours, neither by its own name nor by a layout's."""
    stamp = structure.stamp
    if structure.kind != "unbroken checkpoint":
        return ""
    homes = [known.keys for known in (*LAYOUTS, layout)]
    at_home = {name for keys in homes for name, key in keys.items() if key in structure.tree}
    return next((name for name in stamp["tracked"] if name not in stamp["parts"] and name not in at_home), "")


def glance_at(path: Path, manifests: Path) -> Candidate:
    """Judge one file by its manifest if it has one, else by what it says about itself; its numbers are not read.

    Raises Moved where it is removed or replaced in this moment.
    """
    return glance_with(path, read_manifest(manifests, path.name))


def glance_with(path: Path, manifest: Manifest | None) -> Candidate:
    """The same, with a manifest that was read."""
    listed = manifest is not None
    return undisturbed(path, lambda: replace(_glance(path, manifest), listed=listed, manifest=manifest))


def _glance(path: Path, manifest: Manifest | None) -> Candidate:
    is_there = path.is_file() or is_sharded(path)
    if manifest is not None and is_there and manifest.size_bytes == size_of(path):
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
            shut=_is_shut(error),
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
        metrics=structure.metrics,
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


def _is_shut(error: UnbrokenError) -> bool:
    return isinstance(error.__cause__, PermissionError)


def _words(error: UnbrokenError) -> str:
    return error.what + (f" (expected {error.expected}, found {error.found})" if error.found else "")
