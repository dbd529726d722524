"""What a tree is, judged by its keys alone: whose checkpoint, at which step, with which metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unbroken.checkpoint.leaves import Opaque, SmallArray, TensorRef
from unbroken.checkpoint.numpy_scalars import array_values
from unbroken.checkpoint.programs import program_of
from unbroken.fields import count_of

STAMP = "unbroken"
MODEL_KEYS = ("state_dict", "model_state", "model_state_dict", "model", "module")
OPTIMIZER_KEYS = ("optimizer", "optimizer_state", "optimizer_state_dict", "optimizers", "optimizer_states")
MMENGINE_MARKS = {"mmengine_version", "iter", "message_hub"}
MOST_CURVE_BYTES = 8 << 20  # of one curve: MMEngine keeps the last 10,000 values
STEP_KEYS = ("step", "global_step", "iteration", "iter", "it")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What was recognised, as data; `why` says why training cannot go on from it, where it is another program's."""

    kind: str
    why: str = ""
    step: int | None = None
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def recognise(tree: object) -> Kind:
    """Return what `tree` is; "unknown" is an answer, never an error."""
    if not isinstance(tree, dict):
        return _of_program(tree) or Kind(kind="unknown")
    if isinstance(stamp := tree.get(STAMP), dict):
        return _ours(stamp)
    meta = tree.get("meta")
    if isinstance(meta, dict) and isinstance(tree.get("state_dict"), dict) and MMENGINE_MARKS & {*meta, *tree}:
        return _mmengine(tree, meta)
    if isinstance(tree.get("model_state"), dict):
        return _openpcdet(tree)
    if (others := _of_program(tree)) is not None:
        return others
    if model_part(tree) is tree:
        return Kind(kind="plain state_dict")
    return Kind(kind="unknown", step=_first_count(tree, STEP_KEYS), epoch=count_of(tree.get("epoch")))


def has_optimizer(tree: object) -> bool:
    """True when there is an optimizer state that is not empty."""
    return isinstance(tree, dict) and any(
        isinstance(tree.get(key), dict | list) and tree[key] for key in OPTIMIZER_KEYS
    )


def model_part(tree: object) -> dict[Any, Any] | None:
    """Return the mapping of parameter names to tensors inside `tree`, or None where there is none."""
    if not isinstance(tree, dict):
        return None
    for key in MODEL_KEYS:
        if isinstance(part := tree.get(key), dict):
            return part
    named = {key: value for key, value in tree.items() if isinstance(key, str) and not key.startswith("__")}
    tensors = sum(isinstance(value, TensorRef) for value in named.values())
    return tree if tensors and 2 * tensors > len(named) else None


def _of_program(tree: object) -> Kind | None:
    program = program_of(tree)
    if program is None:
        return None
    facts = tree if isinstance(tree, dict) else {}
    metrics = _numbers({name: facts[name] for name in ("metric", "best_fitness") if name in facts})
    step, epoch = count_of(facts.get(program.step)), count_of(facts.get(program.epoch))
    return Kind(kind=program.kind, why=program.why, step=step, epoch=epoch, metrics=metrics)


def _ours(stamp: dict[str, Any]) -> Kind:
    what = "weights" if stamp.get("kind") == "weights" else "checkpoint"
    metrics = _numbers(stamp.get("metrics"))
    return Kind(
        kind=f"unbroken {what}",
        step=count_of(stamp.get("step")),
        epoch=count_of(stamp.get("epoch")),
        metrics=metrics,
    )


def _mmengine(tree: dict[str, Any], meta: dict[str, Any]) -> Kind:
    what = "checkpoint" if has_optimizer(tree) else "weights"
    return Kind(
        kind=f"MMEngine {what}",
        step=count_of(meta.get("iter")),
        epoch=count_of(meta.get("epoch")),
        metrics=_hub_metrics(tree.get("message_hub")),
    )


def _openpcdet(tree: dict[str, Any]) -> Kind:
    what = "checkpoint" if has_optimizer(tree) else "weights"
    return Kind(kind=f"OpenPCDet {what}", step=count_of(tree.get("it")), epoch=count_of(tree.get("epoch")))


def _hub_metrics(hub: object) -> dict[str, float]:
    """The best score and the last value of every validation curve that MMEngine's message hub keeps."""
    if not isinstance(hub, dict):
        return {}
    info, curves = hub.get("runtime_info"), hub.get("log_scalars")
    found = {"best_score": info.get("best_score")} if isinstance(info, dict) else {}
    for name, curve in curves.items() if isinstance(curves, dict) else ():
        if str(name).startswith(("val/", "test/")) and isinstance(curve, Opaque) and isinstance(curve.state, dict):
            found[str(name)] = _last_value(curve.state.get("_log_history"))
    return _numbers(found)


def _last_value(history: object) -> object:
    values = (
        array_values(history) if isinstance(history, SmallArray) and len(history.data) <= MOST_CURVE_BYTES else None
    )
    return values[-1] if values else None


def _numbers(metrics: object) -> dict[str, float]:
    """Keep what is a number that JSON and a table can show."""
    if not isinstance(metrics, dict):
        return {}
    return {
        str(name): value
        for name, value in metrics.items()
        if type(value) is float or (type(value) is int and abs(value) < 2**63)
    }


def _first_count(tree: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((count for key in keys if (count := count_of(tree.get(key))) is not None), None)
