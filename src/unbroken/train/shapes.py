"""Whether a file fits the model of a config, asked of the real names and shapes: no data, no numbers, no training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unbroken.checkpoint.leaves import TensorRef
from unbroken.checkpoint.structure import read_structure
from unbroken.launch import Facts, FineTune, Job, Plan, Refuse, Resume, decide, load_attribute
from unbroken.launch.fit import Fit
from unbroken.train.class_rows import ClassRows
from unbroken.train.weights import compare_weights, spell_as_model
from unbroken.train.weights_file import weights_in
from unbroken.train.weights_report import WeightsReport


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A model made on the meta device (names and shapes, no memory), and how it takes over the weights of a file."""

    model: nn.Module
    rename: Callable[[str], str] = str
    class_rows: ClassRows | None = None


def decide_by_shapes(job: Job, facts: Facts) -> Plan:
    """The plan, with the tensors of the file that would be used compared with those of the config's model."""
    plan = decide(job, facts)
    if not job.blueprint or not isinstance(plan, Resume | FineTune | Refuse) or plan.source is None:
        return plan
    fit = fit_of(job, plan.source.path, by_class=isinstance(plan, FineTune))
    return decide(job, replace(facts, fit=fit))


def fit_of(job: Job, path: Path, *, by_class: bool = False) -> Fit:
    """Compare a file's tensors, unread, with those of the job's model; `by_class` as when it is fine-tuned."""
    with torch.device("meta"):
        blueprint: Blueprint = load_attribute(job.blueprint)(job)
    rows = blueprint.class_rows if by_class else None
    weights = weights_in(read_structure(path), rows)
    own = {name: value for name, value in blueprint.model.state_dict().items() if isinstance(value, Tensor)}
    found = spell_as_model({name: _without_numbers(ref) for name, ref in weights.refs.items()}, own, blueprint.rename)
    return _as_fit(compare_weights(own, found, class_rows=rows, classes=weights.classes), tensors=len(own))


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
