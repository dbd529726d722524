"""Looking whether there is room: before a save for it, and before a training for all that it will save."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from unbroken.errors import UnbrokenError
from unbroken.launch import Job
from unbroken.launch.disk import GARBLED, SavePolicy, disk_lines, forecast_disk, room_for, sizes_in, stored_in
from unbroken.run import OpenRun, RunView
from unbroken.train.sizes import sizes_of

LOG_EVERY = 10  # steps; a guess is enough for lines of a log
AMPLE = 2  # times the size of the last checkpoint


def room_ahead(job: Job, tracked: Mapping[str, Any], policy: SavePolicy, *, done: int, total: int | None) -> list[str]:
    """What to say before the first step: by the saves that are here, or by the tensors of a new training."""
    with suppress(OSError, UnbrokenError, *GARBLED):  # a forecast ends no training
        here = RunView(job.directory, job.layout)
        found = forecast_disk(
            policy,
            sizes_in(here) or sizes_of(job, tracked, log_every=LOG_EVERY),
            stored_in(here),
            room_for(job.directory, job.quota),
            done=done,
            total=total,
            step_s=None,
        )
        return disk_lines(job, found)
    return []


def short_of_room(run: OpenRun) -> str | None:
    """What to say when the disk is nearly full; by then, what retention would remove later has been removed.

    The save is tried all the same: the number may be wrong (quotas, other people's files), and a save that does not
    fit does no harm.
    """
    needed = AMPLE * run.store.newest_bytes
    with suppress(OSError):
        free = run.store.free_bytes
        if free >= needed:
            return None
        gone = run.store.make_room()
        now = run.store.free_bytes
        run.journal.write("disk nearly full", free_bytes=free, needed_bytes=needed, removed=gone)
        made = f"; removed as superseded: {', '.join(gone)}, now {now:,} bytes" if gone else ""
        return (
            f"warning: the disk is nearly full: {free:,} bytes free, and two checkpoints take {needed:,}{made}. "
            "Make room: the training goes on, but a save that does not fit is lost"
        )
    return None
