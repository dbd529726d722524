"""`train --processes N`: one training on several processes of this machine, and what is said of how it ended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unbroken.cli import crashes
from unbroken.cli.job import job_of, train_job
from unbroken.cli.signals import StoppedEarly, ended_when_asked, held_back
from unbroken.errors import STOPPED, ProcessLost, UnbrokenError
from unbroken.launch import Job
from unbroken.launch.host import forget_launcher, processes_said
from unbroken.launch.options import require_shares

if TYPE_CHECKING:
    from unbroken.train.distributed.agent import SharedStatus


def train_together(recipe: str, arguments: Sequence[str], *, typed: Sequence[str], job: Job) -> int:
    """Train on as many processes as the job says; returns the exit code that all of them end with."""
    require_shares(job)  # refused here, none is started
    from unbroken.train.distributed.agent import Crashed, train_processes

    count, restarts = job.options.processes.count, job.options.accidents.restarts
    try:
        with held_back():
            return train_processes(_train, (recipe, list(arguments), list(typed)), count=count, restarts=restarts)
    except Crashed as crash:
        how = crashes.in_words(crash.code)
        _say(
            f"process {crash.rank} {how}, and the others were ended; the same command goes on from what was saved last"
        )
        return crashes.exit_code(crash.code)


def _train(recipe: str, arguments: Sequence[str], typed: Sequence[str], status: SharedStatus) -> int:
    """What each of them does; returns its exit code to the launcher, which all that return wait for."""
    launcher, rank = os.getppid(), processes_said().rank
    if hasattr(os, "setsid"):  # a terminal's Ctrl-C reaches the launcher alone, which passes it on: twice ends at once
        os.setsid()
    try:
        with ended_when_asked():
            if status.asked.value:
                raise StoppedEarly(status.asked.value)
            code = _trained(recipe, arguments, typed)
            status.ended[rank] = os.getpid()
    except StoppedEarly:
        code, status.ended[rank] = STOPPED, os.getpid()
        if not status.asked.value and os.getppid() == launcher:  # it was asked alone, and the others would wait for it
            os.kill(launcher, signal.SIGTERM)
    if os.getppid() != launcher:  # it was killed, and nobody takes the code any more
        sys.exit(code)
    return code


def _trained(recipe: str, arguments: Sequence[str], typed: Sequence[str]) -> int:
    from unbroken.train import Exit
    from unbroken.train.distributed.agent import end_with_launcher, share_cores
    from unbroken.train.distributed.world import this_world

    rank = processes_said().rank
    forget_launcher()
    end_with_launcher()
    share_cores()
    try:
        job = job_of(recipe, arguments, typed, front_door=typed[: len(typed) - len(arguments)])
        return train_job(job, began_s=None)
    except ProcessLost as lost:
        if rank == 0:
            _say(str(lost))
        sys.exit(lost.exit_code)  # whoever returns waits for the agent, which waits for it to end by a signal
    except UnbrokenError as error:
        if rank == 0 or error is not this_world().told:  # rank 0 says it
            _say(str(error) if rank == 0 else f"process {rank}: {error}")
        return error.exit_code
    except Exit as ending:
        return int(ending.code or 0)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
