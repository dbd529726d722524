"""Sample data: procedural aerial tiles in the layout and coding of EarthVQA, to train on without a download.

Every tile is a function of (split, index, seed) and its size alone, so any subset of them is reproducible.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mapsage.dataset.palette import EARTHVQA_CLASSES
from mapsage.scenery import draw_plan, render
from unbroken import Disk, durable_folder, write_whole
from unbroken.demo import write_samples
from unbroken.errors import UsageError

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]  # tiles that are done, tiles in all

VALUES: Final = ("no data", *EARTHVQA_CLASSES)  # names of the mask values 0..8
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
    return write_samples(
        directory, asdict(settings), noun="tiles", write=lambda: _write_tiles(directory, settings, progress)
    )


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


def _write_tiles(
    directory: Path, settings: Settings, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, int]]:
    counts = {split: np.zeros(len(VALUES), np.int64) for split in ("Train", "Val")}
    files: dict[str, int] = {}
    tiles = list(settings.tiles())
    for done, (split, index, size_px) in enumerate(tiles, start=1):
        image, mask = draw_tile(split, index, settings.seed, size_px)
        counts[split] += np.bincount(mask.ravel(), minlength=len(VALUES))
        for kind, pixels in (("images_png", image), ("masks_png", mask)):
            name, buffer = f"{split}/{kind}/tile_{index:04d}.png", io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="PNG")
            durable_folder(Disk(), (directory / name).parent)
            files[name] = write_whole(Disk(), directory / name, buffer.getvalue())
        if progress is not None:
            progress(done, len(tiles))
    facts = {}
    for split, by_value in counts.items():
        shares = by_value / max(int(by_value.sum()), 1)
        facts[split] = {
            "pixels": {name: int(count) for name, count in zip(VALUES, by_value, strict=True)},
            "shares": {name: round(float(share), 4) for name, share in zip(VALUES, shares, strict=True)},
        }
    return facts, files
