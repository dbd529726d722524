"""What an open session writes with, as one thing: the run, its records, its saves, its feed of data.

It exists from the first change to the run's folder on, until the session has let go of everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from unbroken.errors import STOPPED, Refused, SaveFailed, UsageError, WorkersKilled
from unbroken.journal.file import LineFile
from unbroken.launch.forecast import TIMING
from unbroken.launch.rerun import again_in_words
from unbroken.quantities import counted
from unbroken.train.cadence import Every
from unbroken.train.data.feed import AnyFeed
from unbroken.train.data.loader import EXCLUDED, BadSample
from unbroken.train.data.workers import TOLD, LostWorker
from unbroken.train.distributed.agreement import logged_together, meaning_of, wish_of
from unbroken.train.finite import GoBack
from unbroken.train.length import Length
from unbroken.train.loop.hold import Hold, record_failure
from unbroken.train.progress import Best, Progress
from unbroken.train.record.recorder import Recorder
from unbroken.train.saving.patience import LAST_TRIES_S
from unbroken.train.saving.saving import Extra
from unbroken.train.step import StepInProgress
from unbroken.train.stop import Deadline, Exit, Outlook, StopFlag

LONGEST_PAUSE_S = 15.0
LEFT = "its own loop, which was left"


@dataclass(kw_only=True)
class Session(Hold):
    """One session while it is open. Its records wait in memory while the disk refuses them."""

    progress: Progress
    current: StepInProgress
    length: Length
    deadline: Deadline
    flag: StopFlag
    recorder: Recorder
    feed: AnyFeed | None  # None for a loop that draws its own batches
    extra: Extra  # what else stands in each file
    save_again: bool = False  # at the next boundary
    troubled: bool = False  # whether it was said that records wait
    workers_lost: int = 0
    evaluations: list[tuple[dict[str, float], str | None, bool]] = field(default_factory=list)  # not written down yet
    cut: bool = False  # whether it was said that the loop ends epochs early

    def __post_init__(self) -> None:
        super().__post_init__()
        for lines in self.records:
            lines.patient = True
        self.requests.remove_stale(self.log.say)
        if self.saver.backups is not None:
            self.saver.backups.begin()
            self.say_saved()
        for line in self.saver.foreseen():
            self.log.say(line)
        TOLD.listener, self.flag.outlook = self.note_lost, self.outlook
        self.note()

    def go_on_with(self, feed: AnyFeed) -> None:
        """The batches of the next epoch, as the loop wants them now."""
        if self.feed is not None and (words := feed.follow(self.feed, self.progress)):
            self.log.say(words)
        self.feed = feed

    def is_saved(self, step: int) -> bool:
        """Whether the state after `step` is on disk, or on its way there (before the first step there is none)."""
        return step == 0 or self.saver.saved_step == step

    def say_saved(self) -> None:
        """Say what became of the saves."""
        if self.saver.writer.has_news:
            for lines in self.saver.writer.said():
                for line in lines.split("\n"):
                    self.log.say(line)
        if self.saver.backups is not None:
            for line in self.saver.backups.said():
                self.log.say(line)
        steps, journal = self.records
        if steps.trouble or journal.trouble or self.troubled:
            self._say_trouble(steps if steps.trouble else journal)
        for line in self.run.files.lock.said():
            self.log.say(line)

    def _say_trouble(self, lines: LineFile) -> None:
        """Say, once, that lines wait in memory, and that they do no more."""
        if lines.trouble and not self.troubled:
            self.log.say(f"warning: {lines.path.name} cannot be continued ({lines.trouble}): its lines wait in memory")
        if self.troubled and not lines.trouble:
            self.log.say("the lines that waited in memory are written")
        self.troubled = bool(lines.trouble)

    def wait_for_saves(self) -> None:
        """Return when every save that was begun is done."""
        self.saver.writer.wait()
        self.say_saved()

    def save(self, *, then: Callable[[], None] = lambda: None) -> None:
        """Write a checkpoint of the present state; `then` is done, by whoever writes it, once it is on disk."""
        self.save_again = False
        self.recorder.write_waiting()
        self.saver.save(self.progress, extra=self.extra, total=self.length.steps, then=then)
        self.say_saved()

    def settle(self) -> None:
        """Bring the last state and its records to disk; where that is refused, try for a minute, then SaveFailed."""
        self.run.files.lock.require(now=True)
        clock, self.saver.insisting = self.run.files.clock, True
        give_up_s, wait_s = clock.monotonic_s() + LAST_TRIES_S, 1.0
        while not self._is_settled():
            if self.saver.agreed(clock.monotonic_s() + wait_s > give_up_s):
                self.saver.require_saved(self.progress.step)
                raise self._records_lost()
            clock.pause_s(wait_s)
            wait_s = min(2 * wait_s, LONGEST_PAUSE_S)

    def _is_settled(self) -> bool:
        if not self.is_saved(self.progress.step):
            self.save()
        self.wait_for_saves()
        if words := self.saver.write_best_again():
            self.log.say(words)
        for lines in self.records:
            with suppress(Refused):
                lines.require_written()
        return self.saver.agreed(self.is_saved(self.progress.step) and not any(lines.trouble for lines in self.records))

    def _records_lost(self) -> SaveFailed:
        lines = next(lines for lines in self.records if lines.trouble)
        return SaveFailed(
            lines.path,
            f"the checkpoint is written, but not the last {lines.waiting} lines of the record ({lines.trouble})",
            do="Make room or mend the disk, then run the same command again.",
        )

    def end_complete_step(self) -> None:
        """End the step in progress if its optimizer has stepped: what comes now is of the weights after it."""
        if self.current.stepped and self.current.turns > 0:
            self.end_step(by_itself=True)

    def end_body(self) -> None:
        """The body of the loop has run: the step that ended in it is written down, with all that was logged of it."""
        if not self.current.by_hand:
            self.end_complete_step()
        self.record_step()

    def end_step(self, *, by_itself: bool) -> None:
        """The step in progress counts from here on."""
        current, turns, skipped = self.current, self.current.turns, self.current.skipped
        current.finish(self.progress, by_itself=by_itself)
        self.progress.step += 1
        self.progress.skipped += skipped
        if self.feed is not None:
            self.feed.note(self.progress)
            self.length.count(self.feed, self.progress.step, turns=turns)  # a batch of nothing readable was none
        self.deadline.took("step", self.recorder.pace.step_ended())

    def end_epoch(self, number: int) -> None:
        """The loop is done with an epoch; that it left it early is said, and the next one begins all the same."""
        # What was done since the last step of the epoch may have changed the state.
        self.progress.closed_epochs, self.saver.saved_step = number + 1, None
        if self.feed is None or self.progress.ended or not (used := self.feed.end_epoch(number, self.progress)):
            return
        self.run.journal.write("epoch cut", epoch=number)
        if not self.cut:
            self.log.say(f"the loop ended epoch {number + 1} after {used} (said once)")
        self.cut = True

    def record_step(self) -> None:
        """Write the step down that has ended, if that is not done yet."""
        if (ended := self.current.take_ended()) is not None:
            weights = self.current.probe.take()
            if self.world.size > 1:
                step, said, sharded = self.progress.step, self.current.is_shared, self.saver.sharded
                ended, weights = logged_together(self.world, ended, weights, step=step, said=said, sharded=sharded)
            self.recorder.record(self.progress, ended, weights, total=self.length.steps)
            if self.evaluations:
                self._write_evaluations()

    def stop_if_asked(self, last: int | None) -> None:
        """Stop where a signal, the end of the session or a request asks for it; `last` is the last step, if certain."""
        flag = self.flag
        more = self.progress.step != last
        if flag.reason is None and more and self.deadline.is_limited and not self.deadline.fits("step", "save"):
            flag.reason = "the end of the session"
        if flag.reason is None and (asked := self.requests.look()) is not None:
            flag.reason = asked  # nothing is written where nothing is asked: a signal may come in between
        if self.world.size > 1 and self.current.turns:
            return  # in the middle of a step nobody asks the others
        if (reason := self._agree() if self.world.size > 1 else flag.reason) is not None:
            self.stop(reason)

    def _agree(self, *, left: bool = False) -> str | None:
        """Let all processes end after this step for the reason that one of them has: a stop, an end, a loop left.

        Returns why to stop. A signal that comes while they agree is heard at the next boundary, by all.
        """
        flag, progress, rank = self.flag, self.progress, self.world.rank
        agreed = self.world.agree(wish_of(stop=flag.reason, ended=progress.ended, left=rank if left else None))
        stop, ended = meaning_of(agreed, left=left)
        progress.ended = progress.ended or ended
        flag.reason = stop or flag.reason
        return stop

    def break_off(self, error: BaseException) -> None:
        """A wait for data was broken off: stop for the reason there is, if there is one."""
        if isinstance(error, WorkersKilled):
            self.log.say(str(error))
            self.stop("the death of its loader workers")
        if self.flag.reason is not None:
            self.stop(self.flag.reason)

    def evaluation_due(self, cadence: Every) -> bool:
        """Whether the present weights are to be evaluated now; they are then those after a whole step."""
        self.end_complete_step()
        step = self.progress.step
        last = step if self.progress.ended else self.length.last(self.feed, step)  # the loop may say so
        due = cadence.due(self.progress, total=last) and step > self.progress.evaluated_step
        if due and not self.current.turns:
            self.current.seed_outside("evaluation", step)
        if due:
            self.log.doing("validation")
        return due

    def note_evaluation(self, metrics: dict[str, float], *, best: str | None, larger: bool) -> bool:
        """Record an evaluation of the present weights, and keep them if they are the best; returns whether they are."""
        self.end_complete_step()
        progress = self.progress
        self.save_again |= self.is_saved(progress.step) and progress.step > 0  # the same step, now with its evaluation
        progress.evaluated_step, progress.metrics = progress.step, metrics
        improved = best is not None and progress.improves(best, metrics[best], larger=larger)
        if improved and best is not None:
            progress.best = Best(metric=best, value=metrics[best], step=progress.step)
        self.evaluations.append((metrics, best, improved))
        if not self.current.is_to_be_written:
            self._write_evaluations()
        if improved and progress.best is not None:
            self.saver.save_best(progress, progress.best, larger=larger, extra=self.extra, total=self.length.steps)
            self.say_saved()
        return improved

    def _write_evaluations(self) -> None:
        """Write down what was found of the present weights, below their step."""
        for metrics, best, improved in self.evaluations:
            self.recorder.record_evaluation(self.progress, metrics)
            self.run.journal.write("evaluated", step=self.progress.step, metrics=metrics, metric=best, best=improved)
        self.evaluations.clear()

    def note_skipped(self, bad: Sequence[BadSample]) -> int:
        """Say and record which samples are left out; returns how many of them could not be read."""
        for each in bad:
            self.run.journal.write("skipped", epoch=each.epoch, sample=each.sample, reason=each.reason)
            self.log.say(f"skipped sample {each.sample} of epoch {each.epoch}: {each.reason}")
        return sum(each.reason != EXCLUDED for each in bad)  # those of a step that went wrong are in `excluded`

    def note_lost(self, lost: LostWorker) -> None:
        """Say and record that a loader worker died; no thread writes when the next one is forked."""
        self.wait_for_saves()
        self.workers_lost += 1
        self.run.journal.write("worker lost", how=lost.how, samples=lost.samples)
        self.log.say(f"{lost} (lost so far: {self.workers_lost})")

    def stop(self, reason: str) -> NoReturn:
        """Save, say how far it got, and end with exit code 75; SaveFailed if the disk refuses.

        Where the step in progress has changed something there is no whole state to save: what was saved last counts.
        """
        self.note_said()
        self.record_step()
        step, total = self.progress.step, self.length.steps
        reason = self.requests.reason() or reason  # its command sends a signal too
        self.hurried = reason.startswith("SIG")
        said = f"stopped by {reason} after step {step}: everything is saved"
        changed = self.current.changed() if self.current.turns and not self.is_saved(step) else []
        if changed:
            self.wait_for_saves()
            said = f"stopped by {reason} in step {step + 1}: {self._lost(changed)}"
        else:
            self.settle()
        self.note_timing()
        self.run.journal.write("stopped", step=step, reason=reason)
        self.log.say(f"{said}{self.deadline.what_is_left(step, total)}")
        self.log.say(f"to continue, {again_in_words(self.job.environment, self.job.command)}")
        raise Exit(STOPPED, said)

    def require_steps(self) -> None:
        """Raise UsageError where a loop ends in order and has finished not one step: it would look like work done."""
        if self.progress.step == 0:
            waiting = len(self.current.samples) if self.current.turns else 0
            raise UsageError(
                "run",
                "the loop ended without a single finished step: nothing was trained, nothing is saved",
                found=f"{waiting} samples handed out, and no tracked optimizer has stepped"
                if waiting
                else "no batch at all",
                do="Look at what the data set holds, track the optimizer, or end each step with run.end_step(...).",
            )

    def leave(self, error: BaseException | None) -> None:
        """The loop was left: save the state after the last finished step, or say what is lost and why.

        A loop that is left by `break` between two steps may have changed what it likes; after an error only what
        nothing has touched is the state after a step.
        """
        self.note_said()
        if isinstance(error, Exit | GoBack | SaveFailed):  # saved, said or tried; or it goes back to the last save
            return
        if error is None:
            self._left()
            return
        self.record_step()
        changed = self.current.changed()
        at_once = isinstance(error, KeyboardInterrupt)
        if at_once or changed:
            self.wait_for_saves()
        if at_once:
            saved = self.is_saved(self.progress.step)
            self.log.say(
                f"interrupted: {f'nothing is lost, step {self.progress.step} is saved' if saved else self._lost([])}"
            )
        elif self.is_saved(self.progress.step):
            return
        elif changed or self.saver.sharded:  # the others are in the middle of a step, or gone
            self.log.say(f"warning: {self._lost(changed)}")
        else:
            self.settle()
            self.log.say(f"the state after step {self.progress.step}, the last one that was finished, is saved")

    def _left(self) -> None:
        """The block ended before the last step was done: by a `break` or a `return` of the loop."""
        if self.ended == "finished":
            return
        self.end_body()
        self.require_steps()
        if self.current.ended:
            self._agree(left=True)
        else:
            self.world.leave_in(self.progress.step + 1)
        self.current.settle()
        if self.progress.ended:
            self.finish()
            return
        step = self.progress.step
        changed = self.current.changed() if self.current.turns else []
        if changed:
            self.wait_for_saves()
            lost = "" if self.is_saved(step) else f": {self._lost(changed)}"
            self.log.say(f"warning: the loop was left in the middle of step {step + 1}, which is not kept{lost}")
        else:
            self.settle()
            self.log.say(f"the loop was left after step {step}: everything is saved")
        self.note_timing()
        self.run.journal.write("stopped", step=step, reason=LEFT)
        self.log.say(
            f"to continue, {again_in_words(self.job.environment, self.job.command)}; a loop that has reached what it "
            "was for says so by run.finish() before it ends"
        )

    def _lost(self, changed: Sequence[str]) -> str:
        """What a run that ends without a save loses, and why there is none."""
        first, last = self.saver.patience.good.step + 1, self.progress.step
        steps = f"step {last} is" if first == last else f"steps {first}-{last} are"
        kept = f"the last save is of step {first - 1}" if first > 1 else "nothing was saved before"
        why = f" (the step that was not finished has already changed: {', '.join(changed)})" if changed else ""
        if self.current.ended:
            why = f" (of step {last}, what follows in the loop's body was not done)"
        return f"{steps} lost, {kept}{why}"

    def outlook(self) -> Outlook:
        """What a stop would wait for now, and what ending at once would lose; asked at any instant, by a signal."""
        saving = self.saver.saved_step if self.saver.writer.busy else None
        return Outlook(
            began=True,
            step=self.progress.step,
            saved=self.saver.patience.good.step if saving is None else saving,
            saving=saving is not None,
            in_step=self.current.turns > 0,
            waits=self.current.waits,
        )

    def note_timing(self) -> None:
        """Record how long things take, for the plans of later sessions."""
        learned = {**self.deadline.as_plain(), **self.saver.interval.as_plain()}
        self.run.journal.write(TIMING, total=self.length.steps, **learned)

    def note_said(self) -> None:
        """What was said to whoever asked to stop stands in the log as well."""
        while self.flag.said:
            self.log.note(self.flag.said.pop(0))

    def finish(self) -> None:
        """The training is complete: save its state, record that, and say so."""
        self.require_steps()
        self.length.steps = self.progress.step
        self.settle()
        progress, waiting = self.progress, len(self.current.samples)
        if self.current.turns:
            self.log.say(f"warning: after the last step {waiting} samples were handed out and not stepped on")
        self.note_timing()
        self.run.journal.write(
            "finished", step=progress.step, **({"early": self.progress.ended} if self.progress.ended else {})
        )
        self.ended = "finished"
        self.recorder.finish()
        early = f", ended by {self.progress.ended}" if self.progress.ended else ""
        self.log.say(f"finished: {counted(progress.step, 'step')}{early}, {self.run.directory}")
        if progress.skipped:
            times = "once" if progress.skipped == 1 else f"{progress.skipped} times"
            self.log.say(f"{times} a sample that cannot be read was left out")

    def failed(self, step: int, error: BaseException) -> None:
        """Record why the session ends."""
        record_failure(self.run, step, error)

    def close_recorder(self, *, quietly: bool) -> None:
        """Close the curves; quietly where the session ends for a reason that matters more than them."""
        try:
            self.recorder.close()
        except Refused as refusal:
            if not quietly:
                raise
            self.log.say(f"warning: {refusal}")

    def close(self, *, quietly: bool) -> None:
        """End the session's hold, in order: its data, its saves, its files, its lock."""
        self.feed = None  # ends its workers; they ignore SIGTERM, so the exit would wait for them forever
        TOLD.listener, self.flag.outlook = None, lambda: Outlook(ended=True)
        try:
            self.wait_for_saves()
            self.note_said()
        finally:
            try:
                self.saver.close()
            finally:
                self.let_go(quietly=quietly)
