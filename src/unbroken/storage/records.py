"""Records that are one JSON file each, as typed values."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from unbroken.fields import BadField, typed
from unbroken.ids import LeadsOut
from unbroken.storage.ordinary import read_json

Record = TypeVar("Record")


def read_typed(path: str | os.PathLike[str], record: type[Record]) -> Record | None:
    """The record in a file; None where there is none, or where it does not hold what it should."""
    return readable(lambda: load_typed(path, record))


def load_typed(path: str | os.PathLike[str], record: type[Record]) -> Record:
    """The same; OSError where it cannot be read, ValueError (BadField for a field) where it is damaged."""
    return typed(record, read_json(path))


def readable(load: Callable[[], Record]) -> Record | None:
    """What was loaded; None where it cannot be read or is damaged."""
    return reading(load).value


@dataclass(frozen=True)
class Reading(Generic[Record]):
    """What came of reading a record: its value, or the error that says why there is none."""

    value: Record | None = None
    error: OSError | ValueError | None = None

    def require(self) -> Record:
        """The value; raises the error where there is none."""
        if self.error is not None:
            raise self.error
        return cast(Record, self.value)

    @property
    def absent(self) -> bool:
        """Whether there is no such file."""
        return isinstance(self.error, FileNotFoundError | NotADirectoryError)

    @property
    def fault(self) -> str:
        """Why the record cannot be used, in words; "" for one that can, and for one that is not there."""
        match self.error:
            case None | FileNotFoundError():
                return ""
            case BadField() | LeadsOut():
                return str(self.error)
            case OSError():
                return f"it cannot be read ({self.error.strerror or self.error})"
        return f"this is no record ({str(self.error)[:80]})"


def reading(load: Callable[[], Record]) -> Reading[Record]:
    """Load a record, whatever comes of it."""
    try:
        return Reading(value=load())
    except (OSError, ValueError) as error:
        return Reading(error=error)
