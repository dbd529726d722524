"""Backing a run up beside its training: in a thread of its own, after each save, and never in the training's way.

Whatever happens there (the disk is gone, full or refusing, or does not answer) is said once when it begins and once
when it is over, and tried again after the next save. At the end of a session the last backup is waited for, but not
for long: it can be finished by a command at any time.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from shlex import quote

from unbroken.errors import Refused, UnbrokenError
from unbroken.keep.backup import Backup, back_up
from unbroken.keep.destination import has_mirror, mirror_folder
from unbroken.run import OpenRun
from unbroken.train.stop import Deadline

LONGEST_END_S, HURRIED_END_S = 60.0, 5.0  # that the end of a session waits for the last backup; if it was killed
ENDING_S = 1.0  # left of a limited session behind that
SLOW_S = 300.0  # from then on it is said that a backup takes long
NICE = 10  # of its thread, where threads have that


class Backups:
    """The backups of one session; at most one is under way, and at most one waits."""

    def __init__(self, run: OpenRun, dest: Path, deadline: Deadline) -> None:
        self._run, self._dest, self._deadline = run, dest, deadline
        self._clock = run.files.clock
        self._changed = threading.Condition()
        self._wanted = self._closed = False
        self._asked = self._done = 0  # how many backups were asked for, and which of them the last one that ended was
        self._since_s: float | None = None  # when the one under way began
        self._trouble = ""
        self._damaged: set[str] = set()
        self._said: deque[str] = deque()
        self._was_there = has_mirror(run.directory, dest)
        self._thread: threading.Thread | None = None

    @property
    def command(self) -> str:
        """What brings the backup up to date at any time."""
        return f"unbroken backup {quote(str(self._run.directory))} {quote(str(self._dest))}"

    def begin(self) -> None:
        """Say where backups go; bring the backup up to date with what earlier sessions left."""
        try:
            self._said.append(f"each save is backed up to {mirror_folder(self._run.directory, self._dest)}")
        except UnbrokenError as error:
            self._failed(error)
        if self._run.store.newest_bytes:
            self.saved()

    def saved(self) -> None:
        """A save is done: let a backup begin, or wait for the one under way."""
        with self._changed:
            self._asked += 1
            self._wanted = True
            slow = self._since_s is not None and self._clock.monotonic_s() - self._since_s > SLOW_S
            self._changed.notify_all()
        if slow and self._since_s is not None:
            took_s = self._clock.monotonic_s() - self._since_s
            self._failed(Refused(self._dest, f"the backup that is under way has not ended in {took_s:.0f} s"))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="unbroken-backup", daemon=True)
            self._thread.start()

    def said(self) -> list[str]:
        """What there is to say since the last time."""
        lines: list[str] = []
        while self._said:
            lines.append(self._said.popleft())
        return lines

    def end(self, *, hurried: bool) -> list[str]:
        """Let a last backup be made and wait for it; what to say. Nothing is recorded by it afterwards."""
        if self._thread is None and not self._run.store.newest_bytes:
            return self.said()
        self.saved()
        longest_s = self._longest_s(hurried=hurried)
        arrived = self.wait(longest_s)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not arrived:
            self._said.append(f"warning: the last backup did not end in {longest_s:.0f} s, and is left")
        if not arrived or self._trouble:
            self._said.append(f"what is missing in the backup arrives with: {self.command}")
        return self.said()

    def wait(self, longest_s: float) -> bool:
        """Wait until every backup that was asked for has ended; whether that was so in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done == self._asked, timeout=longest_s)

    def _longest_s(self, *, hurried: bool) -> float:
        most_s, left_s = HURRIED_END_S if hurried else LONGEST_END_S, self._deadline.left_s
        return most_s if left_s is None else max(0.0, min(most_s, left_s - ENDING_S))

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with suppress(OSError, AttributeError):  # it takes what the training leaves; only Linux has threads so
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while self._next():
            asked = self._asked
            try:
                self._succeeded(self._back_up())
            except (UnbrokenError, OSError) as error:
                self._failed(error)
            with self._changed:
                self._done, self._since_s = asked, None
                self._changed.notify_all()

    def _next(self) -> bool:
        """Wait until a backup is wanted; False when none will be any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._closed)
            wanted, self._wanted = self._wanted and not self._closed, False
            self._since_s = self._clock.monotonic_s()
        return wanted

    def _back_up(self) -> Backup:
        """Nothing that was there and has gone is made anew: its disk may have been taken away."""
        run, dest = self._run.directory, self._dest
        if self._was_there and not has_mirror(run, dest):
            raise Refused(dest, "the backup that was here has gone: is the disk still mounted?")
        done = back_up(run, dest, disk=self._run.files.disk, clock=self._clock)
        self._was_there = True
        return done

    def _succeeded(self, done: Backup) -> None:
        if self._trouble:
            self._trouble = ""
            self._record("backup works again", step=done.step)
            self._said.append(f"the backup works again: {done.mirror} is at step {done.step}")
        for name in sorted(done.unsound.keys() - self._damaged):
            self._said.append(f"warning: {name} is not backed up: {done.unsound[name]}")
        self._damaged |= done.unsound.keys()

    def _failed(self, error: UnbrokenError | OSError) -> None:
        if self._trouble:
            return
        self._trouble = str(error)
        self._record("backup failed", error=self._trouble)
        self._said.append(
            f"warning: the backup failed: {self._trouble} The training goes on; it is tried again after each save"
        )

    def _record(self, event: str, **facts: object) -> None:
        with suppress(UnbrokenError), self._changed:  # whoever closes the journal says so under this lock
            if not self._closed:
                self._run.journal.write(event, to=str(self._dest), **facts)
