"""Files of programs whose trainings cannot be gone on with here: whose a tree is, by its keys, and what can be done.

The keys are those that each program's own code writes. A file of these is sound; it is only no training state of ours,
nor of MMEngine or OpenPCDet, which are told in `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from unbroken.checkpoint.leaves import Opaque

Tree = Mapping[Any, Any]
WEIGHTS_HERE: Final = "its weights can begin a new run here: --pretrained_model FILE"
OWN_FORM: Final = "optimizer, schedule and position in the data are in a form of its program's own"
PICKLED: Final = "its network is a pickled object, which stays shut"


@dataclass(frozen=True, kw_only=True)
class Program:
    """How the files of a program are known: by `marks`, keys of which each is there, and by a test where that is given.

    `why` says why training cannot go on from such a file here, and what can be done; `step` and `epoch` are keys.
    """

    kind: str
    marks: frozenset[str]
    why: str
    step: str = ""
    epoch: str = ""
    holds: Callable[[Tree], bool] = lambda _tree: True


def _with_optimizer(tree: Tree) -> bool:
    return any(tree.get(key) for key in ("optimizer", "optimizer_states", "optimizer_state_dict"))


def _is_ultralytics(tree: Tree) -> bool:
    return any(isinstance(tree.get(key), Opaque) for key in ("model", "ema"))


def _program(
    kind: str,
    marks: str,
    why: str,
    *,
    step: str = "",
    epoch: str = "",
    holds: Callable[[Tree], bool] = lambda _tree: True,
) -> Program:
    return Program(kind=kind, marks=frozenset(marks.split()), why=why, step=step, epoch=epoch, holds=holds)


PROGRAMS: Final = (
    _program(
        "Lightning checkpoint",
        "pytorch-lightning_version state_dict optimizer_states",
        f"{OWN_FORM}: Lightning goes on from it with trainer.fit(model, ckpt_path=FILE); {WEIGHTS_HERE}",
        step="global_step",
        epoch="epoch",
        holds=_with_optimizer,
    ),
    _program(
        "Lightning weights",
        "pytorch-lightning_version state_dict",
        f"it holds no optimizer state; {WEIGHTS_HERE}",
        step="global_step",
        epoch="epoch",
    ),
    _program(
        "DeepSpeed model states",
        "module ds_version",
        "its optimizer lies in the files *_optim_states.pt of all processes, and DeepSpeed alone puts them together; "
        f"{WEIGHTS_HERE}",
        step="global_steps",
    ),
    _program(
        "DeepSpeed optimizer states",
        "optimizer_state_dict ds_version",
        "it is one process's part of an optimizer, and DeepSpeed alone puts the parts together",
    ),
    _program(
        "timm checkpoint",
        "arch state_dict optimizer epoch",
        f"{OWN_FORM}: timm's train.py goes on from it with --resume FILE; {WEIGHTS_HERE}",
        epoch="epoch",
        holds=_with_optimizer,
    ),
    _program("timm weights", "arch state_dict epoch", f"it holds no optimizer state; {WEIGHTS_HERE}", epoch="epoch"),
    _program(
        "ultralytics checkpoint",
        "train_args model optimizer",
        f"{PICKLED}; ultralytics goes on from it with `yolo train resume model=FILE`, and saves its weights alone with "
        "torch.save(YOLO(FILE).model.state_dict(), NEW)",
        epoch="epoch",
        holds=lambda tree: _is_ultralytics(tree) and _with_optimizer(tree),
    ),
    _program(
        "ultralytics weights",
        "train_args model",
        f"{PICKLED}; ultralytics saves its weights alone with torch.save(YOLO(FILE).model.state_dict(), NEW)",
        holds=_is_ultralytics,
    ),
    _program(
        "YOLOv5 checkpoint",
        "best_fitness model ema",
        f"{PICKLED}; its own program goes on from it with train.py --resume FILE",
        epoch="epoch",
        holds=_is_ultralytics,
    ),
    _program(
        "fairseq checkpoint",
        "model last_optimizer_state",
        f"{OWN_FORM}: fairseq goes on from it with --restore-file FILE; {WEIGHTS_HERE}",
    ),
    _program(
        "Detectron2 checkpoint",
        "model optimizer iteration",
        f"{OWN_FORM}: Detectron2 goes on from it with --resume; {WEIGHTS_HERE}",
        step="iteration",
    ),
    _program(
        "optimizer state",
        "state param_groups",
        "it is the state of an optimizer alone: the weights and the schedule lie in files beside it",
    ),
    _program(
        "schedule state",
        "last_epoch _step_count",
        "it is the state of a learning rate schedule alone: the weights lie in a file beside it",
    ),
    _program(
        "random states",
        "random_state numpy_random_seed torch_manual_seed",
        "it holds random states alone: the weights lie in a file beside it",
    ),
    _program(
        "random states", "python numpy cpu", "it holds random states alone: the weights lie in a file beside it"
    ),
)  # fmt: skip


def program_of(tree: object) -> Program | None:
    """Whose file a tree is of, where it is of one of these programs; an object that stays shut is none of theirs."""
    if isinstance(tree, Opaque):
        return Program(
            kind=f"pickled object ({tree.module}.{tree.name})"[:160],
            marks=frozenset(),
            why="an object stays shut, as opening it could run code; its program can save model.state_dict()",
        )
    if not isinstance(tree, Mapping):
        return None
    return next((each for each in PROGRAMS if each.marks <= tree.keys() and each.holds(tree)), None)
