"""Being asked to stop while no session is open: Python and torch take seconds to load, and nothing is to be finished.

A process that is started for a training begins with these signals held back: until it listens, the system's own answer
to them would be a kill, and Python's a trace.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from unbroken.errors import STOPPED
from unbroken.storage.stop_request import ASKING


class StoppedEarly(SystemExit):
    """A stop was asked for, and no session is open."""

    def __init__(self, number: int) -> None:
        super().__init__(STOPPED)
        self.reason = signal.Signals(number).name


def asking() -> list[int]:
    """The signals that ask for a stop; not those that `nohup` made this process ignore."""
    numbers = [getattr(signal, name) for name in ASKING if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def ended_when_asked() -> Iterator[None]:
    """Within the block a stop ends it at once, by StoppedEarly, and is said; unless a session listens itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _end) for number in asking()}
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
        yield
    except StoppedEarly as stopped:
        from unbroken.launch.host import leads

        if leads():
            said = f"stopped by {stopped.reason} while no session was open: nothing was changed"
            print(f"{said}, run the same command again", file=sys.stderr, flush=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    for each in asking():
        signal.signal(each, signal.SIG_IGN)  # it ends already
    raise StoppedEarly(number)


@contextmanager
def held_back() -> Iterator[None]:
    """Processes that are started within the block begin with these signals held back, until they ask for them.

    Here they are heard all the same: a thread takes them, and Python's handlers run in the main thread in any case.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it lets SIGINT and SIGTERM through where it begins, with the first process
    over = threading.Event()
    threading.Thread(target=over.wait, name="unbroken-signals", daemon=True).start()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, asking())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        over.set()
