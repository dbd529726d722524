"""Sample data: procedural aerial tiles in the layout and coding of EarthVQA, to train on without a download.

Every tile is a function of (split, index, seed) and its size alone, so any subset of them is reproducible.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mapsage.dataset.palette import EARTHVQA_CLASSES
from mapsage.scenery import draw_plan
from mapsage.surfaces import render
from unbroken import LeadsOut, is_ordinary, place, read_json
from unbroken.errors import UsageError

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]  # tiles that are done, tiles in all

VALUES: Final = ("no data", *EARTHVQA_CLASSES)  # names of the mask values 0..8
SETTINGS: Final = "settings.json"  # written first: whose directory this is
MANIFEST: Final = "manifest.json"  # written last: that it is complete
SMALLEST_PX: Final = 48
EDGES: Final = (2, 5)  # of every eight tiles those at the edge of the survey, with a strip of no data


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the pixels of a directory of sample data."""

    format: str = "mapsage sample data 1"
    train: int
    val: int
    size_px: int
    val_size_px: int
    seed: int

    def tiles(self) -> Iterator[tuple[str, int, int]]:
        """List (split, index, size in px) of every tile."""
        yield from (("Train", index, self.size_px) for index in range(self.train))
        yield from (("Val", index, self.val_size_px) for index in range(self.val))


def write_sample_data(
    directory: Path,
    *,
    train: int = 96,
    val: int = 24,
    size_px: int = 128,
    val_size_px: int = 192,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write `{Train,Val}/{images_png,masks_png}` and a manifest of class counts; return what was done.

    A repeated call with the same parameters writes nothing, and one after a kill writes the tiles again. A
    directory that holds anything else is refused (`UsageError`). The validation tiles are larger, so that
    sliding windows really slide.
    """
    settings = Settings(train=train, val=val, size_px=size_px, val_size_px=val_size_px, seed=seed)
    _require_sensible(settings)
    finished = _survey(directory, settings)
    if finished is not None:
        return _summary(directory, finished, written=0)
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / SETTINGS, asdict(settings))
    manifest = _write_tiles(directory, settings, progress)
    _write_json(directory / MANIFEST, manifest)
    return _summary(directory, manifest, written=train + val)


def draw_tile(split: str, index: int, seed: int, size_px: int) -> tuple[Pixels, Pixels]:
    """Draw one tile: image uint8 RGB HWC and mask uint8 HW with EarthVQA's values 0..8.

    Even indices are countryside and odd ones are town: two neighbours show every class.
    """
    key = hashlib.sha256(f"{split}/{index}/{seed}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(key, dtype="<u4"))
    plan = draw_plan(size_px, rng, urban=index % 2 == 1, strip=index % 8 in EDGES)
    return render(plan, rng), plan.label


def _require_sensible(settings: Settings) -> None:
    if settings.train < 1 or settings.val < 2:
        raise UsageError(
            "sample data",
            "too few tiles",
            expected="train of 1 or more, val of 2 or more so that every class is in it",
            found=f"train {settings.train}, val {settings.val}",
        )
    if min(settings.size_px, settings.val_size_px) < SMALLEST_PX:
        raise UsageError(
            "sample data",
            "the tiles are too small to hold roads and houses",
            expected=f"{SMALLEST_PX} px or more",
            found=f"{settings.size_px} and {settings.val_size_px}",
        )


def _survey(directory: Path, settings: Settings) -> dict[str, Any] | None:
    """Give the manifest if all is there already, None if there is something to write."""
    if not directory.exists():
        return None
    found = _read_json(directory / SETTINGS)
    if found is None and directory.is_dir() and all(entry.name == SETTINGS for entry in directory.iterdir()):
        return None  # empty, or killed while the settings were being written
    if found != asdict(settings):
        raise UsageError(
            directory,
            "the directory is in use",
            expected="an empty directory, or sample data of the same parameters",
            found=_describe(found, settings.format),
            do="Choose another directory.",
        )
    manifest = _read_json(directory / MANIFEST)
    return manifest if manifest is not None and _is_whole(directory, manifest) else None


def _has_size(path: Path, size_bytes: int) -> bool:
    return is_ordinary(path) and path.stat().st_size == size_bytes


def _is_whole(directory: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether every file of the manifest is there; one that lists something else is none."""
    try:
        return all(_has_size(place(directory, name), size_bytes) for name, size_bytes in manifest["files"].items())
    except (LeadsOut, KeyError, AttributeError):
        return False


def _describe(found: Mapping[str, Any] | None, format_name: str) -> str:
    if found is None or found.get("format") != format_name:
        return "other files"
    return "sample data of " + ", ".join(f"{key} {value}" for key, value in found.items() if key != "format")


def _write_tiles(directory: Path, settings: Settings, progress: Progress | None) -> dict[str, Any]:
    counts = {split: np.zeros(len(VALUES), np.int64) for split in ("Train", "Val")}
    files: dict[str, int] = {}
    tiles = list(settings.tiles())
    for done, (split, index, size_px) in enumerate(tiles, start=1):
        image, mask = draw_tile(split, index, settings.seed, size_px)
        counts[split] += np.bincount(mask.ravel(), minlength=len(VALUES))
        for kind, pixels in (("images_png", image), ("masks_png", mask)):
            name = f"{split}/{kind}/tile_{index:04d}.png"
            files[name] = _write_png(directory / name, pixels)
        if progress is not None:
            progress(done, len(tiles))
    return {
        "format": settings.format,
        "settings": asdict(settings),
        "splits": {split: _tell_counts(pixels) for split, pixels in counts.items()},
        "files": files,
    }


def _tell_counts(pixels: NDArray[np.int64]) -> dict[str, Any]:
    shares = pixels / max(int(pixels.sum()), 1)
    return {
        "pixels": {name: int(count) for name, count in zip(VALUES, pixels, strict=True)},
        "shares": {name: round(float(share), 4) for name, share in zip(VALUES, shares, strict=True)},
    }


def _summary(directory: Path, manifest: Mapping[str, Any], *, written: int) -> dict[str, Any]:
    settings = manifest["settings"]
    tiles = f"{settings['train']} training and {settings['val']} validation tiles"
    did = f"Wrote {tiles}" if written else f"Nothing to do: {tiles} of these parameters are already there"
    return {
        "directory": str(directory),
        "written": written,
        "message": f"{did} ({directory}).",
        "settings": settings,
        "splits": manifest["splits"],
    }


def _write_png(path: Path, pixels: Pixels) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path.stat().st_size


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        data = read_json(path)
    except (OSError, ValueError):  # a kill may have torn it
        return None
    return data if isinstance(data, dict) else None
