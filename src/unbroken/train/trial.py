"""A session of `unbroken prove`: it stops by itself after the last step that is compared, and is killed where told."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from unbroken.launch.trial import Trial
from unbroken.train.stop import StopFlag

AT_ONCE = 0.3  # a smaller share of a step: between two of them
SWITCH_S = 1e-4
ENOUGH = "the end of what is to be proved"


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
