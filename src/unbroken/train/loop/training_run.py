"""A run as a training loop sees it: track, iterate, end each step.

The loop stays ordinary PyTorch. A state of the run exists only at a *boundary*: when the loop asks for the next batch
and so the whole body has run, when the batches of an epoch end, and when the end of the epoch is done. Only there it is
saved or stopped, so the order of statements in the body does not matter. Before each micro-batch the random streams are
seeded from (seed, step, micro-batch): what is drawn between two steps can influence nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from unbroken.clock import START
from unbroken.errors import UsageError
from unbroken.train import arguments
from unbroken.train.cadence import Every
from unbroken.train.data.batching import UNSAID, Unsaid
from unbroken.train.data.feed import FeedOptions, feed_of
from unbroken.train.data.loader import Collate
from unbroken.train.data.order import Shuffle
from unbroken.train.data.random_holders import Holders
from unbroken.train.loop.epoch_beginning import EpochBeginning, is_enumerated
from unbroken.train.loop.evaluation import Evaluate, at_boundaries
from unbroken.train.loop.lifecycle import RunLifecycle
from unbroken.train.record import opening
from unbroken.train.state import parts
from unbroken.train.state.hyperparameters import built_with
from unbroken.train.step import MANY


class TrainingRun(RunLifecycle):
    """One session's work on a run; made by `open_run`, or by `launch` for an application."""

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
        self.replicas.require_supported(tracked)
        parts.require_new(tracked, self._parts, began=self._session is not None)
        self._built |= built_with(tracked)
        self.current.attributes.follow(tracked)
        if self._source is not None:
            with START.inside("restore"):
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
        how = FeedOptions(
            seed=self.seed,
            on_bad=self._options.on_bad,
            within_epoch=within_epoch,
            say=say,
            after=lambda: self.current.number(self.step + 1),
            sharing=self.current.sharing,
            together=self.world.gather_values,
        )
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
            skipped = self.opened.note_skipped(bad) if bad else 0
            self.current.enter(loaded.keys, step=self.progress.step + 1, skipped=skipped, weight=loaded.weight)
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
            self.current.enter([], step=self.step + 1, weight=1 / self.current.sharing.shards)
            yield self.step
            self._boundary(asked)
        self._finish()

    def _epoch_begun(self) -> None:
        """What the loop does before the batches of an epoch is done, and done once."""
        if self._beginning is not None and (changed := self._beginning.put_back()):
            self.session_log.say(opening.begun_words(self.progress.closed_epochs + 1, changed))
        self._beginning, self.progress.begun_epochs = None, self.progress.closed_epochs + 1

    def _boundary(self, between: Sequence[Callable[[], object]] = ()) -> None:
        """Everything that belongs to the last step is done: save when due, stop when asked to."""
        session, current = self._session or self.opened, self.current
        session.end_body()
        ended, step = current.ended, self.progress.step
        current.settle()
        last = self.length.last(session.feed, step)
        if session.save_again or (ended and session.saver.due(self.progress, total=last)):
            session.save(then=session.note_timing)
        session.say_saved()
        if ended and (trial := self._options.trial) is not None:
            trial.counted(step, self._pace.last_step_s, stop=self._stop, wait_for_saves=self.wait_for_saves)
        if current.finished:
            session.stop_if_asked(last)
        for each in () if current.turns else between:
            current.seed("between", step)
            each()
            self._boundary()

    def _wait(self) -> None:
        """The loop asks for the next batch: what was to be done after the last one is done."""
        self._untracked.look(self.progress.step, (self._session or self.opened).feed)
        self.current.waits = True
        if self.current.turns == MANY:
            self.current.say_if_endless(self.session_log.say)
            if self.current.is_longest:
                self._untracked.look_for_more()
        self._pace.waiting()

    def _finish(self) -> None:
        self._untracked.look(self.step, self.opened.feed)
        self.opened.finish()
