"""Asking the process that holds a run to stop, from wherever its folder can be written.

A request names the session it is meant for. So one that was never read can neither stop a later session nor depend on
two machines' clocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from unbroken.clock import Clock, utc_text
from unbroken.ids import host_name
from unbroken.storage.durable import write_json
from unbroken.storage.files import Disk
from unbroken.storage.lock import Holder
from unbroken.storage.ordinary import read_typed

ASKING = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")  # the signals that ask a training to stop
FILE = "stop.json"
LOOK_EVERY_S = 1.0
REASON = "`unbroken stop`"


@dataclass(frozen=True, kw_only=True)
class StopRequest:
    """Which session should stop, and who says so."""

    session: str
    host: str
    pid: int
    time: str


def ask_to_stop(disk: Disk, folder: Path, clock: Clock, holder: Holder) -> None:
    """Leave a request for the holder of the run of this folder; raises OSError where that cannot be written."""
    request = StopRequest(
        session=holder.session,
        host=host_name(),
        pid=os.getpid(),
        time=utc_text(clock.now()),
    )
    write_json(disk, folder / FILE, asdict(request))


def read_request(folder: Path) -> StopRequest | None:
    """The request that lies there, if one does that can be read."""
    return read_typed(folder / FILE, StopRequest)


class Requests:
    """Looks, at most once a second, whether the session is asked to stop."""

    def __init__(self, disk: Disk, folder: Path, clock: Clock, *, session: str) -> None:
        self._disk, self._folder, self._clock, self._session = disk, folder, clock, session
        self._looked_s: float | None = None

    def remove_stale(self, say: Callable[[str], None]) -> None:
        """Remove a request that was meant for an earlier session."""
        if not (self._folder / FILE).exists():
            return
        found = read_request(self._folder)
        if found is None or found.session != self._session:
            self._remove()
            say("a request to stop that was meant for an earlier session is ignored and removed")

    def look(self) -> str | None:
        """Why to stop, if there is a request for this session."""
        now_s = self._clock.monotonic_s()
        if self._looked_s is not None and now_s - self._looked_s < LOOK_EVERY_S:
            return None
        self._looked_s = now_s
        return self.reason()

    def reason(self) -> str | None:
        """The same, looking now."""
        found = read_request(self._folder)
        return REASON if found is not None and found.session == self._session else None

    def answered(self) -> None:
        """The session ends: remove the request that it was asked by."""
        if self.reason() is not None:
            self._remove()

    def _remove(self) -> None:
        with suppress(OSError):  # it names a session that is over: left behind, it is ignored
            self._disk.remove(self._folder / FILE)
