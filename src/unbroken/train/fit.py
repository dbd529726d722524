"""The loop of an application, from the top down, in the pieces that anyone's own loop uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from unbroken.launch import Resume
from unbroken.train.rng import preserved
from unbroken.train.task import Task
from unbroken.train.training_run import TrainingRun


def fit(run: TrainingRun, task: Task) -> None:
    """Train until the task's last step; returns when it is done, raises Exit when it was asked to stop."""
    run.extra, run.translate = task.extra, task.translate
    run.adopting.rename, run.adopting.class_rows = task.rename_weights, task.class_rows
    run.log.step_line, run.curves = task.step_line, task.curves
    run.track(**task.parts())
    batches = run.batches(
        task.dataset,
        batch_size=task.batch_size,
        workers=task.workers,
        steps=task.steps,
        epochs=task.epochs,
        accumulate=task.accumulate,
        shuffle=task.shuffle,
        drop_last=task.drop_last,
        collate=task.collate,
        before_first=lambda: _before_first(run, task),
    )
    for group in _groups(run, batches, task):
        lr = task.optimizer.param_groups[0]["lr"]
        values = _optimise(task, group)
        task.schedule.step()
        run.end_step(lr=lr, **values)
        _evaluate_if_due(run, task)


def _before_first(run: TrainingRun, task: Task) -> None:
    """The run stands where it goes on: the schedule follows the config from here, a missed evaluation is done."""
    if isinstance(run.plan, Resume):
        extension = run.plan.extension
        if words := task.follow_config(run.progress, extension):
            run.log.say(words)
        run.progress.extension = extension.as_plain() if extension else None
    _evaluate_if_due(run, task)


def _groups(run: TrainingRun, batches: Iterator[Any], task: Task) -> Iterator[list[Any]]:
    """The micro-batches of each step; in a training by epochs, none holds batches of two of them."""
    group = []
    for batch in batches:
        group.append(batch)
        if len(group) == task.accumulate or (task.epochs is not None and run.at_end_of_epoch):
            yield group
            group = []
    if group:
        yield group


def _optimise(task: Task, group: list[Any]) -> dict[str, Tensor]:
    """One optimizer step over the micro-batches of `group`; returns the mean of each named value."""
    task.model.train()
    totals: dict[str, Tensor] = {}
    for batch in group:
        with task.autocast():
            values = task.loss(batch)
        share = values["loss"] / len(group)
        (task.scaler.scale(share) if task.scaler else share).backward()  # type: ignore[no-untyped-call]
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value.detach() / len(group)
    if task.clip_norm is not None:
        if task.scaler:
            task.scaler.unscale_(task.optimizer)
        trained = [p for group in task.optimizer.param_groups for p in group["params"] if p.grad is not None]
        totals["grad_norm"] = clip_grad_norm_(trained, task.clip_norm, norm_type=task.clip_norm_type)
    if task.scaler:
        task.scaler.step(task.optimizer)
        task.scaler.update()
    else:
        task.optimizer.step()
    task.optimizer.zero_grad(set_to_none=True)
    return totals


def _evaluate_if_due(run: TrainingRun, task: Task) -> None:
    """Evaluate the current weights if that is due and was not done, also first thing after a resume."""
    early = run.step < task.evaluate_from
    if task.evaluate is None or early or not run.evaluation_due(task.evaluate_every):
        return
    if not run.deadline.fits("evaluation", "save"):
        run.stop("the end of the session, before an evaluation that would not fit,")
    run.wait_for_saves()  # loader workers are not started while a file is being written
    with preserved(), run.deadline.timing("evaluation"):
        metrics = task.evaluate(run.progress, run.poll)
    run.record_evaluation(best=task.best, larger=task.best_is_larger, **metrics)
