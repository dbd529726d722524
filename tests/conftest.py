"""What holds for every test: signals act as at a terminal, and no test writes into the user's cache.

A shell in the background lets its children ignore SIGINT, and nohup SIGHUP; a training respects that, as it should.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

AS_AT_A_TERMINAL = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}

for name, handler in AS_AT_A_TERMINAL.items():
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before
