"""A run as a training loop sees it: track, iterate, end each step.

The loop stays ordinary PyTorch. Between two steps it may do what it likes (validate, draw pictures): the random
streams are put back to where the last step left them before the next batch is handed out, so only what happens
inside a step can influence the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch

from unbroken.errors import STOPPED, UnbrokenError, UsageError
from unbroken.journal import steps_after
from unbroken.launch import FineTune, Finished, Fresh, Job, Resume, execute
from unbroken.run import OpenRun, SessionFiles
from unbroken.run.layout import own
from unbroken.train import cadence, parts, rng
from unbroken.train.conditions import current_conditions
from unbroken.train.console import SessionLog, StepReport
from unbroken.train.forgotten import forgotten
from unbroken.train.loader import Collate, load, size_of
from unbroken.train.order import Order, steps_in_epoch
from unbroken.train.pace import Pace
from unbroken.train.progress import Best, Progress
from unbroken.train.replay import Replay
from unbroken.train.saving import Saver, current_lr
from unbroken.train.source import Source, adopt_weights
from unbroken.train.stop import Exit, StopFlag

GoingPlan = Fresh | Resume | FineTune | Finished


class TrainingRun:
    """One session's work on a run; made by `open_run` or by a recipe's launch."""

    def __init__(
        self,
        job: Job,
        plan: GoingPlan,
        files: SessionFiles,
        log: SessionLog,
        *,
        seed: int,
        save_every: int | None = None,
        save_every_s: float | None = None,
        log_every: int = 10,
        exits: bool = False,
    ) -> None:
        self.job, self.plan, self.log, self.seed = job, plan, log, seed
        self.progress = Progress()
        self.extra: Callable[[Progress], Mapping[str, Any]] = lambda _progress: {}
        self.rename_weights: Callable[[str], str] = str
        self._files, self._exits = files, exits
        self._save_every, self._save_every_s, self._log_every = save_every, save_every_s, log_every
        self._parts: dict[str, Any] = {}
        self._source = Source(plan.source.path, job.layout) if isinstance(plan, Resume | Finished) else None
        self._run: OpenRun | None = None
        self._saver: Saver | None = None
        self._streams: rng.Streams | None = None
        self._at_step_start = True
        self._samples: list[int] = []
        self._micro_batches = 0  # handed out since the last step
        self._micro_total: int | None = None  # of the whole run, when it is measured in epochs
        self._next_position = 0
        self._stop = StopFlag()
        self._pace = Pace(files.clock)
        self._replay = Replay({})
        self._lr: float | None = None
        self._looked_for_forgotten = False
        self.total_steps = job.total_steps

    # -- what a loop asks ----------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Completed optimizer steps."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """Completed passes over the data set."""
        return self.progress.epoch

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return self.job.directory

    @property
    def finished(self) -> bool:
        """Whether the run was complete before this launch; the parts are restored all the same."""
        return isinstance(self.plan, Finished)

    # -- the four pieces of a loop -------------------------------------------------------------------------------

    def track(self, **tracked: Any) -> None:
        """Name everything whose state must survive; restored here when the plan says so, or refused.

        Each is anything with `state_dict` and `load_state_dict`, or a dict or list of plain values.
        """
        for name, part in tracked.items():
            parts.require_part(name, part)
        self._parts |= tracked
        if self._source is not None:
            self.progress = self._source.progress
            self._next_position = self.progress.position
            streams = self._source.restore(tracked, self.log.say)
            self._streams = dict(streams) if streams is not None else None
        elif isinstance(self.plan, FineTune) and "model" in tracked:
            self._adopt_weights(tracked["model"])

    def batches(
        self,
        dataset: Any,
        *,
        batch_size: int,
        workers: int = 0,
        epochs: int | None = None,
        steps: int | None = None,
        shuffle: bool | Literal["epoch", "stream", "none"] = True,
        drop_last: bool = False,
        collate: Collate | None = None,
        pin_memory: bool = False,
        before_first: Callable[[], None] | None = None,
    ) -> Iterator[Any]:
        """Batches from the exact position on, until `epochs` passes or `steps` steps are done.

        `shuffle="stream"` lets batches straddle epochs; `before_first` is called when the run is open and before the
        first batch (an evaluation that a kill prevented belongs there). Raises UsageError for a data set that cannot
        be indexed.
        """
        if (epochs is None) == (steps is None):
            raise UsageError(
                "run.batches", "how long to train", expected="either epochs= or steps=", found="both or none"
            )
        kind: Literal["epoch", "stream", "none"] = (
            ("epoch" if shuffle else "none") if isinstance(shuffle, bool) else shuffle
        )
        order = Order(size=size_of(dataset), seed=self.seed, shuffle=kind, drop_last=drop_last)
        self.total_steps = steps if steps is not None else self.total_steps
        self._micro_total = epochs * steps_in_epoch(order, batch_size=batch_size) if epochs is not None else None
        if self.finished:
            return
        self._begin(order, getattr(dataset, "fingerprint", None), batch_size)
        if before_first is not None:
            before_first()
        last_position = epochs * order.size if epochs is not None else None
        if not self._complete(last_position):
            loaded = load(
                dataset,
                order,
                self.progress.position,
                batch_size=batch_size,
                workers=workers,
                collate=collate,
                pin_memory=pin_memory,
            )
            yield from self._hand_out(loaded, last_position)
        self._finish()

    def end_step(self, **values: torch.Tensor | float) -> None:
        """The optimizer has stepped: record `values` (loss=..., lr=...), save when due, stop when asked to."""
        if self._run is None or self._saver is None or not self._samples:
            raise UsageError("run.end_step", "no batch was taken since the last step", do="Iterate run.batches(...).")
        if not self._looked_for_forgotten:
            self._warn_of_forgotten()
        self.progress.step += 1
        self.progress.position = self._next_position
        self._streams = rng.capture()
        if self.total_steps is None and self._micro_total is not None:
            self.total_steps = -(-self._micro_total // self._micro_batches)
        self._record_step({name: _number(value) for name, value in values.items()})
        self._samples, self._micro_batches, self._at_step_start = [], 0, True
        if self._saver.due(self.step, total=self.total_steps):
            self.save()
        self.poll()

    def record_evaluation(self, *, best: str | None = None, larger: bool = True, **metrics: float) -> bool:
        """Record an evaluation of the weights after this step; keep them as the best if `best` says they are."""
        assert self._run is not None, "an evaluation belongs inside the loop over run.batches(...)"
        self.progress.evaluated_step = self.step
        self.progress.metrics = dict(metrics)
        self._run.steps.write_evaluation(self.step, metrics)
        self.log.evaluation(self.step, metrics)
        improved = best is not None and self._improves(best, metrics[best], larger=larger)
        if improved and best is not None:
            self.progress.best = Best(metric=best, value=metrics[best], step=self.step)
            self._save_best(self.progress.best, larger=larger)
        self._run.journal.write("evaluated", step=self.step, metrics=metrics, best=improved)
        if self._is_saved:
            self.save()  # the same step again, now with its evaluation
        return improved

    # -- what else a loop may use --------------------------------------------------------------------------------

    def poll(self) -> None:
        """Stop here if a signal asked for it: state is saved, the process ends with exit code 75."""
        if self._stop.reason is None:
            return
        assert self._run is not None
        if not self._is_saved:
            self.save()
        self._run.journal.write("stopped", step=self.step, reason=self._stop.reason)
        said = f"stopped by {self._stop.reason} after step {self.step}: everything is saved"
        self.log.say(f"{said}\nto continue, run the same command again: {self.job.command}".rstrip(": "))
        raise Exit(STOPPED, said)

    def save(self) -> None:
        """Write a checkpoint of the state after the last finished step."""
        assert self._saver is not None and self._streams is not None
        self.log.say(self._saver.save(self.progress, self._streams, extra=self.extra, total=self.total_steps))

    def evaluation_due(self, every: int | None) -> bool:
        """Whether the weights of this step, or of the step resumed from, still have to be evaluated."""
        due = cadence.last_due(self.step, every=every, total=self.total_steps)
        return due == self.step > self.progress.evaluated_step

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._run is not None and not self._is_saved:
                self.save()  # the loop was left early; nothing of it is lost
            if self._run is not None and error is not None and not isinstance(error, SystemExit):
                self._run.journal.write("failed", step=self.step, error=f"{type(error).__name__}: {error}")
            if self._run is not None and (words := self._replay.cut_short()):
                self.log.say(words)
        finally:
            self._close()
        if self._exits and isinstance(error, UnbrokenError):
            self.log.say(str(error))
            raise Exit(error.exit_code, str(error)) from error

    # -- beginning -----------------------------------------------------------------------------------------------

    def _adopt_weights(self, model: Any) -> None:
        assert isinstance(self.plan, FineTune)
        path = self.plan.source.path
        report = adopt_weights(model, path, self.rename_weights)
        self.log.say(f"load weights from {path}")
        for line in report.as_lines():
            self.log.say(f"  {line}")

    def _begin(self, order: Order, fingerprint: Callable[[], str] | None, batch_size: int) -> None:
        """The first change to the run's folder in this session; everything was checked before."""
        if self._run is not None:
            raise UsageError("run.batches", "one run has one sequence of batches", do="Open a second run.")
        assert not isinstance(self.plan, Finished)
        if self._source is not None:
            self._source.require_all_used(self._parts)
        self._run, self.plan = execute(self.job, self.plan, self._files, conditions=current_conditions())
        scalars = (
            self._run.session_folder / "vis_data" / "scalars.json",
            self.directory / "vis_data" / "scalars.json",
        )
        self.log.open(self._files.disk, self._run.log_path, scalars)
        for name, text in self.job.texts.items():
            self._run.write_text(name, text)
        self._stop.install()
        self._saver = Saver(self.job, self._run, self._parts, every=self._save_every, every_s=self._save_every_s)
        self._saver.saved_step = self.step if self.plan.name == "Resume" and self._source and self._source.own else 0
        self._settle_position(order, fingerprint() if fingerprint else "", batch_size)
        if isinstance(self.plan, Resume):
            self._say_where_it_continues()

    def _settle_position(self, order: Order, fingerprint: str, batch_size: int) -> None:
        """Carry the position over when the data set is not what it was, or another program counted only steps."""
        progress = self.progress
        if self._source is not None and not self._source.own:
            progress.position = progress.step * batch_size
        elif progress.dataset_size and progress.dataset_size != order.size:
            self.log.say(
                f"the data set had {progress.dataset_size} samples and now has {order.size}: "
                f"epoch {progress.epoch} is not continued, epoch {progress.epoch + 1} begins"
            )
            progress.position = (progress.epoch + 1) * order.size
        elif progress.fingerprint and fingerprint and progress.fingerprint != fingerprint:
            self.log.say("the files of the data set are not those the run was trained on: exactness starts anew here")
        progress.dataset_size, progress.fingerprint = order.size, fingerprint
        self._next_position = progress.position

    def _say_where_it_continues(self) -> None:
        progress = self.progress
        if self._streams is None:
            self.log.say("the file holds no random state: exactness starts here")
            self.log.say(f"data position taken from the step: {progress.position} samples were used")
            return
        self.log.say("resume random streams: torch, numpy, python" + (", cuda" if self._streams["cuda"] else ""))
        offset = progress.position % progress.dataset_size
        self.log.say(f"resume data position: epoch {progress.epoch}, sample {offset} of {progress.dataset_size}")
        recorded = steps_after(own(self.directory) / "metrics.jsonl", self.step)
        self._replay = Replay(recorded)
        if recorded:
            self.log.say(
                f"steps {self.step + 1}-{max(recorded)} were done after the last save and lost: they are done again "
                "and compared"
            )

    # -- inside the loop -----------------------------------------------------------------------------------------

    def _hand_out(self, loaded: Iterator[Any], last_position: int | None) -> Iterator[Any]:
        while not self._complete(last_position):
            self._pace.waiting()
            keys, position, batch = next(loaded)
            self._pace.loaded()
            if self._at_step_start and self._streams is not None:
                rng.restore(self._streams)
            self._at_step_start = False
            self._samples += [sample for _, sample in keys]
            self._micro_batches += 1
            self._next_position = position
            self._lr = current_lr(self._parts)
            yield batch
        if last_position is not None and self._samples:
            self.log.say(f"{len(self._samples)} samples after the last step were not used: end_step was not called")

    def _complete(self, last_position: int | None) -> bool:
        if last_position is not None:
            return self._next_position >= last_position
        return self.total_steps is not None and self.step >= self.total_steps

    def _record_step(self, values: dict[str, float]) -> None:
        assert self._run is not None
        if "lr" not in values and self._lr is not None:
            values["lr"] = self._lr
        self._run.steps.write_step(self.step, epoch=self._epoch_of_step(), samples=self._samples, values=values)
        words = self._replay.compare(self.step, samples=self._samples, loss=values.get("loss"))
        if words is not None:
            self._run.journal.write("replayed", step=self.step, verdict=words)
            self.log.say(words)
        timing = self._pace.step_ended()
        left = self.total_steps - self.step if self.total_steps is not None else None
        due = cadence.due(self.step, every=self._log_every, total=self.total_steps)
        self.log.step(
            StepReport(
                step=self.step,
                total=self.total_steps,
                epoch=self._epoch_of_step(),
                values=values,
                step_s=timing.step_s,
                data_s=timing.data_s,
                eta_s=timing.step_s * left if left is not None else None,
                due=due,
            )
        )

    def _epoch_of_step(self) -> int:
        """The epoch of the step's last sample."""
        return (self.progress.position - 1) // self.progress.dataset_size

    def _improves(self, metric: str, value: float, *, larger: bool) -> bool:
        best = self.progress.best
        if value != value:  # NaN never wins
            return False
        if best is None or best.metric != metric:
            return True
        return value > best.value if larger else value < best.value

    def _save_best(self, best: Best, *, larger: bool) -> None:
        assert self._saver is not None
        words = self._saver.save_best(self.progress, best, larger=larger, extra=self.extra, total=self.total_steps)
        self.log.say(words)

    def _warn_of_forgotten(self) -> None:
        self._looked_for_forgotten = True
        for sentence in forgotten(self._parts, depth=3):
            self.log.say(f"warning: {sentence}")

    # -- ending --------------------------------------------------------------------------------------------------

    @property
    def _is_saved(self) -> bool:
        """Whether the state after the last step is on disk (before the first step there is none)."""
        return self.step == 0 or (self._saver is not None and self._saver.saved_step == self.step)

    def _finish(self) -> None:
        assert self._run is not None
        if not self._is_saved:
            self.save()
        self._run.journal.write("finished", step=self.step)
        self.log.say(f"finished: {self.step} steps, {self.directory}")

    def _close(self) -> None:
        self._stop.uninstall()
        try:
            if self._run is not None:
                self._run.close()
            else:
                self._files.lock.release()
        finally:
            self._run = None
            self.log.close()


def _number(value: torch.Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, torch.Tensor) else float(value)
