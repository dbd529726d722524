"""Records that are one JSON file each, as typed values."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

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
    try:
        return load()
    except (OSError, ValueError):
        return None


def fault_of(load: Callable[[Path], object], path: Path) -> str:
    """Why the record in a file cannot be used, in words; "" for one that can, and for one that is not there."""
    try:
        load(path)
    except FileNotFoundError:
        return ""
    except (BadField, LeadsOut) as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    except ValueError as error:
        return f"this is no record ({str(error)[:80]})"
    return ""
