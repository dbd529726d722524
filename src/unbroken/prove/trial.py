"""One session of a twin: a process of its own, watched until it ends or nothing comes from it any more."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.clock import SystemClock
from unbroken.errors import STOPPED, UsageError
from unbroken.storage import open_ordinary
from unbroken.storage.lock import is_held
from unbroken.train.record.opening import COUNTS_ANEW

LOOK_EVERY_S = 0.05
LONGEST_END_S = 30.0  # of what was killed
TAIL_BYTES, TAIL_LINES, LONGEST_LINE = 8192, 3, 400
NOT_TRACKED = re.compile(rf"(?:warning|note): (.*\btracked\b.*|{re.escape(COUNTS_ANEW)}.*)")

Start = Callable[..., Any]  # as subprocess.Popen


@dataclass(frozen=True, kw_only=True)
class TrialSession:
    """How a process ended (a negative code is a signal), and the file with what it printed."""

    code: int
    output: Path
    hung: bool

    @property
    def ended_well(self) -> bool:
        """Whether it came to its end, or stopped with everything saved."""
        return not self.hung and self.code in (0, STOPPED)

    @property
    def was_killed(self) -> bool:
        """Whether a SIGKILL ended it, or a program in it that it reported; a stop is none."""
        return not self.hung and self.code in (-signal.SIGKILL, 128 + signal.SIGKILL)

    def last_words(self) -> str:
        """The last lines that it printed."""
        lines = [line.strip()[:LONGEST_LINE] for line in _text(self.output, TAIL_BYTES).splitlines() if line.strip()]
        return "\n  ".join(lines[-TAIL_LINES:])

    def not_tracked(self) -> list[str]:
        """What it said of things that are not tracked."""
        return [found[1] for line in _text(self.output).splitlines() if (found := NOT_TRACKED.search(line))]


def run_session(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    place: Path,
    output: Path,
    patience_s: float,
    start: Start = subprocess.Popen,
) -> TrialSession:
    """Run a command that trains below `place`, without anything to read; what it leaves running is ended with it.

    It hangs if for `patience_s` it neither prints nor records anything.
    """
    clock, null = SystemClock(), subprocess.DEVNULL
    with output.open("wb") as file:
        try:
            process = start(
                list(command), env=dict(environment), stdin=null, stdout=file, stderr=file, start_new_session=True
            )
        except OSError as error:
            raise UsageError(
                "unbroken prove",
                f"the command cannot be started ({error.strerror})",
                expected="a recipe and its config, or a program: unbroken prove -- python train.py",
                found=command[0],
            ) from error
        seen, since_s, hung = -1, clock.monotonic_s(), False
        try:
            while process.poll() is None and not hung:
                clock.pause_s(LOOK_EVERY_S)
                if (size := _written(place, output)) != seen:
                    seen, since_s = size, clock.monotonic_s()
                hung = clock.monotonic_s() - since_s > patience_s
        finally:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            give_up_s = clock.monotonic_s() + LONGEST_END_S
            while any(map(is_held, place.glob("*/unbroken"))) and clock.monotonic_s() < give_up_s:
                clock.pause_s(LOOK_EVERY_S)  # what it started has its lock too, until the last of it is gone
    return TrialSession(code=code, output=output, hung=hung)


def _written(place: Path, output: Path) -> int:
    with suppress(OSError):  # a file that is gone between two looks
        return sum(path.stat().st_size for path in (output, *place.glob("*/unbroken/metrics.jsonl")))
    return 0


def _text(path: Path, most: int = 1 << 22) -> str:
    with open_ordinary(path) as file:
        file.seek(max(path.stat().st_size - most, 0))
        return file.read(most).decode(errors="replace")
