"""Looking, before a save, whether there is room for it."""

from __future__ import annotations

from contextlib import suppress

from unbroken.run import OpenRun

AMPLE = 2  # times the size of the last checkpoint


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
