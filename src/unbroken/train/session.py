"""What an open session writes with, as one thing: the run, its records, its saves, its feed of data.

It exists from the first change to the run's folder on, until the session has let go of everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from unbroken.errors import STOPPED, Refused, SaveFailed, UnbrokenError
from unbroken.journal.lines import LineFile
from unbroken.launch import Job
from unbroken.launch.forecast import TIMING
from unbroken.logbook.entries import note_run
from unbroken.run import OpenRun
from unbroken.storage.request import Requests
from unbroken.train.console import SessionLog
from unbroken.train.deadline import Deadline
from unbroken.train.feed import Feed
from unbroken.train.loader import EXCLUDED, BadSample
from unbroken.train.patience import LAST_TRIES_S
from unbroken.train.progress import Progress
from unbroken.train.recorder import Recorder
from unbroken.train.saving import Saver
from unbroken.train.stop import Exit

LONGEST_PAUSE_S = 15.0


@dataclass(kw_only=True)
class Session:
    """One session while it is open. Its records wait in memory while the disk refuses them."""

    run: OpenRun
    log: SessionLog
    recorder: Recorder
    saver: Saver
    feed: Feed | None  # None for a loop that draws its own batches
    requests: Requests
    troubled: bool = False  # whether it was said that records wait
    hurried: bool = False  # a signal ended it, and what follows a signal may be a kill
    ended: str = "stopped"  # what `ls` will say of it

    def __post_init__(self) -> None:
        for lines in self._records:
            lines.patient = True
        self.requests.remove_stale(self.log.say)
        if self.saver.backups is not None:
            self.saver.backups.begin()
            self.say_saved()
        for line in self.saver.foreseen():
            self.log.say(line)
        self._note()

    @property
    def _records(self) -> tuple[LineFile, LineFile]:
        return self.run.steps.lines, self.run.journal.lines

    def is_saved(self, step: int) -> bool:
        """Whether the state after `step` is on disk, or on its way there (before the first step there is none)."""
        return step == 0 or self.saver.saved_step == step

    def say_saved(self) -> None:
        """Say what became of the saves."""
        for lines in self.saver.writer.said():
            for line in lines.split("\n"):
                self.log.say(line)
        for line in self.saver.backups.said() if self.saver.backups is not None else ():
            self.log.say(line)
        trouble = next((lines for lines in self._records if lines.trouble), None)
        if trouble is not None and not self.troubled:
            self.log.say(
                f"warning: {trouble.path.name} cannot be continued ({trouble.trouble}): its lines wait in memory"
            )
        if self.troubled and trouble is None:
            self.log.say("the lines that waited in memory are written")
        self.troubled = trouble is not None
        for line in self.run.files.lock.said():
            self.log.say(line)

    def wait_for_saves(self) -> None:
        """Return when every save that was begun is done."""
        self.saver.writer.wait()
        self.say_saved()

    def settle(self, progress: Progress, save: Callable[[], None]) -> None:
        """Bring the last state and its records to disk; where that is refused, try for a minute, then SaveFailed."""
        self.run.files.lock.require(now=True)
        clock, self.saver.insisting = self.run.files.clock, True
        give_up_s, wait_s = clock.monotonic_s() + LAST_TRIES_S, 1.0
        while not self._is_settled(progress, save):
            if clock.monotonic_s() + wait_s > give_up_s:
                self.saver.require_saved(progress.step)
                raise self._records_lost()
            clock.pause_s(wait_s)
            wait_s = min(2 * wait_s, LONGEST_PAUSE_S)

    def _is_settled(self, progress: Progress, save: Callable[[], None]) -> bool:
        if not self.is_saved(progress.step):
            save()
        self.wait_for_saves()
        if words := self.saver.write_best_again():
            self.log.say(words)
        for lines in self._records:
            with suppress(Refused):
                lines.require_written()
        return self.is_saved(progress.step) and not any(lines.trouble for lines in self._records)

    def _records_lost(self) -> SaveFailed:
        lines = next(lines for lines in self._records if lines.trouble)
        return SaveFailed(
            lines.path,
            f"the checkpoint is written, but not the last {lines.waiting} lines of the record ({lines.trouble})",
            do="Make room or mend the disk, then run the same command again.",
        )

    def note_skipped(self, progress: Progress, bad: Sequence[BadSample]) -> None:
        """Say and record which samples could not be read and are left out."""
        for each in bad:
            progress.skipped += each.reason != EXCLUDED  # those of a step that went wrong are listed in `excluded`
            self.run.journal.write("skipped", epoch=each.epoch, sample=each.sample, reason=each.reason)
            self.log.say(f"skipped sample {each.sample} of epoch {each.epoch}: {each.reason}")

    def stop(
        self,
        reason: str,
        progress: Progress,
        save: Callable[[], None],
        deadline: Deadline,
        *,
        job: Job,
        total: int | None,
        mid_step: bool,
    ) -> NoReturn:
        """Save, say how far it got, and end with exit code 75; SaveFailed if the disk refuses.

        In the middle of a step there is no whole state to save: what was saved last counts.
        """
        reason = self.requests.reason() or reason  # its command sends a signal too
        self.hurried = reason.startswith("SIG")
        said = f"stopped by {reason} after step {progress.step}: everything is saved"
        if mid_step and not self.is_saved(progress.step):
            last = self.saver.patience.good.step
            said = f"stopped by {reason}: step {progress.step + 1} waited for data; step {last} is the last one saved"
        else:
            self.settle(progress, save)
        self.run.journal.write(TIMING, total=total, **deadline.as_plain())
        self.run.journal.write("stopped", step=progress.step, reason=reason)
        self.log.say(f"{said}{deadline.what_is_left(progress.step, total)}")
        self.log.say(f"to continue, run: {job.command}")
        raise Exit(STOPPED, said)

    def finished(self, progress: Progress) -> None:
        """Record that the training is complete, and say so."""
        self.run.journal.write("finished", step=progress.step)
        self.ended = "finished"
        self.recorder.finish()
        self.log.say(f"finished: {progress.step} steps, {self.run.directory}")
        if progress.skipped:
            times = "once" if progress.skipped == 1 else f"{progress.skipped} times"
            self.log.say(f"{times} a sample that cannot be read was left out")

    def failed(self, step: int, error: BaseException) -> None:
        """Record why the session ends."""
        _record_failure(self.run, step, error)

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
        try:
            self.wait_for_saves()
        finally:
            try:
                self.saver.writer.close()
            finally:
                self._close_files(quietly=quietly)

    def _end_backups(self) -> None:
        """The last thing that is done with the run still held: all is written, and the backup gets it."""
        if self.saver.backups is not None:
            for line in self.saver.backups.end(hurried=self.hurried):
                self.log.say(line)

    def _close_files(self, *, quietly: bool) -> None:
        try:
            if self.run.files.lock.lost is None:  # else all of this is another session's by now
                self.requests.answered()
                self._say_what_is_lost()
                self._note(ended=self.ended)
                self._end_backups()
        finally:
            try:
                self.run.close()
            except Refused:
                if not quietly:
                    raise

    def _note(self, *, ended: str = "") -> None:
        """Bring the run's row in the record of experiments up to date, while its folder is still ours."""
        files = self.run.files
        note_run(files.disk, files.clock, self.run.directory, self.log.say, ended=ended)

    def _say_what_is_lost(self) -> None:
        for lines in self._records:
            with suppress(Refused):
                lines.require_written()
            if lines.waiting:
                self.log.say(f"warning: the last {lines.waiting} lines of {lines.path.name} are lost ({lines.trouble})")
        if self.saver.best_waits:
            self.log.say("warning: the best weights that waited in memory are lost")


def give_up(run: OpenRun, step: int, error: BaseException) -> None:
    """Close a run whose session could not begin."""
    try:
        _record_failure(run, step, error)
    finally:
        run.close()


def _record_failure(run: OpenRun, step: int, error: BaseException) -> None:
    if run.files.lock.lost is not None:
        return
    with suppress(UnbrokenError):  # on a full disk the reason itself matters more than this record of it
        run.journal.write("failed", step=step, error=f"{type(error).__name__}: {error}")
