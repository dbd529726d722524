"""An evaluation that a loop hands to its run: done at the boundaries where it is due, and recorded there.

It is asked before the first batch as well: what a kill prevented is done first thing in the next session. A
`RunControl` is what a loop may ask and tell its run at any time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unbroken.errors import UsageError
from unbroken.launch import Finished, GoingPlan, Job
from unbroken.quantities import duration_text
from unbroken.train import arguments
from unbroken.train.cadence import Every
from unbroken.train.length import Length
from unbroken.train.loop.session import Session
from unbroken.train.progress import Progress
from unbroken.train.source import Source
from unbroken.train.step import StepInProgress
from unbroken.train.stop import StopFlag

EACH_EPOCH = Every(epochs=1)
Evaluate = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is evaluated and when; `best` names the metric by which the best weights are kept."""

    evaluate: Evaluate
    every: Every = EACH_EPOCH
    best: str | None = None
    larger: bool = True
    where: str = ""  # the call that it was handed to, as errors name it

    def __call__(self, session: Session) -> bool:
        """Evaluate the present weights if that is due and was not done; returns whether it was done now.

        The session is stopped instead where it ends before the evaluation could.
        """
        if not session.evaluation_due(self.every):
            return False
        deadline = session.deadline
        if session.world.tell(not deadline.fits("evaluation", "save")):
            longest = duration_text(deadline.longest_s("evaluation"))
            session.stop(f"the end of the session, before an evaluation that may take {longest},")
        session.wait_for_saves()  # loader workers are not started while a file is being written
        with deadline.timing("evaluation"), session.current.modes.kept():
            found = session.world.tell(self.evaluate())
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise UsageError(
                "evaluate",
                "it returns no metrics",
                expected="a dict of numbers by name",
                found=arguments.shown(found),
                do='Let it return what it found, {"loss": 0.5}, or {} where nothing is to be recorded.',
            )
        record(session, arguments.numbers("evaluate", found), where=self.where, best=self.best, larger=self.larger)
        return True


def record(session: Session, metrics: dict[str, float], *, where: str, best: str | None, larger: bool) -> bool:
    """Record what was found of the present weights; returns whether they are the best."""
    if best is not None:
        arguments.one_of(f"{where}(best)", best, list(metrics))
    improved = session.note_evaluation(metrics, best=best, larger=larger)
    session.log.doing("training")
    return improved


def cadence(where: str, every: Any) -> Every:
    """Every so many steps, or as `Every` says, and at the end of the training in any case."""
    return every if isinstance(every, Every) else Every(steps=arguments.interval(where, every))


def at_boundaries(
    where: str, run: RunControl, evaluate: Any, *, every: Any, best: Any, larger: bool
) -> list[Callable[[], object]]:
    """What a loop that asks for an evaluation calls at its boundaries; nothing where it asks for none.

    UsageError for what can be none, before anything is trained.
    """
    if evaluate is None:
        if every is not None or best is not None:
            do = "Give the function itself: evaluate=validate."
            raise UsageError(where, "there is nothing to evaluate by", expected="evaluate=", found="none", do=do)
        return []
    try:
        inspect.signature(evaluate).bind()
    except TypeError as error:  # it is no function, or none that can be called so
        raise UsageError(
            f"{where}(evaluate)",
            "this cannot be called",
            expected="a function without arguments",
            found=str(error) if callable(evaluate) else arguments.shown(evaluate),
            do="Give it as evaluate=lambda: validate(model).",
        ) from None
    except ValueError:  # of one that is compiled nothing is known
        pass
    if not isinstance(best, str | None):
        raise UsageError(f"{where}(best)", "this is no metric", expected="its name", found=arguments.shown(best))
    when = EACH_EPOCH if every is None else cadence(f"{where}(evaluate_every)", every)
    evaluation = Evaluation(evaluate=evaluate, every=when, best=best, larger=larger, where=where)
    return [lambda: evaluation(run.opened)]


