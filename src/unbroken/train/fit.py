"""The loop of an application, from the top down, in the pieces that anyone's own loop uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from unbroken.launch import Resume
from unbroken.launch.job import Accidents
from unbroken.launch.verdicts import schedule_step
from unbroken.train.loop.evaluation import Evaluation
from unbroken.train.loop.training_run import TrainingRun
from unbroken.train.pictures import Gallery
from unbroken.train.stepping import Stepper
from unbroken.train.task import OPTIONAL, Coming, Task, Validation


def fit(run: TrainingRun, task: Task, *, accidents: Accidents | None = None, coming: Coming | None = None) -> None:
    """Train until the task's last step, with all that a task may ask for.

    Args:
        run: As `launch` gave it, within its `with` block.
        task: What is trained.
        accidents: What to do when a step goes wrong; None: halve where memory runs out, end at a loss that is not
            finite.
        coming: Called with "step" or "evaluation", its step, and a function that gives its samples, before each:
            whoever watches this process can name what it was doing when it crashed. None: nobody watches.
    Raises:
        Exit: The run was asked to stop; everything is saved.
    """
    hand_over(task, run)
    stepper = Stepper(run, task, accidents or Accidents())
    gallery = Gallery(task.validation.pictures if task.validation and run.world.leads else None, run.session_log.say)
    watched = coming or (lambda _what, _step, _samples: None)
    batches = run.batches(
        task.dataset,
        batch_size=task.batch_size,
        workers=task.workers,
        steps=task.steps,
        epochs=task.epochs,
        accumulate=task.accumulate,
        shuffle=task.batches.shuffle,
        drop_last=task.batches.drop_last,
        collate=task.batches.collate,
        between=_Between(run, task, stepper, gallery, watched),
    )
    for group in stepper.groups(batches):
        lr = task.optimizer.param_groups[0]["lr"]
        values = stepper.take(group)
        task.schedule.step()
        run.end_step(lr=lr, **values)
    stepper.say_ignored()
    if not run.finished:
        gallery.tidy(run.opened, run.progress)  # a kill may have come between the last evaluation and its own


def hand_over(task: Task, run: TrainingRun) -> None:
    """Give a run what it needs to know of a task, and track the task's parts; they are restored here."""
    run.extra, run.translate, run.optional = task.exchange.extra, task.exchange.translate, OPTIONAL
    run.adopting.rename, run.adopting.class_rows = task.exchange.rename_weights, task.exchange.class_rows
    run.session_log.step_line, run.curves = task.step_line, task.curves
    run.track(**task.parts())


@dataclass
class _Between:
    """What is done between two steps, and before the first: the evaluation that is due, a word on the coming step."""

    run: TrainingRun
    task: Task
    stepper: Stepper
    gallery: Gallery
    coming: Coming
    begun: bool = False

    def __call__(self) -> None:
        """The run stands at a boundary."""
        if not self.begun:
            self.begun = True
            self._begin()
            self.run.session_log.begin(self.run.step, self.run.total_steps)
        run, task = self.run, self.task
        if (asked := task.validation) is not None and run.step >= asked.from_step:
            evaluate = partial(self._evaluate, asked)
            evaluation = Evaluation(evaluate=evaluate, every=asked.every, best=asked.best, larger=asked.best_is_larger)
            if evaluation(run.opened):
                self.gallery.tidy(run.opened, run.progress)
        feed = run.opened.feed
        if feed is not None:
            self.coming("step", run.step + 1, partial(feed.coming, count=task.accumulate))

    def _evaluate(self, asked: Validation) -> Mapping[str, float]:
        """Evaluate the present weights, and draw what the model sees in them."""
        run = self.run
        self.coming("evaluation", run.step, list)
        self.task.model.train()  # as a step leaves it, also where a session begins with the evaluation
        metrics = asked.evaluate(run.progress, run.poll)
        self.gallery.keep(run.opened, run.step, self.gallery.drawn(run.progress))
        return metrics

    def _begin(self) -> None:
        """The run stands where it goes on: the schedule follows the config from here."""
        run = self.run
        self.stepper.begin()
        if isinstance(run.plan, Resume):
            extension, done = run.plan.extension, run.progress
            step = schedule_step(run.job, step=done.step, position=done.position, size=done.dataset_size)
            if words := self.task.follow_config(step, extension):
                run.session_log.say(words)
            run.progress.extension = extension.as_plain() if extension else None
