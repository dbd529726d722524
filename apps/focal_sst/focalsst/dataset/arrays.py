"""Archives of plain arrays (npz): written whole, and read without ever running a pickle."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbroken.errors import DamagedFile

Arrays = dict[str, NDArray[Any]]


def load_arrays(path: Path, names: Sequence[str], *, what: str, do: str) -> Arrays:
    """Read the arrays of these names; `what` and `do` are for the error."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise DamagedFile(path, f"{what} cannot be read", expected="a whole npz archive", do=do)
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as fault:
            raise DamagedFile(path, f"{what} cannot be read", found=fault, do=do) from fault
    if not set(names) <= set(arrays):
        found = ", ".join(arrays) or "none"
        raise DamagedFile(path, f"{what} hold other arrays", expected=", ".join(names), found=found, do=do)
    return {name: arrays[name] for name in names}


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays so that the same ones give the same bytes, and no reader sees half of them."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(path)
