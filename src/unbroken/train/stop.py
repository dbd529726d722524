"""Being asked to stop: SIGTERM, SIGINT and SIGUSR1 raise a flag that the loop reads between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

ASKING = ("SIGTERM", "SIGINT", "SIGUSR1")


class Exit(SystemExit):
    """The process should end now, with `code`; `reason` says why. Nothing after the loop runs by mistake."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code)
        self.reason = reason


class StopFlag:
    """Raised by a signal; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Listen, if this is the main thread (elsewhere Python allows no handlers)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ASKING:
            if hasattr(signal, name):
                number = getattr(signal, name)
                self._before[number] = signal.signal(number, self._ask)

    def uninstall(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason == "SIGINT":
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name
