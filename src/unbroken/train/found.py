"""The checkpoints of a run, for programs that judge them: which there are, the furthest, and that one is whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.errors import DamagedFile, UsageError
from unbroken.run import Layout, look_at
from unbroken.run.candidates import Candidate, list_candidates
from unbroken.run.layout import manifests
from unbroken.run.survey import survey
from unbroken.storage import is_ordinary
from unbroken.train.adopting import adopt_weights
from unbroken.train.weights_table import as_lines


@dataclass(frozen=True, kw_only=True)
class FoundCheckpoint:
    """A file with weights, verified; step and epoch as it says itself (epoch None if it says none)."""

    path: Path
    step: int
    epoch: int | None
    kind: str
    save: str  # the name of the save, "" where there is none: another save under the same name has another


def find_checkpoint(path: Path, layout: Layout) -> FoundCheckpoint:
    """The checkpoint or weights in a file; raises UsageError if it is not there, DamagedFile if it is not whole."""
    if not is_ordinary(path):
        near = sorted(item.name for item in path.parent.glob("*.pth")) if path.parent.is_dir() else []
        raise UsageError(
            path, "there is no such file", found=", ".join(near[:6]) or "no .pth file there", do="Check the path."
        )
    seen = look_at(path, manifests(layout.run_of(path)))
    if seen.state != "good":
        raise DamagedFile(path, seen.reason, do="Name another checkpoint.")
    return _found(seen)


def furthest_checkpoint(run: Path, layout: Layout) -> FoundCheckpoint:
    """The furthest whole checkpoint of a run."""
    facts = survey(run, layout)
    if facts.newest_good is None:
        what = "there is no checkpoint that is whole" if facts.has_history else "nothing was trained here yet"
        raise UsageError(layout.checkpoints(run), what, do="Train first, or name a file with --ckpt.")
    return _found(facts.newest_good)


def epoch_checkpoints(folder: Path, layout: Layout) -> list[Path]:
    """The files of a folder that hold the end of an epoch, the earliest first."""
    names = layout.checkpoint_name.format(step="*", epoch="*")
    seen = list_candidates(folder, manifests(folder.parent))
    return [item.path for item in reversed(seen) if item.path.match(names)]


def is_training(run: Path, layout: Layout) -> bool:
    """Whether a process is working on the run at this moment."""
    return survey(run, layout).held


def load_weights(
    model: Any, path: Path, rename: Callable[[str], str] = str, *, strict: bool, say: Callable[[str], None]
) -> None:
    """Copy the weights of any checkpoint into a model; with `strict`, Incompatible unless every tensor gets its own.

    `rename` gives the file's names as the model spells them. What the file has and the model has not is named, and no
    reason to refuse.
    """
    report = adopt_weights(model, path, rename, strict=strict)
    if not report.complete:
        for line in as_lines(report):
            say(f"  {line}")


def _found(seen: Candidate) -> FoundCheckpoint:
    return FoundCheckpoint(
        path=seen.path,
        step=seen.step,
        epoch=seen.epoch,
        kind=seen.format_name or seen.kind,
        save=str(seen.inside.get("save", "")),
    )
