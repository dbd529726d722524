"""Clocks that tests hand in."""

from __future__ import annotations

from datetime import datetime, timedelta

from unbroken.clock import SystemClock


class Ahead(SystemClock):
    """A clock by which all that is on this disk was changed a minute ago, and more."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=1)
