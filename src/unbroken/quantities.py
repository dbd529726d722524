"""Durations, sizes and counts as people write and read them: one reader of each, and one spelling.

A number alone is refused: `--session 12` would be twelve seconds to one reader and twelve hours to another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from unbroken.errors import UsageError

Quantity = TypeVar("Quantity", int, float)
LONGEST_S = 1e10  # 300 years: a date beyond it could not be written
LARGEST_BYTES = float(1 << 63)
LONGEST_TEXT = 40
DURATIONS = "12h, 90m, 1h30m, 2d or 12:00:00"
SIZES = "20GB, 500MB or 1.5GiB"
UNITS = ("B", "KB", "MB", "GB", "TB")

_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_WITH_UNITS = re.compile(r"\s*".join(rf"(?:{_NUMBER}\s*{unit}(?![a-z]))?" for unit in _UNITS_S), re.ASCII)
_CLOCK = re.compile(r"(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)", re.ASCII)
_SLURM = re.compile(r"(\d+)-([01]?\d|2[0-3])(?::([0-5]\d))?(?::([0-5]\d))?", re.ASCII)  # days-hours[:minutes[:seconds]]
_SIZE = re.compile(rf"{_NUMBER}\s*(?:([kmgtp])(i?))?b", re.ASCII)


class BadQuantity(ValueError):
    """Text that is no duration or no size; `expected` and `found` are words for a message."""

    def __init__(self, expected: str, found: object) -> None:
        shown = repr(found)
        self.expected = expected
        self.found = shown if len(shown) <= LONGEST_TEXT else f"{shown[:LONGEST_TEXT]}..."
        super().__init__(f"expected {expected}, found {self.found}")


def duration_s(text: str) -> float:
    """`12h`, `1h30m`, `2d`, `500ms`, `12:00:00` or, as Slurm has it, `1-12` and `1-12:00:00`, in seconds; 0 is 0."""
    said = text.strip().lower()
    if said == "0":
        return 0.0
    if (found := _CLOCK.fullmatch(said)) is not None:
        hours, minutes, seconds = map(float, found.groups())
        total_s = hours * 3_600 + minutes * 60 + seconds
    elif (found := _SLURM.fullmatch(said)) is not None:
        days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
        total_s = days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    elif said and (found := _WITH_UNITS.fullmatch(said)) is not None:
        total_s = sum(float(part or 0) * unit_s for part, unit_s in zip(found.groups(), _UNITS_S.values()))
    else:
        raise BadQuantity(_with_unit(f"a time like {DURATIONS}", said, *("s", "m", "h")), text)
    if total_s > LONGEST_S:
        raise BadQuantity("a time of less than 300 years", text)
    return total_s


def size_bytes(text: str) -> int:
    """`20GB`, `500MB`, `1.5GiB` (of 1024) or `100B`, in bytes; at least one."""
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise BadQuantity(_with_unit(f"a size like {SIZES}", text.strip(), *("B", "MB", "GB")), text)
    size = float(found[1]) * (1024 if found[3] else 1000) ** " kmgtp".index(found[2] or " ")
    if not 1 <= size < LARGEST_BYTES:
        raise BadQuantity(f"a size like {SIZES}", text)
    return int(size)


def asked(where: object, read: Callable[[str], Quantity], text: object) -> Quantity:
    """What somebody wrote at a place, as the quantity that is meant; UsageError where it is none."""
    try:
        if not isinstance(text, str):
            raise BadQuantity("text with a unit", text)
        return read(text)
    except BadQuantity as error:
        what = f"this is no {'size' if read is size_bytes else 'time'}"
        raise UsageError(where, what, expected=error.expected, found=error.found) from None


def _with_unit(expected: str, said: str, *units: str) -> str:
    """The same, and where a number stands alone, what it could have meant."""
    number = re.fullmatch(r"\d+(?:\.\d+)?", said, re.ASCII)
    if number is None or len(said) > LONGEST_TEXT:
        return expected
    *first, last = (f"{said}{unit}" for unit in units)
    return f"{expected}, with its unit ({', '.join(first)} or {last})"


# -- written ---------------------------------------------------------------------------------------------------------


def size_text(size_bytes: float) -> str:
    """Return a size as it is shown everywhere, in units of 1000.

    Args:
        size_bytes: In bytes.
    Example:
        >>> from unbroken import size_text
        >>> size_text(1_500_000)
        '1.5 MB'
    """
    for unit in UNITS[:-1]:
        if size_bytes < (1000 if unit == "B" else 999.95):  # what would be rounded to 1000.0 has the next unit
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} {UNITS[-1]}"


def duration_text(seconds: float) -> str:
    """`11 h 50 min`, `9 min`, `40 s`."""
    seconds = max(seconds, 0.0)
    if seconds < 120:
        return f"{seconds:.3g} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def clock_time(seconds: float) -> str:
    """Return a duration as a clock has it, with days when there are any.

    Args:
        seconds: In seconds.
    Example:
        >>> from unbroken.train import clock_time
        >>> clock_time(3723), clock_time(90_000)
        ('1:02:03', '1d 1:00:00')
    """
    days, rest = divmod(int(seconds), 86_400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}d {text}" if days else text


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Args:
        number: How many there are.
        noun: What one of them is called.
        plural: What several are called, where that is not the noun with an s.
    Example:
        >>> from unbroken import counted
        >>> counted(1, "step"), counted(3, "box", "boxes")
        ('1 step', '3 boxes')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def is_or_are(number: int) -> str:
    """The verb for a number of things."""
    return "is" if number == 1 else "are"


def some_of(words: Sequence[object], most: int) -> str:
    """Return the first few words of many.

    Args:
        words: All of them.
        most: How many are said; of the others, how many they are.
    Example:
        >>> from unbroken import some_of
        >>> some_of([3, 5, 8, 13], 3)
        '3, 5, 8 and 1 more'
    """
    more = len(words) - most
    return ", ".join(map(str, words[:most])) + (f" and {more} more" if more > 0 else "")


def all_of(words: Sequence[str]) -> str:
    """`loss, lr and epoch`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
