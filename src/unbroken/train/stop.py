"""Being asked to stop: a signal, a request or the time raises a flag that the loop reads between steps.

While the loop only waits (for a batch that may never come, before the first step) there is no next step to read it at:
there the wait itself is broken off, by an `Interrupted` that is raised in it.

Whoever asks hears at once what happens now, also while the main thread is inside a long backward pass: the system's own
signal handler wakes a thread that says it.

A `Deadline` is of a session that must be over at a certain time: what still fits, by how long such things took before.
A session of `unbroken prove` stops by itself after the last step that is compared, and is killed where told.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

from unbroken.clock import Clock
from unbroken.errors import STOPPED
from unbroken.launch.forecast import sessions_left
from unbroken.launch.host import Trial
from unbroken.launch.job import Limit
from unbroken.quantities import counted
from unbroken.storage.stop_request import ASKING

LOOK_EVERY_S = 1.0  # at a wait that lasts
PATIENCE_S = 30.0  # for the batch that ends a step in progress
What = Literal["step", "save", "evaluation"]
KINDS: tuple[What, ...] = ("step", "save", "evaluation")
REMEMBERED = 50
FEW = 5  # so few of a kind say little: one may well take longer than the longest of them
FEW_MARGIN, MARGIN = 1.5, 1.1
# Letting go of files and workers, and the end of the process: longer on a machine that was slow to begin.
ENDING_SHARE, ENDING_S, LONGEST_ENDING_S = 0.05, 0.5, 2.0
AT_ONCE = 0.3  # a smaller share of a step: between two of them
SWITCH_S = 1e-4
ENOUGH = "the end of what is to be proved"


class Exit(SystemExit):
    """The process should end now: a `SystemExit`, so that nothing after the loop runs by mistake.

    Args:
        code: The exit code: 75 for a run that was stopped with everything saved (docs/errors.md lists all).
        reason: Why, in words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code)
        self.reason = reason


