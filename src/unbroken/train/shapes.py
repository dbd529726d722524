"""Whether a file fits the model of a config, asked of the real names and shapes: no data, no numbers, no training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unbroken.checkpoint.structure import read_structure
from unbroken.checkpoint.tree import TensorRef
from unbroken.launch import (
    Facts,
    FineTune,
    Finished,
    Fresh,
    Job,
    Plan,
    Resume,
    decide,
    is_foreign,
    load_attribute,
)
from unbroken.launch.verdicts import Fit
from unbroken.train.pretrained.weights import compare_weights, require_usable, spell_as_model
from unbroken.train.pretrained.weights_file import ClassRows, weights_in
from unbroken.train.pretrained.weights_report import WeightsReport
from unbroken.train.source import Source
from unbroken.train.task import OPTIONAL, Task


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """What a recipe's `blueprint` builds: names and shapes, without memory and without data.

    Args:
        model: Made on the meta device.
        rename: Gives a file's names as the model spells them.
        class_rows: Which rows are classes; None: none are.
    """

    model: nn.Module
    rename: Callable[[str], str] = str
    class_rows: ClassRows | None = None


def decide_by_shapes(job: Job, facts: Facts) -> Plan:
    """Return the plan, with the tensors of the file that would be used compared with those of the config's model.

    Args:
        job: Whose `blueprint` builds the model; without one, only the weights of a fine-tune are looked for.
        facts: What was found on disk.
    Raises:
        UsageError: The file to fine-tune from holds no weights.
        Incompatible: They are of another model.
    """
    plan = decide(job, facts)
    if isinstance(plan, Finished | Fresh) or plan.source is None:
        return plan
    if not job.blueprint:
        if isinstance(plan, FineTune):
            weights_in(read_structure(plan.source.path), None, weights_key=job.start.weights_key)
        return plan
    return decide(job, replace(facts, fit=fit_of(job, plan.source.path, tunes=isinstance(plan, FineTune))))


def fit_of(job: Job, path: Path, *, tunes: bool = False) -> Fit:
    """Compare the tensors of a file, unread, with those of the job's model; `tunes` if it is to be fine-tuned."""
    with torch.device("meta"):
        blueprint: Blueprint = load_attribute(job.blueprint)(job)
    start, model = job.start, blueprint.model
    rows = blueprint.class_rows if tunes else None
    weights = weights_in(read_structure(path), rows, weights_key=start.weights_key if tunes else "")
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    found = spell_as_model({name: _without_numbers(ref) for name, ref in weights.refs.items()}, own, blueprint.rename)
    report = compare_weights(own, found, class_rows=rows, classes=weights.classes)
    if tunes:
        every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        strict = start.strict and len(every) == len(list(model.parameters()))  # without numbers, tied ones look missing
        require_usable(report, path, own, weights.refs, strict=strict, all_used=strict)
    return _as_fit(report, tensors=len(own))


def require_takeover(job: Job, plan: Plan) -> tuple[str, ...]:
    """Refuse the state of another program's checkpoint that does not fit what the job trains, without loading it.

    Args:
        job: Whose `task` builds what is trained.
        plan: What was decided; any but a resume from such a file is let pass.
    Returns:
        What will be said of the file when it is taken over.
    Raises:
        Incompatible: It does not fit; every disagreement is listed.
        DamagedFile: A state in it is none of its kind.
    """
    if not is_foreign(plan) or not isinstance(plan, Resume) or not job.task:  # only a training state is taken over
        return ()
    task: Task = load_attribute(job.task)(job, lambda _line: None)
    source = Source(plan.source.path, job.layout)
    source.fitting(task.parts(), task.exchange.translate, rename=task.exchange.rename_weights, optional=OPTIONAL)
    return source.remarks(task.exchange.translate)


def _as_fit(report: WeightsReport, *, tensors: int) -> Fit:
    return Fit(
        tensors=tensors,
        misfit=tuple(
            f"{fate.name} {list(fate.model or ())} in the model, {list(fate.file or ())} in the file"
            for fate in report.fates
            if fate.group == "misfit"
        ),
        missing=report.names("missing"),
        unused=report.names("unused"),
        remarks=(*([report.classes.sentence] if report.classes else []), *report.notes),
    )


def _without_numbers(ref: TensorRef) -> Tensor:
    return torch.empty(ref.shape, dtype=getattr(torch, ref.dtype), device="meta")
