"""Taking part in a session that rank 0 has begun: its verdict, its session, nothing of its own on the disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from unbroken.clock import Clock
from unbroken.errors import ProcessLost, SaveFailed, UnbrokenError
from unbroken.launch import FineTune, Fresh, Job, Resume
from unbroken.launch.execute import execute
from unbroken.run import OpenRun, SessionFiles
from unbroken.run.layout import Layout, own
from unbroken.storage.files import Nowhere
from unbroken.storage.lock import RunLock
from unbroken.train.device import current_conditions
from unbroken.train.distributed.world import World
from unbroken.train.progress import Best, Progress
from unbroken.train.record.console import StepReport
from unbroken.train.saving.saving import Extra, Saver
from unbroken.train.state.placement import mesh_of
from unbroken.train.stop import Exit, Interrupted


class Silent:
    """The console of a rank that follows: rank 0 says the same."""

    def say(self, line: str) -> None:
        """Nothing."""

    def step(self, report: StepReport, line: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing was opened."""


def files_of_a_follower(session: str, directory: Path, layout: Layout, clock: Clock) -> SessionFiles:
    """The run's files as a process sees them that reads them and whose writing goes nowhere; the lock is rank 0's."""
    disk = Nowhere()
    return SessionFiles(
        disk=disk,
        clock=clock,
        directory=directory,
        layout=layout,
        session=session,
        lock=RunLock(disk, own(directory), clock),
    )


def execute_together(
    world: World, job: Job, plan: Fresh | Resume | FineTune, files: SessionFiles
) -> tuple[OpenRun, Fresh | Resume | FineTune]:
    """Make the run's folder what the plan says: rank 0 does."""
    if world.leads:
        run, plan = execute(job, plan, files, conditions=current_conditions())
        world.tell((run.record, plan))
        return run, plan
    record, plan = world.hear()
    return OpenRun(files, record, keep_last=None), plan


def end_together(world: World, error: BaseException | None) -> None:
    """Wait until rank 0 is done, where a session ends in order; raises Exit where it ends with another exit code.

    A launcher ends the processes that are left as soon as one has ended, and rank 0 may still be writing.
    """
    if world.size == 1 or world.has_left:
        world.has_left = False
        return
    if not (error is None or isinstance(error, Exit | SaveFailed)) or isinstance(error, Interrupted):
        world.close()  # so that the others hear of it, also where this process does not end
        return
    code = exit_code_of(error)
    with suppress(ProcessLost):
        if (ended := world.tell(code)) != code:
            raise Exit(ended, "as rank 0 ended")
    world.close()


def exit_code_of(error: BaseException | None) -> int:
    """What a process ends with that ends by this error, or in order."""
    match error:
        case None:
            return 0
        case SystemExit(code=int(code)):
            return code
        case UnbrokenError():
            return error.exit_code
    return 1


def saver_of(world: World, tracked: Mapping[str, Any]) -> Callable[..., Saver]:
    """What makes the save side of this process: of a state that all have rank 0 saves it, of a sharded one each."""
    if mesh_of(tracked.values()) is not None:
        from unbroken.train.distributed.sharded_saver import ShardedSaver  # it loads what few trainings need

        return partial(ShardedSaver, world=world)
    return Saver if world.leads else FollowingSaver


class FollowingSaver(Saver):
    """Saves nothing, and knows of each save that rank 0 does at the same boundary."""

    def foreseen(self) -> list[str]:
        """Rank 0 has looked."""
        return []

    def due(self, _progress: Progress, *, total: int | None) -> bool:  # noqa: ARG002 - as its class is asked
        """Rank 0 saves when it is due there."""
        return False

    def save(
        self,
        progress: Progress,
        *,
        extra: Extra,  # noqa: ARG002 - as above
        total: int | None,  # noqa: ARG002
        then: Callable[[], None],  # noqa: ARG002
    ) -> None:
        """Rank 0 has the same state, and writes it."""
        self.saved_step = progress.step

    def save_best(self, progress: Progress, best: Best, *, larger: bool, extra: Extra, total: int | None) -> None:
        """Rank 0 has the same weights, and writes them."""
