"""The checkpoint that a run continues from: looked at first, loaded only when everything fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unbroken.checkpoint.kinds import model_part
from unbroken.checkpoint.structure import read_structure
from unbroken.errors import UsageError
from unbroken.run import Layout
from unbroken.train import parts
from unbroken.train.contents import Saved, take_apart
from unbroken.train.progress import Progress
from unbroken.train.rng import Streams
from unbroken.train.serialise import load_tree
from unbroken.train.weights import WeightsReport, fit_weights

WORDS = {"scheduler": "lr_scheduler"}  # as the guides' log lines call it


class Source:
    """A checkpoint file, opened without its numbers; `restore` loads them once the parts are known to fit."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self._layout = layout
        self._structure = read_structure(path)
        self._looked_at = take_apart(layout, self._structure.tree)
        self._loaded: Saved | None = None

    @property
    def own(self) -> bool:
        """Whether unbroken wrote it; another program's file has no random state and no data position."""
        return self._looked_at.own

    @property
    def progress(self) -> Progress:
        """How far the run was."""
        return self._looked_at.progress

    def restore(self, tracked: Mapping[str, Any], say: Callable[[str], None]) -> Streams | None:
        """Load the states of these parts, or raise with all that does not fit; returns the random streams."""
        known = self._looked_at.parts
        if not self.own:  # of parts that only we have, the other program knew nothing: they begin new
            tracked = {name: part for name, part in tracked.items() if name in known}
        parts.check(tracked, {name: known[name] for name in tracked if name in known}, str(self.path))
        if self._loaded is None:
            self._loaded = take_apart(self._layout, load_tree(self._structure))
            say(f"load checkpoint from {self.path}")
            say(f"resumed epoch: {self.progress.epoch}, iter: {self.progress.step}")
        parts.restore(tracked, self._loaded.parts)
        for name, part in tracked.items():
            say(f"resume {WORDS.get(name, name)}: {parts.class_name(part)}")
        plain = self._loaded.streams
        return Streams.from_plain(plain) if plain is not None else None

    def require_all_used(self, tracked: Mapping[str, Any]) -> None:
        """Raise unless every part in the checkpoint is tracked: what is not would be lost at the next save."""
        if self.own:
            parts.check(tracked, self._looked_at.parts, str(self.path))


def adopt_weights(model: Any, path: Path, rename: Callable[[str], str], *, strict: bool = False) -> WeightsReport:
    """Copy the weights of any checkpoint into a model, those that fit; with `strict`, all or none."""
    tree = load_tree(read_structure(path))
    weights = model_part(tree) if isinstance(tree, dict) else None
    if weights is None and isinstance(tree, dict):
        weights = tree
    if weights is None:
        raise UsageError(path, "the file holds no weights by name", found=type(tree).__name__)
    return fit_weights(model, parts.tensors_in(weights), where=path, rename=rename, strict=strict)
