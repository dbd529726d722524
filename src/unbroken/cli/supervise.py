"""A small process beside the training, without torch: it starts a training that crashed again, through its resume.

The training is a child in a session of its own: a Ctrl-C of the terminal reaches it once, passed on from here, and it
goes on alone should this process be killed. What it is about to do, it notes in a file without a name that this
process gave it: the note is there also when a fault in native code ends it in the middle of a step.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any

from unbroken.cli import crashes
from unbroken.cli.crashes import Activity, Again, Crash, GiveUp
from unbroken.cli.entry import run_tool
from unbroken.cli.job import continuing, job_of, train_job
from unbroken.cli.signals import asking, ended_when_asked, held_back
from unbroken.clock import SystemClock
from unbroken.errors import STOPPED
from unbroken.journal import read_events
from unbroken.launch import Job
from unbroken.launch.host import process_age_s
from unbroken.launch.job import Restarted
from unbroken.launch.rerun import Aftermath, aftermath
from unbroken.run.layout import own

HAS_SIGNALS = os.name == "posix"
LOOKS_EVERY_S = 0.05


@dataclass
class Asked:
    """The signals that came, and the child they are passed on to."""

    numbers: list[int] = field(default_factory=list)
    child: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        """Listen; what `nohup` made this process ignore stays ignored."""
        for number in asking():
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self.numbers.append(number)
        if self.child is not None and HAS_SIGNALS:
            self.child.send_signal(number)


def supervise(recipe: str, arguments: Sequence[str], *, typed: Sequence[str], job: Job, began_s: float) -> int:
    """Train in a child, again and again while it crashes; returns the exit code of the last one."""
    asked = Asked()
    asked.install()
    front_door, words = list(typed[: len(typed) - len(arguments)]), list(arguments)
    so_far: list[Crash] = []
    restarted: Restarted | None = None
    accidents, previous = job.options.accidents, _left(job)
    while True:
        told = {"recipe": recipe, "arguments": words, "typed": [*front_door, *words], "path": sys.path}
        code, place = _child({**told, "began_s": began_s, "restarted": restarted and asdict(restarted)}, asked)
        if code in crashes.PASSED_ON or asked.numbers:
            return _stopped(code, asked)
        left = _left(job)
        so_far.append(Crash(code=code, place=place, further=_got_further(left, previous, first=len(so_far) == 0)))
        words = _once(words, left, began=left.session != previous.session)
        previous = left
        match crashes.after(so_far, restarts=accidents.restarts, backoff_s=accidents.backoff_s):
            case GiveUp(why=why):
                _say(_last_words(so_far[-1], why, left, shlex.join([*front_door, *words])))
                return crashes.exit_code(code)
            case Again() as again:
                restarted = _announce(so_far[-1], again, restarts=accidents.restarts)
                if not _wait(again.wait_s, asked):
                    return _stopped(code, asked)


def _announce(crash: Crash, again: Again, *, restarts: int) -> Restarted:
    """Say that it starts again, and why; returns what the next session writes down of it."""
    how = f"{crashes.in_words(crash.code)}, {crash.place}"
    number = f"restart {again.number} of {restarts} without a further checkpoint"
    _say(f"the training {how}; it starts again in {again.wait_s:g} s ({number})")
    why = f"the session before {how} ({number})"
    return Restarted(why=why, code=crash.code, number=again.number, what=crash.place.what, step=crash.place.step)


def _child(told: dict[str, Any], asked: Asked) -> tuple[int, Activity]:
    """Run the training once; returns how it ended and what it was doing."""
    with tempfile.TemporaryFile() as note:
        descriptor = note.fileno() if HAS_SIGNALS else None
        command = [sys.executable, "-m", "unbroken.cli.supervise", json.dumps({**told, "note": descriptor})]
        if HAS_SIGNALS:
            with held_back():
                child = subprocess.Popen(command, pass_fds=(note.fileno(),), start_new_session=True)
        else:
            child = subprocess.Popen(command)
        asked.child = child
        for number in asked.numbers if HAS_SIGNALS else ():  # those that came before there was a child
            child.send_signal(number)
        code = child.wait()
        asked.child = None
        note.seek(0)
        return code, Activity.from_note(note.read())


def _left(job: Job) -> Aftermath:
    return aftermath(read_events(own(job.directory) / "journal.jsonl"))


def _got_further(left: Aftermath, previous: Aftermath, *, first: bool) -> bool:
    return left.session != previous.session and left.saved and (first or left.saved_step > previous.saved_step)


def _once(words: list[str], left: Aftermath, *, began: bool) -> list[str]:
    """The command that goes on: starting over, and an old file once something was saved, are meant once."""
    if not began:
        return words
    return continuing(words) if left.saved else [word for word in words if word != "--fresh"]


def _wait(seconds: float, asked: Asked) -> bool:
    """Wait; False as soon as a signal asks to stop."""
    end_s = time.monotonic() + seconds
    while not asked.numbers and (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(LOOKS_EVERY_S, left_s))
    return not asked.numbers


def _stopped(code: int, asked: Asked) -> int:
    """The exit code of a training that was asked to stop, or that ended by itself."""
    if code in crashes.PASSED_ON:
        return code
    name = signal.Signals(asked.numbers[0]).name
    _say(f"stopped by {name}; what was saved is whole, run the same command again")
    return STOPPED


def _last_words(crash: Crash, why: str, left: Aftermath, command: str) -> str:
    read = crash.place.read()
    lines = [f"the training {crashes.in_words(crash.code)}, {crash.place}; it is not started again: {why}"]
    lines += [f"  step {crash.place.step} reads {read} (places in the training set, counted from 0)"] if read else []
    saved = f"the last checkpoint is of step {left.saved_step}" if left.saved_step else "nothing was saved yet"
    return "\n".join([*lines, f"  {saved}; to continue, run: {command}"])


def _say(words: str) -> None:
    print(f"unbroken: {words}", file=sys.stderr, flush=True)


# -- the child ---------------------------------------------------------------------------------------------------------


def child_command(arguments: Sequence[str]) -> int:
    """Train as the parent was told to, in `python -m unbroken.cli.supervise JSON`, which nobody types.

    What comes next is noted, so that the parent can name it after a crash.
    """
    with ended_when_asked():
        return _trained(json.loads(arguments[0]))


def _trained(told: dict[str, Any]) -> int:
    sys.path[:] = told["path"]
    faulthandler.enable(all_threads=False)  # a fault in native code shows where Python was
    recipe, words, typed, began_s = told["recipe"], told["arguments"], told["typed"], told["began_s"]
    own_s = SystemClock().monotonic_s() - process_age_s()
    job = job_of(recipe, words, typed, front_door=typed[: len(typed) - len(words)])
    if job.limit is None or job.limit.source != "--session":  # a limit of the host is read anew by each child
        began_s = own_s
    restarted = Restarted(**told["restarted"]) if told["restarted"] else None
    job = replace(job, environment=replace(job.environment, restarted=restarted))
    return train_job(job, began_s=began_s, coming=_noting(told["note"]))


def _noting(descriptor: int | None) -> Callable[[str, int, Callable[[], list[tuple[int, int]]]], None] | None:
    if descriptor is None:
        return None

    def note(what: str, step: int, samples: Callable[[], list[tuple[int, int]]]) -> None:
        place = Activity(what=what, step=step, samples=tuple(samples()))
        os.pwrite(descriptor, place.as_note(), 0)

    return note


if __name__ == "__main__":
    raise SystemExit(run_tool(child_command))
