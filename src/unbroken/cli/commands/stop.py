"""`stop`: the process that trains a run is asked to stop, from wherever the run's folder can be written."""

from __future__ import annotations

import argparse
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from unbroken.cli.args import CommandParser
from unbroken.cli.runs import add_run, run_folder
from unbroken.clock import SystemClock
from unbroken.ids import host_name
from unbroken.report import RunStatus, Watch
from unbroken.run.folder import require_inside
from unbroken.run.layout import own
from unbroken.storage import Disk, explained
from unbroken.storage.lock import Holder, holds, is_held, read_holder
from unbroken.storage.stop_request import ask_to_stop
from unbroken.text import shown

LOOK_EVERY_S = 0.2


def stop_options(parser: CommandParser) -> None:
    """A run, and whether to wait for its end."""
    add_run(parser)
    parser.add_argument(
        "--no-wait", action="store_false", dest="wait", help="only ask; do not wait until it has stopped"
    )
    parser.add_examples("unbroken stop RUN")


def stop_command(options: argparse.Namespace) -> None:
    """Ask the process that trains a run to save and stop, and wait until it has; its exit code is then 75.

    It may run in another terminal, in another container with the same file system, or on another machine.
    """
    run = options.run
    folder = own(run_folder(run))
    watch, holder = Watch(run, SystemClock(), Disk()), read_holder(folder)
    status = watch.poll()
    if holder is None or not (status.live or _maybe_elsewhere(holder)):
        _say(f"{run}: nothing to stop, no process holds it" + (f" ({_ended(status)})" if status.begun else ""))
        return
    if holder.is_command and status.live:
        _say(f"{run}: nothing is stopped, {holder} is no training and ends by itself")
        return
    require_inside(run)
    with explained(Disk(), folder, "the request to stop cannot be left there"):
        ask_to_stop(Disk(), folder, SystemClock(), holder)
    if not status.live:
        _say(f"{run}: {holder} did not let go of it, but from here its lock looks free: a request is left for it")
        return
    reached = _signal(folder, holder)
    _say(f"{run}: {holder} is asked to stop" + ("" if reached else ", it looks about once a second"))
    if not options.wait:
        return
    while is_held(folder) and _same(folder, holder):
        time.sleep(LOOK_EVERY_S)
    last = watch.poll()
    _say(f"{run}: {_ended(last)}")
    if last.state != "finished" and last.command:
        _say(f"to go on: {last.command}")


def _maybe_elsewhere(holder: Holder) -> bool:
    """Whether a holder that is not seen may live: on another machine, whose locks not every file system shows."""
    return not holder.released and holder.host != host_name()


def _signal(folder: Path, holder: Holder) -> bool:
    """Send SIGTERM, if the holder is a process of this machine; to no other process of that number."""
    if holder.host != host_name() or not holds(folder, holder.pid):
        return False
    with suppress(OSError):
        os.kill(holder.pid, signal.SIGTERM)
        return True
    return False


def _same(folder: Path, holder: Holder) -> bool:
    now = read_holder(folder)
    return now is None or now.session == holder.session


def _ended(status: RunStatus) -> str:
    of = f" of {status.total}" if status.total is not None else ""
    return f"{status.state} after step {status.step}{of}"


def _say(words: str) -> None:
    print(shown(words, 2000), flush=True)