class Interrupted(Exit):
    """A stop was asked for during a wait, which is broken off."""

    def __init__(self, reason: str) -> None:
        super().__init__(STOPPED, f"stopped by {reason}")


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Where a run is at this instant: `saved` is the step whose state is on disk, or is being written (`saving`)."""

    began: bool = False  # whether the run's folder was changed
    ended: bool = False  # whether the session is letting go of everything
    step: int = 0  # the last one that was finished
    saved: int = 0
    saving: bool = False
    in_step: bool = False
    waits: bool = False

    def first(self, name: str) -> str:
        """What a stop does now, and what a second Ctrl-C would."""
        if self.ended:
            return f"{name}: this session is ending already"
        if not self.began:
            return f"{name}: stopping; before the first step nothing is changed"
        if self.in_step:
            when = f"after this step ({self.step + 1})"
        elif self.waits:
            when = "now"
        else:
            when = f"as soon as what follows step {self.step} (a save, an evaluation) lets it"
        again = f"; Ctrl-C again ends at once and {self._loses}" if name == "SIGINT" else ""
        return f"{name}: stopping {when}, with everything saved{again}"

    def second(self) -> str:
        """What ending at once does."""
        if self.ended:
            return "SIGINT again: ending at once; what is saved was said"
        if not self.began:
            return "SIGINT again: ending at once; nothing was changed"
        return f"SIGINT again: ending at once; it {self._loses}"

    @property
    def _loses(self) -> str:
        lost = self.step - self.saved
        begun = "the step in progress" if self.in_step else ""
        since = f"{counted(lost, 'step')} since the last save (step {self.saved})" if lost > 0 else ""
        what = " and ".join(filter(None, (since, begun))) or f"nothing: step {self.step} is saved"
        return f"loses {what}" + (f" (the save of step {self.saved} is written to its end)" if self.saving else "")


class StopFlag:
    """Raised by a signal; a second Ctrl-C interrupts at once.

    From `install` to `begin` everything is a wait. `mid_step` says whether a step is in progress, whose end is then
    waited for, but its next batch no longer than `patience_s`; `outlook` says where the run is.
    """

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self.reason: str | None = None
        self.mid_step: Callable[[], bool] = lambda: False
        self.outlook: Callable[[], Outlook] = Outlook
        self.said: list[str] = []  # to whoever asked; for the log
        self.answers = True  # whether it is this process that answers, of several
        self._heard: set[int] = set()
        self._at_once = 0  # how often the end was asked for at once and has not come yet
        self._wakeup: tuple[int, int] | None = None  # the pipe's two ends
        self._announcer: threading.Thread | None = None
        self._before: dict[int, Any] = {}
        self._process, self._thread = os.getpid(), threading.get_ident()  # which listen
        self._wait = Wait(self)
        self._waits = 0  # how many there were, so that a long one is told from many short ones
        self._breakable = False
        self._out_of_patience = False
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None

    def install(self) -> None:
        """Listen, if this is the main thread (elsewhere Python allows no handlers)."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self._breakable = True
        for name in ASKING:
            number = getattr(signal, name, None)
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                continue  # nohup: the terminal's end is not ours
            self._before[number] = signal.signal(number, self._ask)
        LISTENING.append(self)
        self._listen_beside()

    def _listen_beside(self) -> None:
        """Start the thread that answers at once, unless somebody else (an event loop) is woken by signals here."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        others = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        if others != -1:
            signal.set_wakeup_fd(others)
            os.close(read)
            os.close(write)
            return
        self._wakeup = read, write
        self._announcer = threading.Thread(target=self._announce, args=(read,), name="unbroken-signals", daemon=True)
        self._announcer.start()

    def _announce(self, pipe: int) -> None:
        """In a thread: each byte is the number of a signal that came, 0 the end."""
        while (byte := os.read(pipe, 1)) not in (b"", b"\0"):
            self._answer(byte[0])

    def _answer(self, number: int) -> None:
        """Say what happens now; past Python's streams, in which the main thread may be at this instant."""
        name = signal.Signals(number).name if number in self._before else ""
        if not name or (number != signal.SIGINT and (self.reason or name) != name):
            return  # not for us, or sent by a thread of ours, whose reason is another
        first, now = number not in self._heard, self.outlook()
        self._heard.add(number)
        if not first and number != signal.SIGINT:
            return
        line = now.first(name) if first else now.second()
        self.said.append(line)
        with suppress(OSError):
            if self.answers:
                os.write(2, f"{chr(10) if os.isatty(2) else ''}{line}\n".encode())
        if not first:
            self._end_at_once()

    def _end_at_once(self) -> None:
        """Interrupt the main thread. It is told, for it does not count: two signals during a call are one to Python."""
        self.reason = "SIGINT"
        self._at_once += 1
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def begin(self) -> None:
        """From now on there is something to finish before the process ends."""
        self._breakable = False

    def watch(self, why: Callable[[], str | None]) -> None:
        """Ask `why` to stop now and then during a wait that lasts; needs the handlers to break it off."""
        if not self._before or not hasattr(signal, "pthread_kill"):
            return
        self._watcher = threading.Thread(target=self._watch, args=(why,), name="unbroken-stop", daemon=True)
        self._watcher.start()

    def uninstall(self) -> None:
        """Put the earlier handlers back."""
        self._ended.set()
        if self._watcher is not None:  # before the handlers go: what it sends would end the process
            self._watcher.join()
        if self._wakeup is not None and self._announcer is not None:
            signal.set_wakeup_fd(-1)
            os.write(self._wakeup[1], b"\0")
            self._announcer.join()
            for end in self._wakeup:
                os.close(end)
            self._wakeup = None
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if self in LISTENING:
            LISTENING.remove(self)

    def breakable(self) -> AbstractContextManager[None]:
        """A wait that a stop may break off, in the thread that listens; within another one it is part of that."""
        here = threading.get_ident() == self._thread and os.getpid() == self._process
        return self._wait if here and not self._breakable else ORDINARY

    def begin_wait(self) -> None:
        """From here on a stop may break it off."""
        self._waits += 1
        try:
            self._breakable = True
            if self.reason is not None:
                self._break()
        except BaseException:
            self._breakable = False
            raise

    def end_wait(self) -> None:
        """It is over."""
        self._breakable = False

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader worker in its first moments; only the trainer may act
            return
        if self._wakeup is None:
            self._answer(number)
        if self._at_once:
            self._at_once -= 1
            raise KeyboardInterrupt
        if self.reason is None or number == signal.SIGINT:
            self.reason = signal.Signals(number).name
        self._break()

    def _break(self) -> None:
        if self._breakable and (self._out_of_patience or not self.mid_step()):
            self._breakable = False
            raise Interrupted(self.reason or "")

    def _watch(self, why: Callable[[], str | None]) -> None:
        """In a thread: what no signal tells (a request, the time) is told to a wait that lasts, as a signal."""
        wait, looks = 0, 0
        while not self._ended.wait(LOOK_EVERY_S):
            if not self._breakable or self._waits != wait:
                wait, looks = self._waits, 0
                continue
            looks += 1
            if self.reason is None:
                self.reason, looks = why(), 0
            self._out_of_patience = self.reason is not None and looks * LOOK_EVERY_S >= self._patience_s
            if self.reason is not None:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


LISTENING: list[StopFlag] = []  # those with handlers: the last one has the signals
ORDINARY = nullcontext()


class Wait:
    """A wait as a block; there is one in each step, so it is no generator."""

    def __init__(self, flag: StopFlag) -> None:
        self._flag = flag

    def __enter__(self) -> None:
        self._flag.begin_wait()

    def __exit__(self, *_: object) -> None:
        self._flag.end_wait()


def interruptible() -> AbstractContextManager[None]:
    """A wait that a stop of the session that listens, if one does, may break off; elsewhere an ordinary one."""
    return LISTENING[-1].breakable() if LISTENING else ORDINARY


