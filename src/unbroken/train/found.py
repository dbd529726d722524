"""The checkpoints of a run, for programs that judge or use them: which there are, the furthest, the best, and that one
is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unbroken.checkpoint.folders import require_no_folder_of_others
from unbroken.checkpoint.sharded import is_sharded
from unbroken.checkpoint.structure import read_structure
from unbroken.config import nearest
from unbroken.errors import DamagedFile, UsageError
from unbroken.launch.discovery import require_file, same_run_elsewhere
from unbroken.run import Layout, RunView, layout_seen, look_at
from unbroken.run.candidates import Candidate, list_candidates
from unbroken.run.layout import manifests
from unbroken.run.survey import survey
from unbroken.train.device import take_over
from unbroken.train.pretrained.adopting import adopt_weights
from unbroken.train.pretrained.weights_file import ClassRows
from unbroken.train.pretrained.weights_report import WeightsReport, as_lines

BEST, LATEST = "best", "latest"  # instead of a file: of the run


@dataclass(frozen=True, kw_only=True)
class FoundCheckpoint:
    """A file with weights, verified; step and epoch are what it says itself, whatever its name.

    Args:
        path: Where the file lies.
        step: Optimizer steps after which it was saved.
        epoch: Whole epochs, None if it says none.
        kind: Which program wrote it, and whether a checkpoint or weights alone.
        save: Name of the save, "" where there is none: another save under the same name has another.
        conditions: What its run computes under: threads, algorithms, versions.
    """

    path: Path
    step: int
    epoch: int | None
    kind: str
    save: str
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def compute_alike(self) -> list[str]:
        """Compute with the threads and algorithms of the file's run, so that its evaluations give the same bits.

        Returns:
            A sentence for each thing that differs all the same.
        """
        if self.conditions.get("deterministic") is True:
            torch.use_deterministic_algorithms(True, warn_only=True)
        return take_over(self.conditions)


def named_checkpoint(named: Path, layout: Layout, *, run: Path) -> FoundCheckpoint:
    """Return the checkpoint that a person names.

    Args:
        named: A file; the folder of a run, for its furthest checkpoint; or `best` or `latest`, of `run`.
        layout: How the run's files are called.
        run: The run's folder.
    Raises:
        UsageError: There is no such file, or no such checkpoint in the run.
        DamagedFile: The file that was named is not whole.
    """
    if named.is_dir() and not is_sharded(named):
        require_no_folder_of_others(named)
        return furthest_checkpoint(named, layout_seen(named)[0])
    if named.exists() or str(named) not in (BEST, LATEST):
        return find_checkpoint(named, layout)
    return best_weights(run, layout) if str(named) == BEST else furthest_checkpoint(run, layout)


def best_weights(run: Path, layout: Layout) -> FoundCheckpoint:
    """The best weights of a run, the newest where there are several."""
    facts = survey(run, layout)
    seen = [item for item in facts.candidates if layout.part_of(item.name)[0] == "weights"]
    if not seen:
        if not facts.has_history:
            raise _nothing_trained(run, layout)
        what = "there are no best weights"
        raise UsageError(layout.checkpoints(run), what, do="They come with the first evaluation. Or name a file.")
    return find_checkpoint(max(seen, key=lambda item: item.step).path, layout)


def find_checkpoint(path: Path, layout: Layout) -> FoundCheckpoint:
    """Return the checkpoint or weights in a file.

    Args:
        path: The file, of any program whose files are known.
        layout: How the files of its run are called: beside it lies the manifest that verifies it.
    Raises:
        UsageError: The file is not there.
        DamagedFile: It is not whole.
    """
    require_file(path)
    seen = look_at(path, manifests(layout.run_of(path)))
    if seen.state != "good":
        raise DamagedFile(path, seen.reason, do="Name another checkpoint.")
    return _found(seen)


def furthest_checkpoint(run: Path, layout: Layout) -> FoundCheckpoint:
    """Return the furthest whole checkpoint of a run, by the step that is recorded in it.

    Args:
        run: The run's folder.
        layout: How its files are called.
    Raises:
        UsageError: There is none, or no run.
    """
    facts = survey(run, layout)
    if facts.newest_good is None and facts.has_history:
        what = "there is no checkpoint that is whole"
        raise UsageError(layout.checkpoints(run), what, do="Train first, or name a file.")
    if facts.newest_good is None:
        raise _nothing_trained(run, layout)
    return _found(facts.newest_good)


def _nothing_trained(run: Path, layout: Layout) -> UsageError:
    """What to say where there is no run: perhaps its name was mistyped, or the command was typed in another folder."""
    meant, elsewhere = nearest(run.name, _names_beside(run, layout)), same_run_elsewhere(run)
    found = f"a run {meant} beside it" if meant else f"it in {elsewhere}" if elsewhere else ""
    do = "Type the command in the folder of the training, or name a file." if elsewhere and not meant else ""
    what = "nothing was trained here yet"
    return UsageError(layout.checkpoints(run), what, found=found, do=do or "Train first, or name a file.")


def _names_beside(run: Path, layout: Layout) -> list[str]:
    """The runs in the folder where this one would be, in their order: a name may have been mistyped."""
    beside = sorted(run.parent.iterdir()) if run.parent.is_dir() else []
    return [path.name for path in beside if path != run and layout.checkpoints(path).is_dir()]


def epoch_checkpoints(folder: Path, layout: Layout) -> list[Path]:
    """Return the files of a folder that hold the end of an epoch, the earliest first.

    Args:
        folder: Where the checkpoints lie; its parent is the run's folder.
        layout: How they are called.
    """
    names = layout.checkpoint_name.format(step="*", epoch="*")
    seen = list_candidates(folder, manifests(folder.parent))
    return [item.path for item in reversed(seen) if item.path.match(names)]


def is_training(run: Path, layout: Layout) -> bool:
    """Tell whether a process is working on the run at this moment.

    Args:
        run: The run's folder.
        layout: How its files are called.
    Returns:
        True where a live process holds the lock.
    """
    return RunView(run, layout).held


def load_weights(
    model: Any,
    path: Path,
    rename: Callable[[str], str] = str,
    *,
    strict: bool,
    say: Callable[[str], None],
    class_rows: ClassRows | None = None,
    weights_key: str = "",
) -> WeightsReport:
    """Copy the weights of any checkpoint into a model, each tensor where its name and shape fit.

    Args:
        model: Its parameters and buffers are filled in place.
        path: A file of ours or of another program; an optimizer in it is not read.
        rename: Gives the file's names as the model spells them.
        strict: Refuse unless every tensor of the model gets its own from the file; what the file has besides is named,
            and no reason to refuse.
        say: Told what was not loaded, line by line.
        class_rows: Which rows are classes: these are matched by the names of the classes. None: by their place.
        weights_key: The entry of the file that holds the weights, where it is an unusual one ("ema").
    Returns:
        What became of each tensor.
    Raises:
        UsageError: The file is not there, or holds no tensors by name.
        DamagedFile: It cannot be read.
        Incompatible: `strict` is not met, or the shapes are those of another model; nothing was loaded.
        Refused: Not one tensor of the file is the model's.
    """
    report = adopt_weights(model, path, rename, strict=strict, class_rows=class_rows, weights_key=weights_key)
    if not report.complete or report.classes or report.notes:
        for line in as_lines(report):
            say(f"  {line}")
    return report


def dataset_meta(path: Path) -> Mapping[str, Any]:
    """Return what a file says of its data set where MMEngine does: names of the classes, colours; or nothing.

    Args:
        path: A checkpoint, which is not executed.
    Raises:
        UsageError: The file is not there.
        DamagedFile: It cannot be read.
    """
    tree = read_structure(path).tree
    for key in ("meta", "dataset_meta"):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}


def _found(seen: Candidate) -> FoundCheckpoint:
    return FoundCheckpoint(
        path=seen.path,
        step=seen.step,
        epoch=seen.epoch,
        kind=seen.format_name or seen.kind,
        save=str(seen.inside.get("save", "")),
        conditions=seen.inside.get("conditions", {}),
    )
