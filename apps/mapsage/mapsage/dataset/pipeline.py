"""The pipeline: the ordered steps that turn a picture and its mask on disk into a sample, and the shapes it may have.

The shapes at its end are asked for of each sample that is used, and of the first ones before anything begins: in
training others than where it is judged.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsage.dataset.reading import UPRIGHT, read_mask, read_oriented
from mapsage.dataset.transforms import (
    Pixels,
    Tile,
    photo_metric_distortion,
    random_crop,
    random_flip,
    random_resize,
    resize,
)
from unbroken.errors import ConfigError, DamagedFile

if TYPE_CHECKING:
    import torch


Shape = tuple[int, ...]  # height and width in px
Transform = Callable[..., Tile]
MaskReader = Callable[[Path], Pixels]
TRANSFORMS: dict[str, Transform] = {
    "Resize": resize,
    "RandomResize": random_resize,
    "RandomCrop": random_crop,
    "RandomFlip": random_flip,
    "PhotoMetricDistortion": photo_metric_distortion,
}
LOAD_IMAGE, LOAD_MASK, PACK = "LoadImageFromFile", "LoadAnnotations", "PackSegInputs"
ON_THEIR_SIDE = range(5, 9)  # the EXIF orientations in which height and width change places
ENDS = (LOAD_IMAGE, PACK)


def require_trainable(where: str, image_HW: Shape, label_HW: Shape | None, *, batch_HW: Shape) -> None:
    """Raise ConfigError unless a tile can be part of a training batch."""
    if image_HW[0] > batch_HW[0] or image_HW[1] > batch_HW[1]:
        raise ConfigError(
            where,
            "the picture is larger than a training batch",
            expected=f"at most {_px(batch_HW)}",
            found=_px(image_HW),
            do="Crop or resize in the training pipeline, or raise the size of the preprocessor.",
        )
    if label_HW is None:
        what = "there is no label to train on"
        raise ConfigError(where, what, do="Add LoadAnnotations to the training pipeline.")
    if label_HW != image_HW:
        raise ConfigError(
            where,
            "image and label differ in size",
            expected=_px(image_HW),
            found=_px(label_HW),
            do="In a training pipeline LoadAnnotations comes before any resize.",
        )


def require_comparable(where: str, label_HW: Shape | None, *, file_HW: Shape) -> None:
    """Raise ConfigError unless a tile has a label of the size that its prediction has: that of the file."""
    if label_HW is None:
        raise ConfigError(
            where, "there is no label to compare with", do="Add masks, and LoadAnnotations to the pipeline."
        )
    if label_HW != file_HW:
        raise ConfigError(
            where,
            "the mask is resized together with its picture, but a prediction has the size of the file",
            expected=_px(file_HW),
            found=_px(label_HW),
            do="In a validation pipeline LoadAnnotations comes after any resize.",
        )


def _px(shape: Shape) -> str:
    return f"{shape[0]}x{shape[1]} px (height x width)"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture as a loader hands it on: image uint8 CHW in BGR, label int64 HW or None without a mask.

    The label has the size of the image, or that of the file (`ori_shape`) if the mask was loaded after a
    resize.
    """

    image: torch.Tensor
    label: torch.Tensor | None
    name: str
    ori_shape: tuple[int, int]  # height and width of the file, in px
    flipped: bool = False


class Pipeline:
    """The steps, checked once and run for every sample with a generator of its own.

    A step is a mapping with `type` and the parameters of that transform. The first step is
    `LoadImageFromFile` and the last is `PackSegInputs`.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        self.steps = tuple(dict(step) for step in steps)
        for position, step in enumerate(self.steps):
            _check_step(position, step)
        kinds = [step["type"] for step in self.steps]
        if not kinds or (kinds[0], kinds[-1]) != ENDS or any(kinds.count(end) > 1 for end in ENDS):
            raise ConfigError(
                "pipeline",
                "it does not lead from a file to a sample",
                expected=f"{LOAD_IMAGE} first and {PACK} last, once each",
                found=", ".join(kinds) or "no steps",
            )

    def run(
        self,
        image_path: Path,
        mask_path: Path | None,
        rng: np.random.Generator,
        *,
        name: str | None = None,
        read_mask: MaskReader = read_mask,
    ) -> Sample:
        """Make one sample; every random draw comes from `rng`.

        Without a mask path `LoadAnnotations` does nothing, and the sample has no label. `read_mask` gives
        labels uint8 HW; a folder passes one that knows its classes.
        """
        tile = self.tile(image_path, mask_path, rng, read_mask=read_mask)
        return _pack(tile, image_path.stem if name is None else name)

    def tile(
        self, image_path: Path, mask_path: Path | None, rng: np.random.Generator, *, read_mask: MaskReader = read_mask
    ) -> Tile:
        """The same before it becomes tensors."""
        image, orientation = read_oriented(image_path)
        tile = Tile(image=image, ori_shape=(image.shape[0], image.shape[1]), orientation=orientation)
        for step in self.steps:
            match step:
                case {"type": "LoadImageFromFile" | "PackSegInputs"}:
                    continue
                case {"type": "LoadAnnotations"}:
                    tile = tile if mask_path is None else _load_mask(tile, mask_path, read_mask)
                case {"type": kind, **parameters}:
                    tile = TRANSFORMS[kind](tile, rng, **parameters)
        return tile


def _check_step(position: int, step: Mapping[str, Any]) -> None:
    where = f"pipeline[{position}]"
    kind, parameters = step.get("type"), {key: value for key, value in step.items() if key != "type"}
    known = {**dict.fromkeys((LOAD_IMAGE, LOAD_MASK, PACK), lambda _tile, _rng: _tile), **TRANSFORMS}
    if kind not in known:
        raise ConfigError(where, "this transform is not known", expected=f"one of {', '.join(known)}", found=repr(kind))
    try:
        inspect.signature(known[kind]).bind(None, None, **parameters)
    except TypeError as fault:
        raise ConfigError(f"{where} ({kind})", "its parameters do not fit", found=fault) from fault


def _load_mask(tile: Tile, path: Path, read: MaskReader) -> Tile:
    mask = read(path)
    upright = "Save both as they are to lie, without EXIF data: PIL.ImageOps.exif_transpose turns a picture."
    if mask.shape != tile.ori_shape:
        turned = tile.orientation != UPRIGHT
        what = f", which its EXIF orientation ({tile.orientation}) turns" if turned else ""
        raise DamagedFile(
            path,
            f"the mask and its picture differ in size{what}",
            expected="{}x{} px (height x width)".format(*tile.ori_shape),
            found="{}x{}".format(*mask.shape),
            do=upright if turned else "",
        )
    if tile.orientation != UPRIGHT and (tile.orientation not in ON_THEIR_SIDE or mask.shape[0] == mask.shape[1]):
        what = (
            f"its picture is turned by its EXIF orientation ({tile.orientation}), and nothing tells whether the mask is"
        )
        raise DamagedFile(path, what, do=upright)
    return replace(tile, mask=mask)


def _pack(tile: Tile, name: str) -> Sample:
    import torch  # here, so that pictures can be looked at without it

    image_CHW = tile.image.transpose(2, 0, 1).copy()
    label = None if tile.mask is None else torch.from_numpy(tile.mask.astype(np.int64))
    return Sample(
        image=torch.from_numpy(image_CHW), label=label, name=name, ori_shape=tile.ori_shape, flipped=tile.flipped
    )
