"""Names of runs, saves and sessions."""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime


def new_id() -> str:
    """A random name of 16 hex digits (64 bits: no two runs of a laboratory will ever share one)."""
    import secrets  # 10 ms that only a run's beginning and its saves pay for

    return secrets.token_hex(8)


def free_name(moment: datetime, taken: Container[str]) -> str:
    """`YYYYmmdd_HHMMSS`, with `_2`, `_3`... when a name of the same second is taken."""
    base = moment.strftime("%Y%m%d_%H%M%S")
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    return name
