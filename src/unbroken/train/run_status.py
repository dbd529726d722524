"""How far a run is: what a loop may ask at any time, and nothing changes by it."""

from __future__ import annotations

from pathlib import Path

from unbroken.errors import UsageError
from unbroken.launch import FineTune, Finished, Fresh, Job, Resume
from unbroken.train.length import Length
from unbroken.train.progress import Progress
from unbroken.train.session import Session

GoingPlan = Fresh | Resume | FineTune | Finished


class RunStatus:
    """The facts of a run, for whoever trains it."""

    job: Job
    plan: GoingPlan
    progress: Progress
    length: Length
    _session: Session | None

    @property
    def step(self) -> int:
        """Completed optimizer steps."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """Completed passes over the data set."""
        return self.progress.epoch

    @property
    def total_steps(self) -> int | None:
        """Steps at the end of the training, as far as that is known."""
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
        """Which batch of its epoch was handed out last, from 0: `enumerate` begins anew where a session does."""
        feed = self.opened.feed
        return feed.batch if feed is not None else self.step

    @property
    def at_end_of_epoch(self) -> bool:
        """Whether the batch handed out last was the last one of its epoch."""
        feed = self.opened.feed
        return feed is not None and feed.at_end_of_epoch

    @property
    def opened(self) -> Session:
        """The open session."""
        if self._session is None:
            raise UsageError("run", "the run is not open yet", do="This belongs inside the loop over run.batches(...).")
        return self._session
