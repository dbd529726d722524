"""Tensors whose rows are classes: which row of a file belongs to which row of a model, by the names of the classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ClassRows:
    """The classes of a model in the order of its rows, and which of its tensors have one row (dim 0) for each.

    `recorded` finds the names in the config that a checkpoint of ours records; none where that names no classes.
    """

    names: Names
    tensors: frozenset[str]
    recorded: Callable[[Mapping[str, Any]], Sequence[str]] = lambda _config: ()


@dataclass(frozen=True, kw_only=True)
class ClassMatch:
    """The classes both know, those of the model alone and those of the file alone; `pairs` are (model, file) rows."""

    taken: Names
    new: Names
    left: Names
    pairs: tuple[tuple[int, int], ...]

    @property
    def sentence(self) -> str:
        """`by class name: water, road (2 of 3 rows); new here: playground; only in the file: barren`."""
        words = [f"by class name: {', '.join(self.taken)} ({len(self.taken)} of {len(self.taken + self.new)} rows)"]
        words += [f"new here: {', '.join(self.new)}"] if self.new else []
        words += [f"only in the file: {', '.join(self.left)}"] if self.left else []
        return "; ".join(words)


def match_classes(ours: Names, theirs: Names) -> ClassMatch:
    """Pair the rows of equal names; both name each class once."""
    place = {name: row for row, name in enumerate(theirs)}
    taken = tuple(name for name in ours if name in place)
    return ClassMatch(
        taken=taken,
        new=tuple(name for name in ours if name not in place),
        left=tuple(name for name in theirs if name not in ours),
        pairs=tuple((row, place[name]) for row, name in enumerate(ours) if name in place),
    )


def why_not_by_name(ours: Names, theirs: Names, *, rows: int) -> str:
    """Why the names do not tell which of the file's `rows` is which class; empty when they do."""
    if not theirs:
        return "the file names no classes"
    if len(theirs) != rows:
        return f"the file names {len(theirs)} classes for {rows} rows"
    if len(set(theirs)) < len(theirs) or len(set(ours)) < len(ours):
        return "a class is named twice"
    return ""


def class_names_in(tree: Mapping[Any, Any], recorded: Callable[[Mapping[str, Any]], Sequence[str]]) -> Names:
    """The classes that a checkpoint names: as MMEngine does, in the config of one of ours, else none."""
    meta, stamp = tree.get("meta"), tree.get("unbroken")
    found: object = None
    if isinstance(meta, Mapping):
        of_data = meta.get("dataset_meta")
        places = (*([of_data] if isinstance(of_data, Mapping) else []), meta)
        found = next((place[key] for place in places for key in ("classes", "CLASSES") if place.get(key)), None)
    if found is None and isinstance(stamp, Mapping) and isinstance(config := stamp.get("config"), Mapping):
        found = tuple(recorded(config))
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        return ()
    return tuple(found)
