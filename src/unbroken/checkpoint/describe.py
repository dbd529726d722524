"""What `unbroken inspect` says about a file, as data for JSON and tables."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from unbroken.checkpoint.kinds import OPTIMIZER_KEYS
from unbroken.checkpoint.structure import Structure, tensors, weights
from unbroken.checkpoint.tree import Name, Opaque, SmallArray, StorageRef, TensorRef, shut_objects
from unbroken.text import printable

TEXT_LIMIT = 120
NUMBER_LIMIT = 2**63
SHOWN_KEYS = 8
DATA_OBJECTS = {"numpy.dtype"}  # of a class that stays shut, but nothing is hidden in it


def describe(structure: Structure) -> dict[str, Any]:
    """Return a summary that `json.dumps` accepts, whatever the file holds."""
    model, tree = weights(structure), structure.tree
    shut = Counter(f"{node.module}.{node.name}" for node in shut_objects(tree))
    top = tree if isinstance(tree, dict) else {"": tree}
    return {
        "file": str(structure.path),
        "format": structure.format,
        "kind": structure.kind,
        "why_no_training_state": structure.why,
        "size_bytes": structure.size_bytes,
        "step": structure.step,
        "epoch": structure.epoch,
        "metrics": {_text(name): _number(value) for name, value in structure.metrics.items()},
        "unbroken": _plain(structure.stamp),
        "keys": {_text(key): summary(value) for key, value in top.items()},
        "model": {"tensors": len(model), "parameters_and_buffers": sum(ref.numel for ref in model.values())},
        "optimizer": _optimizer(tree),
        "tensors": [
            {"name": name, "shape": list(ref.shape), "dtype": ref.dtype, "bytes": ref.size_bytes}
            for name, ref in tensors(structure)
        ],
        "foreign": [  # the objects that stay shut, by class, those inside of one another included
            {"class": _text(name), "count": count, "note": "kept shut"}
            for name, count in sorted(shut.items())
            if name not in DATA_OBJECTS
        ],
    }


def summary(value: object) -> str:
    """Return one short phrase for any value of a tree."""
    match value:
        case TensorRef():
            return f"tensor {value.dtype} {_shape(value.shape)}"
        case StorageRef():
            return f"storage of {value.numel} {value.dtype}"
        case SmallArray():
            return f"array {value.dtype} {_shape(value.shape)}"
        case Opaque():
            return f"{_text(f'{value.module}.{value.name}')} (kept shut)"
        case Name():
            return _text(value)
        case dict():
            small = 0 < len(value) <= SHOWN_KEYS  # the keys of a large one are in the table of tensors
            return f"dict of {len(value)}" + (": " + _text(", ".join(_text(key) for key in value)) if small else "")
        case list() | tuple() | set() | frozenset():
            return f"{type(value).__name__} of {len(value)}"
        case bytes() | bytearray():
            return f"{len(value)} bytes"
        case str():
            return repr(_text(value))
    return _text(value)


def _optimizer(tree: object) -> dict[str, Any] | None:
    """The groups of an optimizer with their settings; None where there is no optimizer."""
    state = next((tree[key] for key in OPTIMIZER_KEYS if tree.get(key)), tree) if isinstance(tree, dict) else None
    if isinstance(state, list) and len(state) == 1:
        (state,) = state
    if not isinstance(state, dict) or "param_groups" not in state:
        return None
    groups, moments = state.get("param_groups"), state.get("state")
    first = next(iter(moments.values()), None) if isinstance(moments, dict) else None
    return {
        "groups": [_group(group) for group in groups if isinstance(group, dict)] if isinstance(groups, list) else [],
        "parameters_with_state": len(moments) if isinstance(moments, dict) else 0,
        "state_names": [_text(name) for name in first] if isinstance(first, dict) else [],
    }


def _group(group: dict[Any, Any]) -> dict[str, Any]:
    params = group.get("params")
    settings = {_text(key): _plain(value) for key, value in group.items() if key != "params"}
    return settings | {"params": len(params) if isinstance(params, list) else 0}


def _plain(value: object, depth: int = 4) -> Any:
    """Return small values as they are, and a summary of what is large, deep or no data of JSON."""
    match value:
        case None | bool():
            return value
        case int() if abs(value) < NUMBER_LIMIT:
            return value
        case float():
            return _number(value)
        case str():
            return _text(value)
        case dict() if depth and len(value) <= 64:
            return {_text(key): _plain(inner, depth - 1) for key, inner in value.items()}
        case list() | tuple() if depth and len(value) <= 64:
            return [_plain(inner, depth - 1) for inner in value]
    return summary(value)


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity, so these become text."""
    return value if math.isfinite(value) else str(value)


def _text(value: object) -> str:
    text = printable(str(value))
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "scalar"
