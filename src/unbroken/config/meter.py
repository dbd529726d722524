"""A limit on the work and memory that reading a config may take: a hostile one is an error, not a hang."""

from __future__ import annotations

from typing import Any

WORK = 1_000_000  # values looked at; the largest real configs need a few thousand
DEPTH = 60  # nesting, of code and of values
LENGTH = 100_000  # items of one list, characters of one text
BITS = 1024  # of one integer
FILE_BYTES = 300_000  # a config of a real program, written out with all its defaults, has 50,000
ALL_BYTES = 2 * FILE_BYTES  # of a config with its bases: the syntax tree of a Python file takes 700 times as much
CHAIN = 50  # files that are based on one another
FILES = 200  # of a config with its bases, each counted as often as it is read


class TooMuch(ValueError):
    """The config asks for more work, memory or nesting than any real one."""


class Meter:
    """Counts down the work that is left; every value that comes into being is weighed."""

    def __init__(self, work: int = WORK) -> None:
        self.left = work
        self.depth = 0
        self._files = 0
        self._bytes = 0

    def open_file(self, size_bytes: int) -> None:
        """Count a file that is going to be read; one that is the base of several is read for each of them."""
        self._files += 1
        self._bytes += size_bytes
        if self._files > FILES or self._bytes > ALL_BYTES:
            raise TooMuch(f"the config is put together of more than {FILES} files or {ALL_BYTES:,} bytes")

    def spend(self, amount: int) -> None:
        """Take from the work that is left."""
        self.left -= amount
        if self.left < 0:
            raise TooMuch("this asks for far more work than any real config")

    def note_key(self, key: str) -> None:
        """Spend what it takes to remember where a key was written: each such note holds the whole path to it."""
        self.spend(4 + len(key) // 20)

    def weigh(self, value: Any) -> None:
        """Spend what a value would take if written out in full, shared parts counted each time they are seen.

        Also refuses what is not plain data, and values that contain themselves (they are infinitely deep).
        """
        waiting = [(value, 0)]
        while waiting:
            item, depth = waiting.pop()
            if depth > DEPTH:
                raise TooMuch(f"values are nested more than {DEPTH} deep, or contain themselves")
            inside = self._inside(item)
            self.spend(1 + len(inside))
            waiting.extend((below, depth + 1) for below in inside)

    def _inside(self, item: Any) -> list[Any]:
        if item is None or isinstance(item, bool | float):
            return []
        if isinstance(item, int):
            if item.bit_length() > BITS:
                raise TooMuch(f"a number has more than {BITS} bits")
            return []
        if not isinstance(item, str | list | tuple | dict):
            raise TypeError(f"a {type(item).__name__} is not plain data")
        if len(item) > LENGTH:
            raise TooMuch(f"a {type(item).__name__} is longer than {LENGTH}")
        if isinstance(item, str):
            self.spend(len(item) // 10)
            return []
        return [*item.keys(), *item.values()] if isinstance(item, dict) else list(item)


def plain_copy(value: Any) -> Any:
    """Copy a weighed value so that nothing in it is shared any more."""
    if isinstance(value, dict):
        return {name: plain_copy(below) for name, below in value.items()}
    if isinstance(value, list):
        return [plain_copy(below) for below in value]
    return tuple(map(plain_copy, value)) if isinstance(value, tuple) else value
