"""A run as a training loop sees it: track, iterate, end each step.

The loop stays ordinary PyTorch. A state of the run exists only at a *boundary*: when the loop asks for the next batch
and so the whole body has run, when the batches of an epoch end, and when the end of the epoch is done. Only there it is
saved or stopped, so the order of statements in the body does not matter. Before each micro-batch the random streams are
seeded from (seed, step, micro-batch): what is drawn between two steps can influence nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from unbroken.errors import UnbrokenError, UnreadableSample, UsageError, WorkersKilled
from unbroken.launch import FineTune, Finished, Job, Resume
from unbroken.launch.decision import Decision
from unbroken.launch.execute import execute
from unbroken.run import OpenRun, SessionFiles
from unbroken.run.layout import own
from unbroken.storage.stop_request import Requests
from unbroken.train import arguments
from unbroken.train.arguments import SessionOptions
from unbroken.train.cadence import Every
from unbroken.train.data.batching import UNSAID, Unsaid
from unbroken.train.data.feed import AnyFeed, FeedOptions, feed_of
from unbroken.train.data.loader import Collate
from unbroken.train.data.order import Shuffle
from unbroken.train.data.random_holders import Holders
from unbroken.train.data.takeover import Translate, as_they_are
from unbroken.train.data.workers import end_workers
from unbroken.train.device import current_conditions
from unbroken.train.epoch_beginning import EpochBeginning, is_enumerated
from unbroken.train.evaluation import Evaluate, RunControl, at_boundaries
from unbroken.train.length import Length
from unbroken.train.pretrained.adopting import Adopting
from unbroken.train.progress import Progress
from unbroken.train.rates import Rates
from unbroken.train.record import opening
from unbroken.train.record.console import SessionLog
from unbroken.train.record.recorder import Pace, Recorder, under_train
from unbroken.train.saving.patience import mark_of
from unbroken.train.saving.saving import Saver
from unbroken.train.session import Session, give_up
from unbroken.train.source import Source
from unbroken.train.state import parts
from unbroken.train.state.built_parts import BuiltParts
from unbroken.train.state.hyperparameters import built_with
from unbroken.train.step import StepInProgress
from unbroken.train.stop import Deadline, Exit, Interrupted, StopFlag
from unbroken.train.untracked import Untracked


class TrainingRun(RunControl):
    """One session's work on a run; made by `open_run`, or by `launch` for an application."""

    def __init__(
        self,
        job: Job,
        decision: Decision,
        files: SessionFiles,
        log: SessionLog,
        *,
        options: SessionOptions,
        stop: StopFlag,
    ) -> None:
        self.job, self.session_log, self.seed = job, log, decision.seed
        self.plan = plan = decision.plan
        self.length = Length(steps=job.total_steps)
        self.extra: Callable[[Progress], Mapping[str, Any]] = lambda _progress: {}
        self.translate: Translate = as_they_are
        self.optional: frozenset[str] = frozenset()  # parts that may have no state in the file
        self.curves: Callable[[Mapping[str, float]], Mapping[str, float]] = under_train
        self.deadline = Deadline(files.clock, limit=job.limit, began_s=options.began_s, known=decision.timing)
        self._files, self._options = files, options
        self._parts, self._built = dict[str, Any](), dict[str, Any]()  # and what each was built with
        self._built_parts = BuiltParts(self._parts)
        self._source = Source(plan.source.path, job.layout) if isinstance(plan, Resume | Finished) else None
        self.progress = self._source.progress if self._source is not None else Progress()
        if isinstance(plan, Resume) and (plan.changes or job.start.exact is not None):
            self.progress.ended = ""  # its loop had ended here, and is to go on now
        self.adopting = Adopting(plan.source.path if isinstance(plan, FineTune) else None, job.start)
        self._session: Session | None = None
        self._beginning: EpochBeginning | None = None  # of an epoch, while it is done again
        self.current = StepInProgress(decision.seed, self._parts, Rates(log, job, self.length))
        self._untracked = Untracked(self, self._parts, log.say, files.clock, strict=job.start.strict)
        self._stop, self._pace = stop, Pace(files.clock)
        self._stop.mid_step = lambda: self.current.turns > 0

    # -- the pieces of a loop ------------------------------------------------------------------------------------

    def track(self, **tracked: Any) -> None:
        """Name everything whose state must survive; where the plan resumes it is restored here, all of it or nothing.

        Args:
            **tracked: By a name each: what has `state_dict` and `load_state_dict` (model, optimizer, schedule, scaler,
                average), a random generator of torch, numpy or Python, or a dict, list or deque of plain values and
                tensors, which is filled in place.
        Raises:
            UsageError: A name comes twice, the loop has begun, or something has no state that could come back.
            Incompatible: The checkpoint has other names or shapes; every disagreement is listed, and nothing was
                loaded.
        Example:
            counters = {"seen": 0}
            run.track(counters=counters, scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 2))
        """
        parts.require_new(tracked, self._parts, began=self._session is not None)
        self._built |= built_with(tracked)
        self.current.attributes.follow(tracked)
        if self._source is not None:
            self._source.restore(
                tracked, self.session_log.say, self.translate, rename=self.adopting.rename, optional=self.optional
            )
            self._source.apply_changes(self._built, self.session_log.say)
        else:
            self.adopting.take(tracked, self.session_log.say)
        self._parts |= tracked
        self._built_parts.follow(tracked)
        self.current.follow(tracked)

    def batches(
        self,
        dataset: Any,
        *,
        batch_size: int | Unsaid | None = UNSAID,
        workers: int | Unsaid = UNSAID,
        epochs: int | None = None,
        steps: int | None = None,
        shuffle: bool | Shuffle | Unsaid = UNSAID,
        drop_last: bool | Unsaid = UNSAID,
        collate: Collate | Unsaid | None = UNSAID,
        pin_memory: bool | Unsaid = UNSAID,
        accumulate: int | None = None,
        evaluate: Evaluate | None = None,
        evaluate_every: int | Every | None = None,
        best: str | None = None,
        larger: bool = True,
        between: Callable[[], object] | None = None,
    ) -> Iterator[Any]:
        """Yield batches from the exact position on, until `epochs` passes or `steps` steps are done.

        A step ends by itself where a tracked optimizer has stepped. Inside `for epoch in run.epochs(n)` give neither
        `epochs` nor `steps`: these are the batches of this epoch.

        Args:
            dataset: What has `__len__` and `__getitem__`, or `sample(index, rng)`; a `DataLoader`, which says itself
                how it is read; or a stream: an iterable, or a function that makes an iterator.
            batch_size: Samples of a batch, None: one after the other, not in batches; needed for a data set, refused
                beside a `DataLoader`.
            workers: Processes that read, 0: this one; where nothing is said, 0, or what the `DataLoader` says.
            epochs: Passes over the data at the end of the training; None: `steps` says how long.
            steps: Optimizer steps at the end of the training; None: `epochs` says how long.
            shuffle: True: in an order made anew for each epoch; "stream": that, and batches may straddle two epochs;
                False: in that of the data set.
            drop_last: Leave out an epoch's last batch where it would be smaller.
            collate: Makes a batch of a list of samples; None: as torch does.
            pin_memory: Copy batches into page-locked memory, from which a GPU reads faster.
            accumulate: Batches of one step (fewer at the end of an epoch), so that the number of steps is known;
                None: as many as the loop takes.
            evaluate: Called without arguments at boundaries; the metrics it returns are recorded. None: nothing is.
            evaluate_every: Steps from one evaluation to the next, or an `Every`; None: at the end of each epoch. The
                end of the training is evaluated in any case.
            best: The metric by which the best weights are kept; None: none are.
            larger: Whether a larger value of `best` is the better one.
            between: Called at each boundary, from before the first batch to after the last; None: nothing is.
        Yields:
            What `collate` makes; of a stream or a `DataLoader`, what that gives.
        Raises:
            UsageError: The data has no exact position, or an argument is wrong or contradicts another.
            UnreadableSample: A sample cannot be read, and `on_bad` is "stop"; what was done is saved first.
            Exit: A stop was asked for, or loader workers were killed three times over the same samples: saved, code 75.
        Example:
            def validate():
                return {"error": 0.5}


            for batch in run.batches(data, batch_size=16, epochs=2, evaluate=validate, best="error", larger=False):
                run.log(loss=train_on(batch))
        """
        within_epoch = epochs is None and steps is None and self.length.epochs is not None
        how_read = {"batch_size": batch_size, "workers": workers, "shuffle": shuffle, "drop_last": drop_last}
        said = self._options.batching({**how_read, "collate": collate, "pin_memory": pin_memory})
        arguments.require_batches(said, accumulate=accumulate)
        arguments.require_length(epochs=epochs, steps=steps, within_epoch=within_epoch)
        if self.finished:
            opening.require_nothing_more(self.plan, self.progress, epochs=epochs, steps=steps)
            return
        asked = at_boundaries("run.batches", self, evaluate, every=evaluate_every, best=best, larger=larger)
        asked += [between] if between is not None else []
        length, say = self.length, self.session_log.say
        length.epochs, length.steps = epochs or length.epochs, steps or length.steps
        how = FeedOptions(seed=self.seed, on_bad=self._options.on_bad, within_epoch=within_epoch, say=say)
        feed = feed_of(dataset, said, how, progress=self.progress)
        if within_epoch:
            self._epoch_begun()
        self.current.holders = Holders(feed.dataset, feed.batching.collate, self._parts.values())
        if self._session is None or not within_epoch:
            self._begin(feed, accumulate=accumulate or 1)
            length.accumulate = accumulate if epochs is not None else None
            length.count(feed, self.step)
            if feed.is_in_epoch and is_enumerated(self, TrainingRun.batches.__code__):
                say(opening.counter_words(feed.batch + 1))
        else:
            self._session.go_on_with(feed)
        passes = self.progress.closed_epochs + 1 if within_epoch else epochs
        while True:
            self._boundary(asked)
            done = length.is_reached(self.step) if passes is None else feed.has_passed(passes)
            if done or self.progress.ended:
                break
            self._wait()
            if (found := feed.next()) is None:
                if not self.current.turns:
                    feed.note(self.progress)
                continue
            loaded, bad = found
            self._pace.loaded()
            self.current.enter(loaded.keys, step=self.step + 1, skipped=self.opened.note_skipped(bad))
            try:
                yield loaded.batch
            except GeneratorExit:  # the loop was left
                self.current.leave_body()
                raise
        if not within_epoch:
            self._finish()
        elif not self.current.turns:
            self.current.seed_outside(
                "end of epoch", self.progress.closed_epochs
            )  # also where a session begins with it

    def epochs(self, total: int) -> Iterator[int]:
        """Yield the numbers of the epochs from the current one on; what follows the batches of an epoch is part of it.

        A kill between the last batch of an epoch and its end lets the next session do that end (a schedule's step, a
        validation) again, from the state it had before.

        Args:
            total: Epochs at the end of the training, counted from the run's beginning.
        Raises:
            UsageError: `total` is no whole number from 1 on, or nothing is tracked yet where a checkpoint is resumed.
        Example:
            for epoch in run.epochs(2):
                for batch in run.batches(data, batch_size=16):
                    run.log(loss=train_on(batch))
                counters["seen"] = epoch
        """
        self.length.epochs = arguments.count("run.epochs", total)
        if self.finished:
            opening.require_nothing_more(self.plan, self.progress, epochs=total, steps=None)
            return
        if self._source is not None and not self._parts:  # how far it is, is known once they are restored
            raise UsageError("run.epochs", "nothing is tracked yet", do="Call run.track(...) before the loop.")
        for epoch in range(self.progress.closed_epochs, total):
            if self.progress.ended and self.progress.begun_epochs <= epoch:
                break
            self.current.seed("epoch", epoch)  # also where a session begins in the middle of it
            self._beginning = EpochBeginning(self._parts) if self.progress.begun_epochs > epoch else None
            yield epoch
            self.opened.end_body()
            self.opened.end_epoch(epoch)
            self._boundary()
        if self._session is None:  # all was done before, and a kill left only the record
            self._begin(None, accumulate=1)
        self._finish()

    def steps(
        self,
        total: int,
        *,
        evaluate: Evaluate | None = None,
        evaluate_every: int | Every | None = None,
        best: str | None = None,
        larger: bool = True,
    ) -> Iterator[int]:
        """Yield the numbers of the steps left, for a loop that draws its own batches from the global random generators.

        Args:
            total: Steps at the end of the training, counted from the run's beginning.
            evaluate: Called without arguments; the metrics it returns are recorded. None: nothing is.
            evaluate_every: Steps from one evaluation to the next, or an `Every`; None: after the last step alone, as
                there are no epochs.
            best: The metric by which the best weights are kept; None: none are.
            larger: Whether a larger value of `best` is the better one.
        Raises:
            UsageError: `total` is no whole number from 1 on, or an argument contradicts another.
        Example:
            for step in run.steps(4):
                run.log(loss=train_on((torch.rand(16, 3), torch.rand(16, 1))))
        """
        self.length.steps = arguments.count("run.steps", total)
        if self.finished:
            opening.require_nothing_more(self.plan, self.progress, epochs=None, steps=total)
            return
        asked = at_boundaries("run.steps", self, evaluate, every=evaluate_every, best=best, larger=larger)
        self._begin(None, accumulate=1)
        self._boundary(asked)
        while self.step < total and not self.progress.ended:
            self._wait()
            self._pace.loaded()
            self.current.enter([], step=self.step + 1)
            yield self.step
            self._boundary(asked)
        self._finish()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Save what is not saved and let go of the run, as the end of a `with` block does; again, it does nothing."""
        self.__exit__(None, None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = error
        try:
            self._end(error)
        except UnbrokenError as last:  # the last save failed: as good a reason to end as one inside the loop
            if not self._options.exits:
                raise
            failure = last
        if self._options.exits and isinstance(failure, UnbrokenError):
            self.session_log.say(str(failure))
            raise Exit(failure.exit_code, str(failure)) from failure

    def _end(self, error: BaseException | None) -> None:
        """Save what is not saved, record how it ended, let go of everything."""
        session = self._session
        try:
            if isinstance(error, Interrupted | WorkersKilled):  # a wait was broken off, or has to be
                end_workers()
                if session is not None:
                    session.break_off(error)
                opening.say_interrupted(error, self.job, self.session_log.say)
            if session is not None:
                session.leave(error)
            if isinstance(error, UnreadableSample):
                for line in opening.advice(error, self.job):
                    self.session_log.say(line)
            if session is not None and error is not None and not isinstance(error, SystemExit):
                session.failed(self.step, error)
            if session is not None:
                session.close_recorder(quietly=error is not None)
        except UnbrokenError as last:
            error = last
            raise
        finally:
            self._close(quietly=error is not None)

    # -- beginning -----------------------------------------------------------------------------------------------

    def _begin(self, feed: AnyFeed | None, *, accumulate: int) -> None:
        """The first change to the run's folder in this session; everything was checked before."""
        if self._session is not None or isinstance(self.plan, Finished):
            raise UsageError("run.batches", "one run has one sequence of steps", do="Open a second run.")
        self._built_parts.require_same()
        if self._source is not None:
            self._source.require_all_used(self._parts)
            self.current.gradients.put_back(self._source.gradients, self._source.path)
        if feed is not None:
            feed.require_order(self.progress)
        self.adopting.require_taken()
        self._stop.begin()
        run, self.plan = execute(self.job, self.plan, self._files, conditions=current_conditions())
        try:
            self._session = self._prepared(run, feed, accumulate=accumulate)
        except BaseException as error:
            give_up(run, self.step, error)
            raise

    def _prepared(self, run: OpenRun, feed: AnyFeed | None, *, accumulate: int) -> Session:
        """What the session writes with; says what it goes on from."""
        self.adopting.record(run.journal)
        self.current.attributes.begin()
        options, log = self._options, self.session_log
        opening.open_outputs(run, self.job, log, step=self.step, tracked=self._parts)
        foreign = self._source.foreign if self._source is not None else None
        if isinstance(self.plan, Resume) and self._source is not None:
            opening.note_accepted(self.progress, self.plan)
            if why := self.progress.ended:
                log.say(f"step {self.step} was the last one ({why}), and a kill came before that was recorded")
            known = self.plan.config_known
            streams = opening.streams_line(self.seed, had_states=self._source.had_streams)
            for line in self._source.lacks(self._parts, config_known=known) if foreign is not None else [streams]:
                log.say(line)
        if feed is not None and (words := feed.continue_from(self.progress, foreign=foreign, accumulate=accumulate)):
            log.say(words)
        recorder = Recorder(
            run, self.job, log, self._pace, log_every=options.log_every, after=self.progress, curves=self.curves
        )
        saver = Saver(
            self.job,
            run,
            self._parts,
            gradients=self.current.gradients,
            modes=self.current.modes,
            attributes=self.current.attributes,
            built=self._built,
            every=options.every,
            every_s=options.save_every_s,
            beside=options.save_beside,
            look=lambda: self._untracked.look_again(self.current.attributes, self._built_parts),
            before=recorder.sync,
            deadline=self.deadline,
            total=self.length.steps or (feed.last_step(self.length.epochs, self.step, accumulate) if feed else None),
        )
        saver.saved_step = self.step if foreign is None else None
        saver.patience.good = mark_of(self.progress, self._files.clock.monotonic_s())
        requests = Requests(run.files.disk, own(run.directory), run.files.clock, session=run.files.session)
        self._stop.watch(lambda: requests.look() or (None if self.deadline.fits("save") else "the end of the session"))
        if isinstance(self.plan, Resume) and self._source is not None and foreign is None:
            for line in opening.position_lines(self.progress, self.length):
                log.say(line)
            recorder.expect_again(self.step, same_streams=not self._source.had_streams)
        return Session(
            run=run,
            job=self.job,
            log=log,
            progress=self.progress,
            current=self.current,
            length=self.length,
            deadline=self.deadline,
            flag=self._stop,
            recorder=recorder,
            saver=saver,
            feed=feed,
            requests=requests,
            extra=self.extra,
        )

    def _epoch_begun(self) -> None:
        """What the loop does before the batches of an epoch is done, and done once."""
        if self._beginning is not None and (changed := self._beginning.put_back()):
            self.session_log.say(opening.begun_words(self.progress.closed_epochs + 1, changed))
        self._beginning, self.progress.begun_epochs = None, self.progress.closed_epochs + 1

    def _boundary(self, between: Sequence[Callable[[], object]] = ()) -> None:
        """Everything that belongs to the last step is done: save when due, stop when asked to."""
        session = self.opened
        session.end_body()
        ended = self.current.ended
        self.current.settle()
        last = self.length.last(session.feed, self.step)
        if session.save_again or (ended and session.saver.due(self.progress, total=last)):
            session.save()
            session.note_timing()
        session.say_saved()
        if ended and (trial := self._options.trial) is not None:
            trial.counted(self.step, self._pace.last_step_s, stop=self._stop, wait_for_saves=self.wait_for_saves)
        if self.current.finished:
            session.stop_if_asked()
        for each in () if self.current.turns else between:
            self.current.seed("between", self.step)
            each()
            self._boundary()

    def _wait(self) -> None:
        """The loop asks for the next batch: what was to be done after the last one is done."""
        self._untracked.look(self.step, self.opened.feed)
        self.current.wait()
        self._pace.waiting()

    def _finish(self) -> None:
        self._untracked.look(self.step, self.opened.feed)
        self.opened.finish()

    def _close(self, *, quietly: bool) -> None:
        session, self._session = self._session, None
        try:
            if session is not None:
                session.close(quietly=quietly)
            else:
                self._files.lock.withdraw()
        finally:
            self._stop.uninstall()  # a save that is still being written is finished, whoever asks to stop
            self.session_log.close()
