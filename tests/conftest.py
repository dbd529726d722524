"""What holds for every test: signals act as at a terminal.

A shell in the background lets its children ignore SIGINT, and nohup SIGHUP; a training respects that, as it should.
"""

from __future__ import annotations

import signal

AS_AT_A_TERMINAL = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}

for name, handler in AS_AT_A_TERMINAL.items():
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
