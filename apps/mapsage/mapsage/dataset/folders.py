"""Folders of aerial pictures with masks, in the layouts of EarthVQA and LoveDA."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mapsage.dataset.pipeline import Pipeline, Sample
from mapsage.dataset.reading import read_label
from mapsage.dataset.transforms import Tile
from unbroken import is_ordinary, require_local, some_of
from unbroken.errors import ConfigError, UsageError

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
SHOWN = 5  # of a long list, in an error
LEVELS_ABOVE = 3  # where a command may have been meant to be typed


class AerialFolder:
    """Pictures below `data_root/img_path`, with masks of the same relative names below `seg_map_path`.

    They are listed recursively by suffix and sorted by full path. `seg_map_path=None` means that there are
    no masks, as in a test set; with `gaps` some may be missing, and reading such a sample fails. The classes name
    the labels after `reduce_zero_label`.
    """

    def __init__(
        self,
        *,
        data_root: Path | str,
        img_path: str,
        seg_map_path: str | None,
        classes: Sequence[str],
        pipeline: Pipeline,
        img_suffix: str = ".png",
        seg_map_suffix: str = ".png",
        reduce_zero_label: bool = True,
        gaps: bool = False,
    ) -> None:
        self.classes = tuple(classes)
        self.pipeline = pipeline
        self.images = _existing(Path(data_root), img_path)
        self.masks = None if seg_map_path is None else _existing(Path(data_root), seg_map_path)
        self.names = _list_names(self.images, img_suffix)
        self._suffixes = img_suffix, seg_map_suffix
        self._read_label = partial(read_label, classes=self.classes, reduce_zero_label=reduce_zero_label)
        paths = (self._paths(name)[1] for name in self.names)
        lonely = [name for name, mask in zip(self.names, paths) if mask is not None and not is_ordinary(mask)]
        if lonely and not (gaps and len(lonely) < len(self.names)):
            # A mask may differ from what is looked for in upper and lower case alone.
            wanted = {f"{self.masks}/{name}{seg_map_suffix}".lower() for name in lonely}
            there = next((path for path in _files(self.masks) if path.lower() in wanted), "") if self.masks else ""
            raise UsageError(
                self.images,
                f"{len(lonely)} of {len(self.names)} pictures have no mask",
                expected=f"masks named *{seg_map_suffix} in {self.masks}",
                found=f"none for {some_of(lonely, SHOWN)}",
                do=f"Rename {there}: upper and lower case count, or set seg_map_suffix." if there else "",
            )

    def __len__(self) -> int:
        return len(self.names)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Load the picture at `index` with its mask and run the pipeline on both."""
        image, mask = self._paths(self.names[index])
        return self.pipeline.run(image, mask, rng, name=self.names[index], read_mask=self._read_label)

    def tile(self, index: int, rng: np.random.Generator) -> Tile:
        """The same before it becomes tensors."""
        return self.pipeline.tile(*self._paths(self.names[index]), rng, read_mask=self._read_label)

    def fingerprint(self) -> str:
        """Hash the relative names and byte sizes of pictures and masks (sha256, hex).

        Times and absolute paths stay out of it: both change when the same data is attached elsewhere.
        """
        digest = hashlib.sha256()
        for name in self.names:
            image, mask = self._paths(name)
            sizes = [path.stat().st_size if path is not None and path.is_file() else 0 for path in (image, mask)]
            digest.update(f"{name}\0{sizes[0]}\0{sizes[1]}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def left_out(self) -> str:
        """A sentence on pictures that are not samples, as their names end otherwise; empty where there are none."""
        suffix, masks = self._suffixes
        found = [path for path in _files(self.images) if path.lower().endswith(PICTURES) and not path.endswith(suffix)]
        if self.masks is not None and self.images in (self.masks, *self.masks.parents):
            found = [path for path in found if not path.endswith(masks)]
        if not found:
            return ""
        names = some_of([path[len(str(self.images)) + 1 :] for path in sorted(found)], SHOWN)
        what = f"{len(found)} of {len(found) + len(self.names)} pictures are left out, as img_suffix is {suffix!r}"
        return f"{self.images}: {what}: {names}"

    def looked_at(self, *indices: int) -> list[str]:
        """The folders that were listed, and the files of these samples; none where a name is that of a link.

        What a link leads to may change without a sign of it in its folder.
        """
        found = [str(path) for index in indices for path in self._paths(self.names[index]) if path is not None]
        for where, _, files in (each for top in (self.images, self.masks) if top for each in _walk(top)):
            if any(os.path.islink(f"{where}/{file}") for file in files):  # noqa: PTH114 - a name each
                return []
            found.append(where)
        return found

    def _paths(self, name: str) -> tuple[Path, Path | None]:
        image_suffix, mask_suffix = self._suffixes
        mask = None if self.masks is None else self.masks / f"{name}{mask_suffix}"
        return self.images / f"{name}{image_suffix}", mask


class Concatenation:
    """Several folders one after the other, as one; LoveDA's Rural and Urban for example."""

    def __init__(self, folders: Sequence[AerialFolder]) -> None:
        self.folders = tuple(folders)
        if not self.folders:
            raise ConfigError("data", "there is no folder to join", expected="at least one")
        self.classes = self.folders[0].classes
        for folder in self.folders:
            if folder.classes != self.classes:
                raise ConfigError(
                    "data", "joined folders name other classes", expected=self.classes, found=folder.classes
                )
        self.names = tuple(name for folder in self.folders for name in folder.names)

    def __len__(self) -> int:
        return len(self.names)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Load one sample of the folder that `index` falls into."""
        folder, place = self._place_of(index)
        return folder.sample(place, rng)

    def tile(self, index: int, rng: np.random.Generator) -> Tile:
        """The same before it becomes tensors."""
        folder, place = self._place_of(index)
        return folder.tile(place, rng)

    def _place_of(self, index: int) -> tuple[AerialFolder, int]:
        position = range(len(self))[index]  # as a list would read it: negative from the end, IndexError outside
        for folder in self.folders:
            if position < len(folder):
                break
            position -= len(folder)
        return folder, position

    def fingerprint(self) -> str:
        """Hash the fingerprints of the folders, in order."""
        return hashlib.sha256("\n".join(folder.fingerprint() for folder in self.folders).encode()).hexdigest()


Folder = AerialFolder | Concatenation  # samples in a fixed order: of one folder, or of several joined


def _existing(root: Path, below: str) -> Path:
    folder = root / below
    if folder.is_dir():
        return folder
    require_local(folder, is_folder=True)
    above = () if root.is_absolute() else Path.cwd().parents[:LEVELS_ABOVE]
    if meant := next((each for each in above if (each / folder).is_dir()), None):
        do = f"Type the command in {meant}, or set data_root to {meant / root}."
        raise UsageError(folder, "this folder does not exist", found=f"it in {meant}", do=do)
    nearest = next((parent for parent in folder.parents if parent.is_dir()), Path())
    nearby = sorted(entry.name for entry in nearest.iterdir() if entry.is_dir())
    raise UsageError(
        folder,
        "this folder does not exist",
        found=f"in {nearest}: {some_of(nearby, SHOWN) if nearby else 'no folders'}",
        do="Correct data_root or data_prefix in the config."
        + ("" if root.is_dir() else f" To try things out on made-up tiles: unbroken data aerial {root}"),
    )


def unreadable(error: OSError) -> None:
    """For `os.walk`, which else leaves out what one may not enter: a smaller data set, and nobody would know.

    `lost+found` is the file system's own, at the top of a disk.
    """
    if Path(str(error.filename)).name != "lost+found":
        raise error


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    return os.walk(folder, followlinks=True, onerror=unreadable)


def _files(folder: Path) -> Iterator[str]:
    for where, _, files in _walk(folder):
        yield from (f"{where}/{file}" for file in files if not file.startswith("."))


def _list_names(folder: Path, suffix: str) -> tuple[str, ...]:
    paths = sorted(path for path in _files(folder) if path.endswith(suffix))
    if not paths:
        endings = sorted({path.suffix for path in folder.rglob("*") if is_ordinary(path)})
        raise UsageError(
            folder,
            "there are no pictures here",
            expected=f"files named *{suffix}",
            found=f"files ending in {some_of(endings, SHOWN)}" if endings else "no files",
            do="Correct img_path or img_suffix in the config.",
        )
    start = len(str(folder)) + 1
    return tuple(path[start : -len(suffix)].replace(os.sep, "/") for path in paths)
