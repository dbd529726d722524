"""What stands in a checkpoint: composed from the parts and the progress, and taken apart again.

The guide's tools find the top-level keys they know (`Layout.keys`), and in them what they write themselves; everything
else is under the one key `unbroken`: which tensors and numbers were of numpy, what stands in those keys for the tools
alone (`beside`), what of an optimizer's state their groups leave out (`regrouped`), the buffers that modules leave out,
the modes and changed attributes of modules, which tensors learn, the gradients that no step has used, and the names of
parameters that an optimizer only numbers.
A checkpoint is complete in itself: copied alone to another machine, training resumes there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unbroken import __version__
from unbroken.checkpoint import FORMAT, PLAIN_FORMAT
from unbroken.checkpoint.describe import summary
from unbroken.checkpoint.kinds import STAMP
from unbroken.checkpoint.manifest import SaveFacts
from unbroken.errors import DamagedFile
from unbroken.fields import count_of
from unbroken.launch import Job
from unbroken.run import Layout, RunRecord
from unbroken.text import printable
from unbroken.train.progress import Best, Progress
from unbroken.train.state.modes import Switches
from unbroken.train.state.module_attributes import Learning, Values
from unbroken.train.state.optimizer_state import Groups, Regrouping, put_back, regroup
from unbroken.train.state.tree import to_plain, with_arrays, with_scalars, without_arrays, without_scalars

MMENGINE_KEYS = {
    "model": "state_dict",
    "optimizer": "optimizer",
    "scheduler": "param_schedulers",
    "ema": "ema_state_dict",  # with the trained weights in it: those under `state_dict` are then the averaged ones
}
OPENPCDET_KEYS = {"model": "model_state", "optimizer": "optimizer_state"}  # its schedule follows from the step


@dataclass(frozen=True, kw_only=True)
class ExtraState:
    """What must survive of the parts and is in no `state_dict`: each field is an entry of that name in a checkpoint."""

    buffers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # that the states of modules leave out
    gradients: Mapping[str, Any] = field(default_factory=dict)  # that no step has used, by the parameter
    modes: Switches = field(default_factory=dict)  # of modules
    attributes: Values = field(default_factory=dict)  # of modules, that training has changed
    learning: Learning = field(default_factory=dict)  # the same of which tensors learn
    parameter_names: Mapping[str, Groups] = field(default_factory=dict)  # of each optimizer
    built_with: Mapping[str, Any] = field(default_factory=dict)  # settings of optimizers and schedules

    def entries(self) -> dict[str, Any]:
        """Those that are not empty, by name."""
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name))}

    @classmethod
    def of(cls, own: Mapping[str, Any]) -> ExtraState:
        """From the entries of a checkpoint of ours; what it does not have is empty."""
        return cls(**{item.name: own[item.name] for item in fields(cls) if item.name in own})


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """A checkpoint taken apart: the state of each part (tensors or their references), and the counters."""

    parts: Mapping[str, Any]
    progress: Progress
    own: bool
    had_streams: bool = False  # it is of a version that kept the states of random streams
    extra: ExtraState = field(default_factory=ExtraState)


def stamp(
    job: Job, record: RunRecord, facts: SaveFacts, progress: Progress, *, lr: float | None, total: int | None
) -> dict[str, Any]:
    """The `unbroken` entry without the parts: who, where, how far, under which config."""
    return {
        "format": FORMAT if facts.kind == "checkpoint" else PLAIN_FORMAT,
        "kind": facts.kind,
        "save": facts.save,
        "session": facts.session,
        "time": facts.time,
        "version": __version__,
        "run": {"id": record.id, "recipe": record.recipe, "tag": record.tag, "seed": record.seed},
        "conditions": dict(record.conditions),
        "config": to_plain(dict(job.config)),
        "lr": lr,
        "total": total,
        "processes": job.processes,
        "samples_per_step": job.samples_per_step,
        "steps_per_epoch": job.steps_per_epoch,
        **to_plain(progress.as_plain()),
    }


def compose(
    layout: Layout,
    parts: Mapping[str, Any],
    stamped: dict[str, Any],
    *,
    meta: Mapping[str, Any],
    regroupings: Mapping[str, Regrouping],
    extra: ExtraState | None = None,
) -> dict[str, Any]:
    """A full checkpoint; `meta` is what else stands in it for the tools whose keys these are.

    `regroupings` are those of the optimizers that have other groups in these tools.
    """
    tree = dict(to_plain(meta))
    own: dict[str, Any] = {"parts": {}, "tracked": list(parts)} | (extra.entries() if extra is not None else {})
    for name, state in parts.items():
        if name not in layout.keys:
            own["parts"][name] = state
            continue
        bare, scalars = without_scalars(state)
        bare, arrays = without_arrays(bare)
        for entry, places in (("scalars", scalars), ("arrays", arrays)):
            if places:
                own.setdefault(entry, {})[name] = places
        if name in regroupings:
            bare, kept = regroup(bare, regroupings[name])
            own.setdefault("regrouped", {})[name] = kept
        if beside := tree.get(layout.keys[name], {}):  # what their tool keeps in the same entry
            own.setdefault("beside", {})[name] = list(beside)
        tree[layout.keys[name]] = {**bare, **beside} if beside else bare
    tree["unbroken"] = stamped | own
    return tree


def compose_weights(
    layout: Layout, model_state: Any, stamped: dict[str, Any], *, meta: Mapping[str, Any]
) -> dict[str, Any]:
    """A weights file: model and facts, no training state."""
    kept = {key: value for key, value in meta.items() if key in layout.weights_extra}
    return {**to_plain(kept), layout.keys.get("model", "model"): model_state, "unbroken": stamped}


def _without(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in names}


UNDONE: Mapping[str, Callable[[Any, Any], Any]] = {
    "beside": _without,
    "regrouped": put_back,
    "arrays": with_arrays,
    "scalars": with_scalars,
}


def take_apart(layout: Layout, tree: Any, where: Path) -> SavedState:
    """The parts and counters of a checkpoint of ours, whose stamp was checked, of MMEngine or of OpenPCDet.

    DamagedFile where a part or a counter is not there or not what it is called.
    """
    if not isinstance(tree, Mapping):
        raise DamagedFile(where, "it holds no states by name", expected="a dict", found=summary(tree))
    own = tree.get(STAMP)
    if own is None:
        return _of_openpcdet(tree, where) if "model_state" in tree else _of_mmengine(tree, where)
    places = {name: (tree, key) if (key := layout.keys.get(name)) else (own["parts"], name) for name in own["tracked"]}
    gone = [name for name, (holder, key) in places.items() if key not in holder]
    if gone:
        raise DamagedFile(
            where, f"the state of {printable(gone[0][:80])} is missing", expected=", ".join(own["tracked"])
        )
    parts = {name: holder[key] for name, (holder, key) in places.items()}
    for entry, undo in UNDONE.items():  # the last thing that was done to a state first
        for name, how in own.get(entry, {}).items():
            try:
                parts[name] = undo(parts[name], how)
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                what = f"the entry {STAMP}.{entry} leads nowhere in the state of {printable(name[:80])}"
                raise DamagedFile(where, what, found=f"{type(error).__name__}: {error}"[:120]) from error
    return SavedState(
        parts=parts,
        progress=Progress.from_plain(own),
        own=True,
        had_streams="streams" in own,
        extra=ExtraState.of(own),
    )


def _of_openpcdet(tree: Mapping[str, Any], where: Path) -> SavedState:
    """`epoch` counts whole epochs, `it` optimizer steps."""
    step, epoch = _counter(tree, "it", where), _counter(tree, "epoch", where)
    progress = Progress(step=step, closed_epochs=epoch, evaluated_step=step)
    parts = {name: tree[key] for name, key in OPENPCDET_KEYS.items() if tree.get(key) is not None}
    return SavedState(parts=parts, progress=progress, own=False)


def _of_mmengine(tree: Mapping[str, Any], where: Path) -> SavedState:
    meta = tree.get("meta")
    hub = tree.get("message_hub")
    info = hub.get("runtime_info", {}) if isinstance(hub, Mapping) else {}
    step = _counter(meta, "iter", where) if isinstance(meta, Mapping) else 0
    score = info.get("best_score") if isinstance(info, Mapping) else None
    best_file = str(info.get("best_ckpt", "")) if score is not None else ""
    progress = Progress(step=step, evaluated_step=step, best=_foreign_best(score, best_file))
    parts = {name: tree[key] for name, key in MMENGINE_KEYS.items() if key in tree}
    return SavedState(parts=parts, progress=progress, own=False)


def _counter(holder: Mapping[str, Any], key: str, where: Path) -> int:
    """A counter of another program, which may be none or absent before the first step."""
    count = count_of(holder.get(key) or 0)
    if count is None:
        raise DamagedFile(where, f"`{key}` is no count", expected="a whole number", found=summary(holder[key]))
    return count


def _foreign_best(score: object, file: str) -> Best | None:
    """`best_mIoU_iter_10.pth` and its score, as MMEngine remembers them."""
    stem = file.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".pth").removeprefix("best_")
    metric, _, number = stem.partition("_iter_")
    if not isinstance(score, float) or re.fullmatch("[0-9]{1,18}", number) is None:
        return None
    return Best(metric=metric.rsplit("/", 1)[-1], value=score, step=int(number))
