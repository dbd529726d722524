"""One task for many things, in several processes at once; in this one where others cannot be started."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def spread(task: Callable[[Item], Found], items: Sequence[Item], *, processes: int, at_once: int = 1) -> list[Found]:
    """The task's result for each item, in order; a process is given `at_once` of them."""
    try:
        with ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_IGN),  # the first process says that it was interrupted
        ) as pool:
            return list(pool.map(task, items, chunksize=at_once))
    except (BrokenProcessPool, OSError, ImportError):
        return list(map(task, items))
