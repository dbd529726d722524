"""Hiding modules from a training in a test: it looks at all that those of its script hold, and records their files."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import ModuleType

TESTS = os.path.dirname(__file__)
APPS = os.path.join(os.path.dirname(TESTS), "apps")


@contextmanager
def hidden(
    folder: str, *, named: str | tuple[str, ...] = "", but: Collection[str] = ()
) -> Iterator[dict[str, ModuleType]]:
    """No module below a folder whose name begins so is imported but these, as far as anybody can see."""
    found = [name for name in sys.modules if name.rpartition(".")[2].startswith(named) and name not in but]
    below = [name for name in found if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder)]
    gone = {name: sys.modules.pop(name) for name in below}
    try:
        yield gone
    finally:
        sys.modules.update(gone)
