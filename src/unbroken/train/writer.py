"""Running saves one after the other: at once, or beside the training, which then waits only for a copy of the state."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

Job = Callable[[], str]  # does the work, returns what to say about it


class Writer:
    """At most one job is under way; the next one waits for it, so that one copy of the state is in memory at most."""

    def __init__(self, *, beside: bool) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unbroken-save") if beside else None
        self._under_way: Future[str] | None = None
        self._said: deque[str] = deque()

    def submit(self, job: Job) -> None:
        """Begin a job once the one before is done; an error of that one is raised here."""
        self.wait()
        if self._pool is None:
            self._said.append(job())
        else:
            self._under_way = self._pool.submit(job)

    def wait(self) -> None:
        """Return when everything submitted is done; raises what went wrong."""
        under_way = self._under_way
        if under_way is not None:
            wait([under_way])  # until then it is under way, also for whoever interrupts here
            self._under_way = None
            self._said.append(under_way.result())

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._under_way is not None and not self._under_way.done()

    def said(self) -> list[str]:
        """What the jobs done since the last time have to say; raises what went wrong."""
        if self._under_way is not None and self._under_way.done():
            self.wait()
        lines = list(self._said)
        self._said.clear()
        return lines

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
