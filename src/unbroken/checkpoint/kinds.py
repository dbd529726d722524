"""What a tree is, judged by its keys alone: whose checkpoint, at which step, with which metrics.

Files of programs whose trainings cannot be gone on with here are told by the keys that each program's own code writes.
Such a file is sound; it is only no training state of ours, nor of MMEngine or OpenPCDet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final

from unbroken.checkpoint.rebuild import array_values
from unbroken.checkpoint.tree import Opaque, SmallArray, TensorRef
from unbroken.fields import count_of

STAMP = "unbroken"
MODEL_KEYS = ("state_dict", "model_state", "model_state_dict", "model", "module")
OPTIMIZER_KEYS = ("optimizer", "optimizer_state", "optimizer_state_dict", "optimizers", "optimizer_states")
MMENGINE_MARKS = {"mmengine_version", "iter", "message_hub"}
MOST_CURVE_BYTES = 8 << 20  # of one curve: MMEngine keeps the last 10,000 values
STEP_KEYS = ("step", "global_step", "iteration", "iter", "it")
Tree = Mapping[Any, Any]
WEIGHTS_HERE: Final = "its weights can begin a new run here: --pretrained_model FILE"
OWN_FORM: Final = "optimizer, schedule and position in the data are in a form of its program's own"
PICKLED: Final = "its network is a pickled object, which stays shut"


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
    facts: dict[Any, Any] = tree if isinstance(tree, dict) else {}
    stamp, meta = facts.get(STAMP), facts.get("meta")
    if isinstance(stamp, dict):
        what = "weights" if stamp.get("kind") == "weights" else "checkpoint"
        return _kind(f"unbroken {what}", stamp, "step", "epoch", stamp.get("metrics"))
    what = "checkpoint" if has_optimizer(tree) else "weights"
    if isinstance(meta, dict) and isinstance(facts.get("state_dict"), dict) and MMENGINE_MARKS & {*meta, *facts}:
        return _kind(f"MMEngine {what}", meta, "iter", "epoch", _hub_metrics(facts.get("message_hub")))
    if isinstance(facts.get("model_state"), dict):
        return _kind(f"OpenPCDet {what}", facts, "it", "epoch")
    if (program := program_of(tree)) is not None:
        metrics = {name: facts[name] for name in ("metric", "best_fitness") if name in facts}
        return _kind(program.kind, facts, program.step, program.epoch, metrics, why=program.why)
    if facts and model_part(tree) is tree:
        return Kind(kind="plain state_dict")
    step = next((key for key in STEP_KEYS if count_of(facts.get(key)) is not None), "")
    return _kind("unknown", facts, step, "epoch")


def _kind(kind: str, facts: Mapping[Any, Any], step: str, epoch: str, metrics: object = None, *, why: str = "") -> Kind:
    """With step and epoch from under these keys, and of the metrics what JSON and a table can show."""
    numbers = metrics.items() if isinstance(metrics, dict) else ()
    return Kind(
        kind=kind,
        why=why,
        step=count_of(facts.get(step)),
        epoch=count_of(facts.get(epoch)),
        metrics={
            str(name): value
            for name, value in numbers
            if type(value) is float or (type(value) is int and abs(value) < 2**63)
        },
    )


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


def _hub_metrics(hub: object) -> dict[str, Any]:
    """The best score and the last value of every validation curve that MMEngine's message hub keeps."""
    if not isinstance(hub, dict):
        return {}
    info, curves = hub.get("runtime_info"), hub.get("log_scalars")
    found = {"best_score": info.get("best_score")} if isinstance(info, dict) else {}
    for name, curve in curves.items() if isinstance(curves, dict) else ():
        if str(name).startswith(("val/", "test/")) and isinstance(curve, Opaque) and isinstance(curve.state, dict):
            history = curve.state.get("_log_history")
            if isinstance(history, SmallArray) and len(history.data) <= MOST_CURVE_BYTES:
                values = array_values(history)
                found[str(name)] = values[-1] if values else None
    return found


# -- programs whose trainings stay theirs ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ProgramKind:
    """How the files of a program are known: by `marks`, keys of which each is there, and by a test where that is given.

    `why` says why training cannot go on from such a file here, and what can be done; `step` and `epoch` are keys.
    """

    kind: str
    marks: Set[str]
    why: str
    step: str = ""
    epoch: str = ""
    holds: Callable[[Tree], bool] = lambda _tree: True


def _with_optimizer(tree: Tree) -> bool:
    return any(tree.get(key) for key in ("optimizer", "optimizer_states", "optimizer_state_dict"))


