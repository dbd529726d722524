"""What to do after a crash: pure, from how the crashes went so far."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from unbroken.errors import INTERRUPTED_TWICE, STOPPED
from unbroken.jsonlines import parsed_line
from unbroken.quantities import counted

PASSED_ON = frozenset({0, 2, 10, 11, 12, 13, 14, STOPPED, INTERRUPTED_TWICE})  # these say what they mean
AT_ONE_PLACE = 3
LONGEST_WAIT_S = 600.0
MOST_NAMED = 32
GUESSES = {
    "SIGKILL": ", perhaps because the machine ran out of memory",
    "SIGSEGV": ", a fault in native code",
    "SIGBUS": ", perhaps because /dev/shm or the disk of a mapped file is full",
    "SIGABRT": ", native code gave up",
}


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What a training was doing: `what` is "start", "step" or "evaluation"; `samples` are (epoch, sample)."""

    what: str = "start"
    step: int = 0
    samples: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_note(cls, note: bytes) -> Activity:
        """What the child noted last; one that noted nothing had not begun, as far as what a crash has left can tell."""
        line, whole, _ = note.partition(b"\n")
        plain = parsed_line(line + whole) or {}
        try:
            samples = tuple((int(epoch), int(sample)) for epoch, sample in plain["samples"])
            return cls(what=str(plain["what"]), step=int(plain["step"]), samples=samples)
        except (LookupError, TypeError, ValueError):
            return cls()

    def as_note(self) -> bytes:
        """One line, which may be written over a longer one."""
        plain = {"what": self.what, "step": self.step, "samples": self.samples}
        return json.dumps(plain).encode() + b"\n"

    def __str__(self) -> str:
        match self.what:
            case "start":
                return "before its first step"
            case "evaluation":
                return f"in the evaluation after step {self.step}"
        return f"in step {self.step}"

    def read(self) -> str:
        """Which samples the step reads, in words; "" where that is not known."""
        if not self.samples:
            return ""
        shown = groupby(self.samples[:MOST_NAMED], key=lambda key: key[0])
        words = "; ".join(f"{', '.join(str(sample) for _, sample in each)} of epoch {epoch}" for epoch, each in shown)
        more = f" and {len(self.samples) - MOST_NAMED} more" if len(self.samples) > MOST_NAMED else ""
        return f"{'sample' if len(self.samples) == 1 else 'samples'} {words}{more}"


@dataclass(frozen=True, kw_only=True)
class Crash:
    """One end that nobody wished for; `further` if that session had saved a further checkpoint."""

    code: int  # negative: the signal that killed it
    place: Activity
    further: bool


@dataclass(frozen=True, kw_only=True)
class Again:
    """Start it again after `wait_s`; this is restart `number` since the last further checkpoint."""

    number: int
    wait_s: float


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """Do not start it again, and why."""

    why: str


def after(crashes: Sequence[Crash], *, restarts: int, backoff_s: float) -> Again | GiveUp:
    """What to do after the last of these crashes.

    A further checkpoint begins the count of restarts, and the waiting, anew: the training gets on. It does not make
    up for a step at which it always fails.
    """
    last = crashes[-1]
    here = sum((crash.place.what, crash.place.step) == (last.place.what, last.place.step) for crash in crashes)
    if here >= AT_ONE_PLACE:
        return GiveUp(why=f"it failed {here} times {last.place}")
    fruitless = next((n for n, crash in enumerate(reversed(crashes), 1) if crash.further), len(crashes))
    if fruitless > restarts:
        return GiveUp(why=f"it was started again {counted(restarts, 'time')} without a further checkpoint")
    return Again(number=fruitless, wait_s=min(backoff_s * 2 ** (fruitless - 1), LONGEST_WAIT_S))


def in_words(code: int) -> str:
    """How a process ended: `was killed by signal 11 (SIGSEGV), a fault in native code`."""
    if code >= 0:
        return f"ended with exit code {code}, for the reason printed above"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"was killed by signal {-code}"
    return f"was killed by signal {-code} ({name}){GUESSES.get(name, '')}"


def exit_code(code: int) -> int:
    """The code to pass on, as shells report a signal."""
    return 128 - code if code < 0 else code