class Deadline:
    """The end of a session, its reserve before its time is up; without a limit it never comes.

    What `known` says (seconds, from the journal of earlier sessions) counts until there are enough of a kind in this
    one. The longest of the last 50 is what the next one may take, with a margin: a session that ends early loses a
    step, one that ends late may lose everything since its last save.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        limit: Limit | None,
        began_s: float | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        self._clock = clock
        self._began_s = clock.monotonic_s() if began_s is None else began_s
        self._limit = limit
        self._end_s = None if limit is None else self._began_s + limit.left_s - limit.reserve_s
        self._took: dict[What, deque[float]] = {}
        longest = (known or {}).get("longest_s")
        self._known = {
            kind: float(longest[kind])
            for kind in KINDS
            if isinstance(longest, Mapping) and isinstance(longest.get(kind), int | float)
        }
        self._trained_s, self._trained_steps = 0.0, 0
        self.start: Mapping[str, float] = {}  # seconds of each of its phases
        self._first_step_began_s: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether it ever comes."""
        return self._end_s is not None

    @property
    def left_s(self) -> float | None:
        """Seconds until this session has to be over; None without a limit."""
        return None if self._end_s is None else self._end_s - self._clock.monotonic_s()

    def took(self, what: What, seconds: float) -> None:
        """Learn how long something took."""
        if (took := self._took.get(what)) is None:
            took = self._took[what] = deque(maxlen=REMEMBERED)
        took.append(seconds)
        if what == "step":
            now_s = self._clock.monotonic_s()
            if self._first_step_began_s is None:
                self._first_step_began_s = now_s - seconds
            self._trained_steps += 1
            self._trained_s = now_s - self._first_step_began_s

    @contextmanager
    def timing(self, what: What) -> Iterator[None]:
        """Learn how long the block takes; one that is broken off takes at least as long as it took."""
        began_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            self.took(what, self._clock.monotonic_s() - began_s)

    def longest_s(self, what: What) -> float:
        """How long the next one of a kind may take; 0 if nothing is known of it."""
        seen = tuple(self._took.get(what, ()))
        if len(seen) >= FEW:
            return MARGIN * max(seen)
        return FEW_MARGIN * max((*seen, self._known.get(what, 0.0)), default=0.0)

    def fits(self, *what: What) -> bool:
        """Whether these can still be done, one after the other, if each takes its longest; unknown ones count 0."""
        left_s = self.left_s
        return left_s is None or sum(map(self.longest_s, what)) + self._ending_s <= left_s

    @property
    def _ending_s(self) -> float:
        return min(max(ENDING_SHARE * self._startup_s, ENDING_S), LONGEST_ENDING_S)

    @property
    def _startup_s(self) -> float:
        began_s = self._clock.monotonic_s() if self._first_step_began_s is None else self._first_step_began_s
        return began_s - self._began_s

    def what_is_left(self, step: int, total: int | None) -> str:
        """In words, how much of the training is left, and in a limited session how many more of them that takes."""
        if total is None or total <= step:
            return ""
        sessions = sessions_left(total - step, self.as_plain(), self._limit) if self._limit is not None else None
        more = f", {counted(sessions, 'more session')} of this length" if sessions else ""
        return f"; {counted(total - step, 'step')} of {total} are left{more}"

    def as_plain(self) -> dict[str, Any]:
        """What later sessions can learn from this one: the longest of each kind, and steps with all that is between."""
        longest = {kind: max((*self._took.get(kind, ()), 0.0)) or self._known.get(kind, 0.0) for kind in KINDS}
        return {
            "longest_s": {kind: seconds for kind, seconds in longest.items() if seconds},
            "steps": self._trained_steps,
            "seconds": self._trained_s,
            "startup_s": self._startup_s,
            "left_s": self.left_s,
            **({"start": self.start} if self.start else {}),
        }


@dataclass(kw_only=True)
class OnTrial:
    """The trial, and the folder of the run that is open in this session."""

    trial: Trial
    run: str
    strike: threading.Timer | None = None
    struck: bool = False

    def counted(self, step: int, step_s: float, *, stop: StopFlag, wait_for_saves: Callable[[], None]) -> None:
        """A step is done and recorded: ask to stop if it is the last one; be killed within the next."""
        trial = self.trial
        if self.strike is not None and self.strike.is_alive():
            # Its thread had no turn within the step. It gets none later either, when nobody listens to signals any
            # more: the kill comes here, unless there is no step left to come before.
            self.strike.cancel()
            self.strike.join()
            if step < trial.until:
                self._strike()
        if step >= trial.until:
            stop.reason = stop.reason or ENOUGH
        elif self.strike is None and trial.signal and trial.run == self.run and step >= trial.after:
            wait_for_saves()  # so that there is something to resume from; the next save may still be cut off
            self.strike = threading.Timer(trial.share * step_s, self._strike)
            self.strike.daemon = True
            if trial.share < AT_ONCE:
                self._strike()
            else:
                sys.setswitchinterval(SWITCH_S)  # else a quick loop is several steps on before the thread has its turn
                self.strike.start()

    def _strike(self) -> None:
        """Send the signal, if it was not sent before."""
        if not self.struck:
            self.struck = True
            os.kill(os.getpid(), signal.Signals[self.trial.signal])
