"""A run while it is open: from the first change to its folder, which comes with the first batch, to the last.

What is tracked is restored before, and refused before anything is touched. The end is recorded, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from unbroken.clock import START
from unbroken.errors import UnbrokenError, UnreadableSample, UsageError, WorkersKilled
from unbroken.launch import FineTune, Finished, Job, Resume
from unbroken.launch.decision import Decision
from unbroken.launch.forecast import cost_in, start_line
from unbroken.run import OpenRun, SessionFiles
from unbroken.run.layout import own
from unbroken.storage.stop_request import Requests
from unbroken.train.arguments import SessionOptions
from unbroken.train.cadence import Interval
from unbroken.train.data.feed import AnyFeed, Feed
from unbroken.train.data.takeover import Translate, as_they_are
from unbroken.train.data.workers import end_workers
from unbroken.train.distributed.following import end_together, execute_together, saver_of
from unbroken.train.distributed.replicas import Replicas, shared_as_recorded
from unbroken.train.distributed.world import World
from unbroken.train.length import Length
from unbroken.train.loop.epoch_beginning import EpochBeginning
from unbroken.train.loop.evaluation import RunControl
from unbroken.train.loop.hold import give_up
from unbroken.train.loop.session import Session
from unbroken.train.loop.untracked import Untracked
from unbroken.train.pretrained.adopting import Adopting
from unbroken.train.progress import Progress
from unbroken.train.rates import RateWatch
from unbroken.train.record import opening
from unbroken.train.record.console import SessionLog
from unbroken.train.record.recorder import Recorder, StepTimer, under_train
from unbroken.train.saving.patience import mark_of
from unbroken.train.source import Source
from unbroken.train.state.built_parts import BuiltParts
from unbroken.train.step import StepInProgress
from unbroken.train.stop import Deadline, Exit, Interrupted, StopFlag


class RunLifecycle(RunControl):
    """What a run is made of, and how its session begins and ends."""

    def __init__(
        self,
        job: Job,
        decision: Decision,
        files: SessionFiles,
        log: SessionLog,
        *,
        options: SessionOptions,
        stop: StopFlag,
        world: World | None = None,
    ) -> None:
        self.job, self.session_log, self.seed = job, log, decision.seed
        self.plan = plan = decision.plan
        self.decision, self.world = decision, world or World()
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
        self.current = StepInProgress(decision.seed, self._parts, RateWatch(log, job, self.length))
        self.replicas = Replicas(self.world, self.current)
        self._untracked = Untracked(self, self._parts, log.say, files.clock, strict=job.start.strict)
        self._stop, self._pace = stop, StepTimer(files.clock, first=self._started)
        self.current.sharing = shared_as_recorded(self.world, self.progress, options.shards, log.say)
        # Where others train with this process, it leaves no wait before they know.
        self._stop.mid_step = lambda: self.current.turns > 0 or (self.world.size > 1 and self._session is not None)

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Save what is not saved and let go of the run, as the end of a `with` block does; again, it does nothing."""
        self.__exit__(None, None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = self.world.explained(error)
        self.world.leave_word(failure)
        try:
            self._end(failure)
        except UnbrokenError as last:  # the last save failed: as good a reason to end as one inside the loop
            if not self._options.exits:
                raise
            failure = last
        if self._options.exits and isinstance(failure, UnbrokenError):
            self.session_log.say(str(failure))
            raise Exit(failure.exit_code, str(failure)) from failure
        if failure is not error and failure is not None:
            raise failure

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
            end_together(self.world, error)

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
        self.replicas.take_part(self._parts)
        self.replicas.require_same(self._parts, draws_itself=feed is None)
        if isinstance(feed, Feed):
            self.replicas.require_same_batches(
                {
                    "samples": feed.order.size,
                    "batch_size": feed.batching.batch_size,
                    "epochs": self.length.epochs,
                    "accumulate": accumulate,
                }
            )
        self.world.wait_for_all()  # all have read what they go on from
        self._stop.begin()
        run, self.plan = execute_together(self.world, self.job, self.plan, self._files)
        try:
            self._session = self._prepared(run, feed, accumulate=accumulate)
        except BaseException as error:
            give_up(run, self.step, error)
            raise
        START.enter("first batch")

    def _started(self) -> None:
        """The first batch is there: how long each phase of the start took goes into the log and the journal."""
        self.deadline.start = START.end()
        self.session_log.note(f"started in {start_line(self.deadline.start)}")

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
        saver = saver_of(self.world, self._parts)(
            self.job,
            run,
            self._parts,
            gradients=self.current.gradients,
            modes=self.current.modes,
            attributes=self.current.attributes,
            built=self._built,
            every=options.every,
            interval=Interval(options.save_every_s, kills=self.decision.kills, cost_s=cost_in(self.decision.timing)),
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
            exact = bool(self.progress.shards)
            recorder.expect_again(self.step, same_streams=not self._source.had_streams, exact=exact)
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
            world=self.world,
            extra=self.extra,
        )

    def _close(self, *, quietly: bool) -> None:
        session, self._session = self._session, None
        self.replicas.let_go()
        try:
            if session is not None:
                session.close(quietly=quietly)
            else:
                self._files.lock.withdraw()
        finally:
            self._stop.uninstall()  # a save that is still being written is finished, whoever asks to stop
            self.session_log.close()
