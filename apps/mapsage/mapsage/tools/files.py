"""What the tools write: pictures that are whole or not there, and never in the place of another's."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mapsage.dataset.reading import MOST_BYTES, PNG_END
from mapsage.picture import png_bytes
from unbroken import Disk, NotOrdinary, durable_folder, read_whole, require_local, write_whole
from unbroken.errors import Refused


def require_empty(folder: Path, option: str) -> None:
    """Raise Refused where files that are there could be overwritten, UsageError for an address."""
    require_local(folder, is_folder=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(folder, "there is something already, and nothing is overwritten", do=f"Name another {option}.")


def write_picture(path: Path, picture: Image.Image, notes: Mapping[str, str] | None = None) -> None:
    """Write a PNG durably, with `notes` as its text."""
    durable_folder(Disk(), path.parent)
    write_whole(Disk(), path, png_bytes(picture, notes))


def note_in(path: Path, name: str) -> str | None:
    """A note in a PNG that is whole; "" where there is none in it, None where nothing has this name."""
    try:
        content = read_whole(path, most_bytes=MOST_BYTES)
        if PNG_END not in content[-16:]:
            return ""
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            return str(picture.info.get(name, ""))
    except FileNotFoundError:
        return None
    except (UnidentifiedImageError, Image.DecompressionBombError, NotOrdinary, SyntaxError, ValueError):
        return ""
