"""The weights in a file of any of the known forms: by name, with the class names, and what else is beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from unbroken.checkpoint.describe import summary
from unbroken.checkpoint.kinds import MODEL_KEYS
from unbroken.checkpoint.leaves import TensorRef
from unbroken.checkpoint.structure import Structure, read_structure
from unbroken.errors import UsageError
from unbroken.train.class_rows import ClassRows, Names, class_names_in
from unbroken.train.serialise import load_tree

FACTS = {"meta", "unbroken"}  # about the weights: the names of the classes are read from them
DEEPEST = 3  # {"checkpoint": ...} around {"state_dict": ...} around the tensors is as far as anyone goes


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


def read_weights(path: Path, class_rows: ClassRows | None = None) -> WeightsFile:
    """Read the weights, and nothing of an optimizer that may be beside them; nothing of the file is executed.

    Raises UsageError where a file holds no tensors by name, DamagedFile where one of them cannot be read.
    """
    structure = read_structure(path)
    inside = weights_in(structure, class_rows)
    tensors = load_tree(replace(structure, tree=inside.refs))
    return WeightsFile(path=path, tensors=tensors, beside=inside.beside, classes=inside.classes)


def weights_in(structure: Structure, class_rows: ClassRows | None) -> WeightsInside:
    """Find the weights in a file of any of the known forms; UsageError where it holds no tensors by name."""
    found = _find(structure.tree, DEEPEST)
    if found is None:
        raise UsageError(
            structure.path,
            "the file holds no weights by name",
            expected="tensors by name, alone or under " + ", ".join(f"`{key}`" for key in MODEL_KEYS[:4]),
            found=summary(structure.tree),
            do="Save model.state_dict(), not the model itself.",
        )
    refs, beside = found
    return WeightsInside(
        refs=refs,
        beside=tuple(name for name in beside if name not in FACTS),
        classes=class_names_in(structure.tree, class_rows.recorded) if class_rows else (),
    )


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
