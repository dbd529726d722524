"""Starting the processes of a training on this machine, and all of them again where one crashes: torch elastic's agent.

A process that ends in order, also one that was asked to stop, gives its exit code to the agent, which takes that for a
success. Only one that crashes or is killed makes the agent end the others and start all of them again.
https://docs.pytorch.org/docs/stable/elastic/agent.html
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from unbroken.errors import STOPPED
from unbroken.storage.stop_request import ASKING
from unbroken.train.data.workers import end_with_parent
from unbroken.train.distributed.world import this_world

SHUTDOWN_S = 600  # what a save may take when the agent ends its processes, before they are killed
HERE = "127.0.0.1"


class Crashed(Exception):
    """A process ended by a fault or a signal, and was not to be started again; `code` is as `subprocess` gives it."""

    def __init__(self, rank: int, code: int) -> None:
        super().__init__(rank, code)
        self.rank, self.code = rank, code


class SharedStatus:
    """What a launcher tells those it has started, also later ones, and they it: shared memory."""

    def __init__(self, count: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.asked = spawn.RawValue("i", 0)  # the number of a signal that asked for a stop
        self.ended = spawn.RawArray("i", count)  # of each rank the process that has nothing more to do than give a code

    def pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Let all processes have a signal that came here; it would kill those that wait to give their code."""
        self.asked.value = number
        ended = set(self.ended)
        for child in multiprocessing.active_children():
            if child.pid is not None and child.pid not in ended:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, number)


def train_processes(work: Callable[..., int], words: tuple[Any, ...], *, count: int, restarts: int) -> int:
    """Call `work(*words, status)` in so many processes, each told its rank as torchrun does; returns that of rank 0.

    A signal is passed on to each, as it would reach a training of one process. Raises Crashed.
    """
    status = SharedStatus(count)
    for name in ("torch.distributed", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of it, the caller says
    for name in ASKING:
        if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, status.pass_on)
    config = LaunchConfig(
        run_id=f"unbroken-{os.getpid()}",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{HERE}:0",
        local_addr=HERE,
        max_restarts=restarts,
        signals_to_handle="",
        shutdown_timeout=SHUTDOWN_S,
    )
    try:
        codes: dict[int, int] = elastic_launch(config, work)(*words, status)
    except ChildFailedError as failed:
        # One that lost another process ended for that; what killed the other may be seen after it.
        ends = failed.failures.items()
        rank, failure = min(ends, key=lambda each: (each[1].exitcode == STOPPED, each[1].timestamp))
        if status.asked.value and failure.exitcode == STOPPED:
            return STOPPED
        raise Crashed(rank, failure.exitcode) from None
    return codes[0]


def end_with_launcher() -> None:
    """Stop in order, everything saved, where the process that started this one is killed (Linux).

    Nobody would pass a signal on to them any more, and the same command would find the run held.
    """
    end_with_parent(signal.SIGTERM)


def share_cores() -> None:
    """Let the processes of a machine have a part of its cores each, as each would compute with all of them."""
    torch.set_num_threads(max(torch.get_num_threads() // this_world().size, 1))
