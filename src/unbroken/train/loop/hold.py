"""What a session holds of its run, and lets go of at its end, in order: the lock last."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from unbroken.errors import Refused, UnbrokenError
from unbroken.journal.file import LineFile
from unbroken.launch import Job
from unbroken.logbook.entry import note_run
from unbroken.run import OpenRun
from unbroken.storage.stop_request import Requests
from unbroken.train.distributed.world import World
from unbroken.train.record.console import SessionLog
from unbroken.train.saving.saving import Saver


@dataclass(kw_only=True)
class Hold:
    """The run, what is written into it, and what the session says."""

    run: OpenRun
    job: Job
    log: SessionLog
    saver: Saver
    requests: Requests
    world: World = field(default_factory=World)
    hurried: bool = False  # a signal ended it, and what follows a signal may be a kill
    ended: str = "stopped"  # what `ls` will say of it

    def __post_init__(self) -> None:
        self.records: tuple[LineFile, LineFile] = (self.run.steps.lines, self.run.journal.lines)

    def note(self, *, ended: str = "") -> None:
        """Bring the run's row in the record of experiments up to date, while its folder is still ours."""
        files = self.run.files
        if not self.job.environment.on_trial and self.world.leads:
            note_run(files.disk, files.clock, self.run.directory, self.log.say, ended=ended)

    def let_go(self, *, quietly: bool) -> None:
        """End it: requests, the row in the record of experiments, the backup, the files, the lock."""
        try:
            if self.run.files.lock.lost is None:  # else all of this is another session's by now
                self.requests.answered()
                self._say_what_is_lost()
                self.note(ended=self.ended)
                # The last thing that is done with the run still held: all is written, and the backup gets it.
                if self.saver.backups is not None:
                    for line in self.saver.backups.end(hurried=self.hurried):
                        self.log.say(line)
        finally:
            try:
                self.run.close()
            except Refused:
                if not quietly:
                    raise

    def _say_what_is_lost(self) -> None:
        for lines in self.records:
            with suppress(Refused):
                lines.require_written()
            if lines.waiting:
                self.log.say(f"warning: the last {lines.waiting} lines of {lines.path.name} are lost ({lines.trouble})")
        if self.saver.best_waits:
            self.log.say("warning: the best weights that waited in memory are lost")


def give_up(run: OpenRun, step: int, error: BaseException) -> None:
    """Close a run whose session could not begin."""
    try:
        record_failure(run, step, error)
    finally:
        run.close()


def record_failure(run: OpenRun, step: int, error: BaseException) -> None:
    """Record why a session ends."""
    if run.files.lock.lost is not None:
        return
    with suppress(UnbrokenError):  # on a full disk the reason itself matters more than this record of it
        run.journal.write("failed", step=step, error=f"{type(error).__name__}: {error}")