class RunControl:
    """What a loop may ask of its run and tell it at any time: how far it is, an evaluation, a save, a stop."""

    job: Job
    plan: GoingPlan
    progress: Progress
    length: Length
    current: StepInProgress
    _session: Session | None
    _source: Source | None
    _stop: StopFlag

    @property
    def step(self) -> int:
        """Optimizer steps done, over all sessions."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """Passes over the data done; the epoch in progress has this number."""
        return self.progress.epoch

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole training; None as long as that is not known."""
        return self.length.steps

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return self.job.directory

    @property
    def finished(self) -> bool:
        """Whether the run was complete before this launch; the parts are restored all the same."""
        return isinstance(self.plan, Finished)

    @property
    def batch(self) -> int:
        """Which batch of its epoch was handed out last, from 0; `enumerate` begins anew where a session does."""
        feed = self.opened.feed
        return feed.batch if feed is not None else self.step

    @property
    def at_end_of_epoch(self) -> bool:
        """Whether the batch handed out last was the last one of its epoch."""
        feed = self.opened.feed
        return feed is not None and feed.at_end_of_epoch

    @property
    def opened(self) -> Session:
        """The open session, for what an application needs of it; UsageError before the loop and after it."""
        if self._session is None:
            raise UsageError("run", "the run is not open yet", do="This belongs inside the loop over run.batches(...).")
        return self._session

    def end_step(self, **values: torch.Tensor | float) -> None:
        """Say that a step ends with this body, whatever its optimizer did: for loops in which that does not tell.

        What follows in the body belongs to the step. Call it in each step or in none.

        Args:
            **values: Recorded of the step, as with `log`.
        Raises:
            UsageError: A value is no number, no batch was taken since the last step, or earlier steps ended by
                themselves.
        """
        if self.current.end_by_hand(arguments.logged("run.end_step", values)):
            self.opened.end_step(by_itself=False)

    def log(self, **values: torch.Tensor | float) -> None:
        """Record values of this body's step; of several micro-batches, their means. It waits for no device.

        Args:
            **values: Numbers, or tensors of one element, by name.
        Raises:
            UsageError: A value is not one number, or has the name of a field that each record has ("step", "epoch").
        """
        self.current.log(arguments.logged("run.log", values))

    def finish(self, reason: str = "") -> None:
        """Let this step be the last one: the loop ends at the next boundary or where it is left, the run is complete.

        The next launch finds it finished; one with a changed config goes on.

        Args:
            reason: Why, as the record and the next launch say it ("no better for 10 epochs").
        Raises:
            UsageError: The loop has not begun yet.
        """
        self.opened.progress.ended = reason or "its loop"

    def record_evaluation(self, *, best: str | None = None, larger: bool = True, **metrics: float) -> bool:
        """Record an evaluation of the weights after this step; keep them as the best if they are.

        Args:
            best: The metric by which the best weights are kept; None: none are.
            larger: Whether a larger value of `best` is the better one.
            **metrics: What was found, a number each.
        Returns:
            Whether these weights are the best so far by `best`; NaN never is.
        Raises:
            UsageError: A metric is no number, or `best` is none of them.
        Example:
            for batch in run.batches(data, batch_size=16, epochs=2):
                run.log(loss=train_on(batch))
                if run.evaluation_due(every=4):
                    run.record_evaluation(best="error", larger=False, error=0.5)
        """
        where = "run.record_evaluation"
        return record(self.opened, arguments.numbers(where, metrics), where=where, best=best, larger=larger)

    def poll(self) -> None:
        """Save and end with exit code 75 if a signal or the time asks for it, at once or at the next boundary.

        For what takes long between two steps: call it between the batches of a validation. Of several processes at the
        next boundary in any case, where all of them hear of it.

        Raises:
            Exit: The run stops here, with everything saved.
        """
        if self.current.is_at_boundary and self.opened.world.size == 1:
            self.opened.stop_if_asked(self.length.last(self.opened.feed, self.step))

    def stop(self, reason: str) -> None:
        """Stop at once between two steps, else at the next boundary, as a signal would: saved, with exit code 75.

        Args:
            reason: What is said to have asked for it ("the queue is empty").
        Raises:
            Exit: The run stops here, with everything saved.
        """
        self._stop.reason = reason
        self.poll()

    def save(self) -> None:
        """Write a checkpoint at the next boundary; at once where nothing has changed since the last one.

        Raises:
            UsageError: No step was finished yet, or the loop has not begun.
        """
        if self._source is None and not self.current.finished:
            raise UsageError("run.save", "there is no finished step to save yet", do="Call it after the first step.")
        self.opened.save_again = True
        if self.current.is_at_boundary:
            self.opened.save()

    def wait_for_saves(self) -> None:
        """Return when every save that was begun is done; what the disk refused is said and tried again later."""
        if self._session is not None:
            self._session.wait_for_saves()

    def evaluation_due(self, every: int | Every | None = None) -> bool:
        """Tell whether the weights of this step, or of the step resumed from, still have to be evaluated.

        Where they do, the random streams are seeded for it: what it draws does not depend on when it is done.

        Args:
            every: Steps from one evaluation to the next, or an `Every`; None: at the end of the training alone.
        Returns:
            True where `record_evaluation` is to follow; at the end of the training in any case.
        Raises:
            UsageError: `every` is no whole number, or the loop has not begun yet.
        """
        return self.opened.evaluation_due(cadence("run.evaluation_due(every)", every))
