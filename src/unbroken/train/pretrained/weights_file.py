"""The weights in a file of any of the known forms: by name, with the class names, and what else is beside them.

Of tensors whose rows are classes, the names of the classes say which row of the file belongs to which of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unbroken.checkpoint.describe import summary
from unbroken.checkpoint.kinds import MODEL_KEYS
from unbroken.checkpoint.structure import Structure, read_structure
from unbroken.checkpoint.tree import SmallArray, TensorRef
from unbroken.errors import UsageError
from unbroken.train.state.serialise import load_tree

FACTS = {"meta", "unbroken"}  # about the weights: the names of the classes are read from them
MOST_KEYS = 6  # that an error names
DEEPEST = 3  # {"checkpoint": ...} around {"state_dict": ...} around the tensors is as far as anyone goes
Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WeightsInside:
    """Where the weights of a file are, unread, under its own names; `beside` names the entries that are no weights."""

    refs: Mapping[str, TensorRef]
    beside: Names
    classes: Names


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """Tensors under the file's names, in their own precision; `beside` names the entries that are no weights."""

    path: Path
    tensors: Mapping[str, Tensor]
    beside: Names
    classes: Names


def read_weights(path: Path, class_rows: ClassRows | None = None, *, weights_key: str = "") -> WeightsFile:
    """Read the weights, and nothing of an optimizer that may be beside them; nothing of the file is executed.

    Raises UsageError where a file holds no tensors by name, DamagedFile where one of them cannot be read.
    """
    structure = read_structure(path)
    inside = weights_in(structure, class_rows, weights_key=weights_key)
    tensors = load_tree(replace(structure, tree=inside.refs))
    return WeightsFile(path=path, tensors=tensors, beside=inside.beside, classes=inside.classes)


def weights_in(structure: Structure, class_rows: ClassRows | None, *, weights_key: str = "") -> WeightsInside:
    """Find the weights in a file of any of the known forms, or under a key; UsageError where no tensors are there."""
    at_key = _at(structure.tree, weights_key) if weights_key else structure.tree
    found = _find(at_key, DEEPEST)
    if found is None:
        raise _none_found(structure, weights_key)
    refs, beside = found
    if weights_key and isinstance(structure.tree, dict):
        others = (str(name) for name in structure.tree if name not in (weights_key, weights_key.partition(".")[0]))
        beside = (*others, *(f"{weights_key}.{name}" for name in beside))
    for_tools = () if weights_key else _beside_weights(structure.stamp)
    return WeightsInside(
        refs={name: ref for name, ref in refs.items() if name not in for_tools},
        beside=tuple(name for name in beside if name not in FACTS),
        classes=class_names_in(structure.tree, class_rows.recorded) if class_rows else (),
    )


def _beside_weights(stamp: Mapping[Any, Any]) -> Names:
    """What of a file of ours stands among the weights for another program's tools alone."""
    beside = stamp.get("beside")
    names = beside.get("model") if isinstance(beside, Mapping) else None
    return tuple(names) if isinstance(names, list) else ()


def _none_found(structure: Structure, weights_key: str) -> UsageError:
    """No weights where they were looked for: where else there are tensors, or why there are none."""
    keys = [key for key, entry in _entries(structure.tree, DEEPEST) if _find(entry, 0) is not None]
    kinds = {type(value) for _, entry in _entries(structure.tree, DEEPEST) for value in entry.values()}
    if keys:
        which = ", or ".join(f"--weights-key {key}" for key in keys[:MOST_KEYS])
        do = f'Say which: {which} (in a script: weights_key="{keys[0]}")'
    elif SmallArray in kinds:
        do = "Its arrays are NumPy's. Make tensors of them once: {name: torch.from_numpy(array), ...}"
    else:
        do = "Save model.state_dict(), not the model itself"
    usual = "tensors by name, alone or under " + ", ".join(f"`{key}`" for key in MODEL_KEYS[:4])
    return UsageError(
        structure.path,
        f"the file holds no weights by name{f' under `{weights_key}`' if weights_key else ''}",
        expected="a key under which there are tensors by name" if weights_key else usual,
        found=summary(structure.tree),
        do=f"{do}.",
    )


def _entries(tree: object, depth: int, above: str = "") -> Iterator[tuple[str, dict[Any, Any]]]:
    """The dicts in a file by their keys, outer ones first."""
    for key, entry in tree.items() if isinstance(tree, dict) else ():
        if isinstance(key, str) and isinstance(entry, dict):
            yield f"{above}{key}", entry
            if depth > 1:
                yield from _entries(entry, depth - 1, f"{above}{key}.")


def _at(tree: object, key: str) -> object:
    """What stands under a key; `a.b` is the entry b of a, unless there is one of this name."""
    if not isinstance(tree, dict) or key in tree:
        return tree.get(key) if isinstance(tree, dict) else None
    first, _, rest = key.partition(".")
    return _at(tree.get(first), rest) if rest else None


def _find(tree: object, depth: int) -> tuple[dict[str, TensorRef], Names] | None:
    """The tensors under one of the usual keys, else those of the tree itself, and the names of everything else."""
    if not isinstance(tree, dict):
        return None
    for key in MODEL_KEYS if depth else ():
        if (found := _find(tree.get(key), depth - 1)) is not None:
            inner = tuple(f"{key}.{name}" for name in found[1])
            return found[0], (*(str(name) for name in tree if name != key), *inner)
    refs = {name: value for name, value in tree.items() if isinstance(name, str) and _is_weight(value)}
    others = (str(name) for name in tree if name not in refs)
    return (refs, tuple(name for name in others if not name.startswith("_"))) if refs else None


def _is_weight(value: object) -> bool:
    """Numbers in a quantised type mean nothing without their scale."""
    return isinstance(value, TensorRef) and not value.dtype.startswith("q")


@dataclass(frozen=True, kw_only=True)
class ClassRows:
    """Which rows of a model are classes: fine-tuning matches them by name, whatever their order in the file.

    Args:
        names: The classes in the order of the model's rows.
        tensors: Names of the tensors that have one row (dim 0) for each class.
        recorded: Finds the names in the config that a checkpoint of ours records; nothing where that names none.
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