def _is_ultralytics(tree: Tree) -> bool:
    return any(isinstance(tree.get(key), Opaque) for key in ("model", "ema"))


PROGRAMS: Final = (
    ProgramKind(
        kind="Lightning checkpoint",
        marks={"pytorch-lightning_version", "state_dict", "optimizer_states"},
        why=f"{OWN_FORM}: Lightning goes on from it with trainer.fit(model, ckpt_path=FILE); {WEIGHTS_HERE}",
        step="global_step",
        epoch="epoch",
        holds=_with_optimizer,
    ),
    ProgramKind(
        kind="Lightning weights",
        marks={"pytorch-lightning_version", "state_dict"},
        why=f"it holds no optimizer state; {WEIGHTS_HERE}",
        step="global_step",
        epoch="epoch",
    ),
    ProgramKind(
        kind="DeepSpeed model states",
        marks={"module", "ds_version"},
        why=(
            "its optimizer lies in the files *_optim_states.pt of all processes, and DeepSpeed alone puts them "
            f"together; {WEIGHTS_HERE}"
        ),
        step="global_steps",
    ),
    ProgramKind(
        kind="DeepSpeed optimizer states",
        marks={"optimizer_state_dict", "ds_version"},
        why="it is one process's part of an optimizer, and DeepSpeed alone puts the parts together",
    ),
    ProgramKind(
        kind="timm checkpoint",
        marks={"arch", "state_dict", "optimizer", "epoch"},
        why=f"{OWN_FORM}: timm's train.py goes on from it with --resume FILE; {WEIGHTS_HERE}",
        epoch="epoch",
        holds=_with_optimizer,
    ),
    ProgramKind(
        kind="timm weights",
        marks={"arch", "state_dict", "epoch"},
        why=f"it holds no optimizer state; {WEIGHTS_HERE}",
        epoch="epoch",
    ),
    ProgramKind(
        kind="ultralytics checkpoint",
        marks={"train_args", "model", "optimizer"},
        why=(
            f"{PICKLED}; ultralytics goes on from it with `yolo train resume model=FILE`, and saves its weights alone "
            "with torch.save(YOLO(FILE).model.state_dict(), NEW)"
        ),
        epoch="epoch",
        holds=lambda tree: _is_ultralytics(tree) and _with_optimizer(tree),
    ),
    ProgramKind(
        kind="ultralytics weights",
        marks={"train_args", "model"},
        why=f"{PICKLED}; ultralytics saves its weights alone with torch.save(YOLO(FILE).model.state_dict(), NEW)",
        holds=_is_ultralytics,
    ),
    ProgramKind(
        kind="YOLOv5 checkpoint",
        marks={"best_fitness", "model", "ema"},
        why=f"{PICKLED}; its own program goes on from it with train.py --resume FILE",
        epoch="epoch",
        holds=_is_ultralytics,
    ),
    ProgramKind(
        kind="fairseq checkpoint",
        marks={"model", "last_optimizer_state"},
        why=f"{OWN_FORM}: fairseq goes on from it with --restore-file FILE; {WEIGHTS_HERE}",
    ),
    ProgramKind(
        kind="Detectron2 checkpoint",
        marks={"model", "optimizer", "iteration"},
        why=f"{OWN_FORM}: Detectron2 goes on from it with --resume; {WEIGHTS_HERE}",
        step="iteration",
    ),
    ProgramKind(
        kind="optimizer state",
        marks={"state", "param_groups"},
        why="it is the state of an optimizer alone: the weights and the schedule lie in files beside it",
    ),
    ProgramKind(
        kind="schedule state",
        marks={"last_epoch", "_step_count"},
        why="it is the state of a learning rate schedule alone: the weights lie in a file beside it",
    ),
    ProgramKind(
        kind="random states",
        marks={"random_state", "numpy_random_seed", "torch_manual_seed"},
        why="it holds random states alone: the weights lie in a file beside it",
    ),
    ProgramKind(
        kind="random states",
        marks={"python", "numpy", "cpu"},
        why="it holds random states alone: the weights lie in a file beside it",
    ),
)


def program_of(tree: object) -> ProgramKind | None:
    """Whose file a tree is of, where it is of one of these programs; an object that stays shut is none of theirs."""
    if isinstance(tree, Opaque):
        return ProgramKind(
            kind=f"pickled object ({tree.module}.{tree.name})"[:160],
            marks=set(),
            why="an object stays shut, as opening it could run code; its program can save model.state_dict()",
        )
    if not isinstance(tree, Mapping):
        return None
    return next((each for each in PROGRAMS if each.marks <= tree.keys() and each.holds(tree)), None)
