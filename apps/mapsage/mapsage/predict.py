"""From a normalised image to a map of classes: in one piece, or window by window with averaged overlaps.

Sizes are (height, width) in pixels. Padding is always right and bottom, so content starts at (0, 0). There is one
way in which maps are resized.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unbroken.errors import ConfigError
from unbroken.train import evaluating

Size = tuple[int, int]
Mode = Literal["whole", "slide"]


class Window(NamedTuple):
    """A rectangle of pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


def slide_windows(size_HW: Size, *, crop_size: Size, stride: Size) -> list[Window]:
    """Windows of `crop_size` that cover the picture, row by row; the last of a row is pushed back inside.

    A picture smaller than the crop gives one smaller window.
    """
    rows = _spans(size_HW[0], crop=crop_size[0], stride=stride[0])
    columns = _spans(size_HW[1], crop=crop_size[1], stride=stride[1])
    return [Window(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _spans(length: int, *, crop: int, stride: int) -> list[tuple[int, int]]:
    """Start and end of each window along one axis."""
    if not 0 < stride <= crop:
        raise ConfigError(
            "model.test_cfg", "windows would leave gaps", expected=f"0 < stride <= crop {crop}", found=stride
        )
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(count)]
    return [(max(end - crop, 0), end) for end in ends]


def padding_to(size_HW: Size, target_HW: Size) -> tuple[int, int, int, int]:
    """Pixels to add (left, right, top, bottom) to reach at least `target_HW`.

    The order is that of `torch.nn.functional.pad`. Nothing is cut: a side that is already longer stays as it
    is.
    """
    return (0, max(target_HW[1] - size_HW[1], 0), 0, max(target_HW[0] - size_HW[0], 0))


def crop_to_content(map_NCHW: Tensor, content_HW: Size) -> Tensor:
    """Cut the padding off again: the top left part of size `content_HW`."""
    return map_NCHW[..., : content_HW[0], : content_HW[1]]


def resize_bilinear(map_NCHW: Tensor, size_HW: Size, *, align_corners: bool = False) -> Tensor:
    """Interpolate each channel to another size; the same size is returned as it is."""
    if tuple(map_NCHW.shape[-2:]) == tuple(size_HW):
        return map_NCHW
    return F.interpolate(map_NCHW, size=size_HW, mode="bilinear", align_corners=align_corners)


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    image_NCHW: Tensor,
    *,
    mode: Mode,
    crop_size: Size,
    stride: Size,
    num_classes: int,
    align_corners: bool = False,
) -> Tensor:
    """Logits NKHW at the size of the image.

    `crop_size` and `stride` matter to mode `slide` only, where a pixel under several windows gets the mean of
    their logits.
    """
    with evaluating(model):
        if mode == "whole":
            return _logits_of(model, image_NCHW, align_corners=align_corners)
        batch, _, height, width = image_NCHW.shape
        sum_NKHW = image_NCHW.new_zeros((batch, num_classes, height, width))
        count_11HW = image_NCHW.new_zeros((1, 1, height, width))
        for top, left, bottom, right in slide_windows((height, width), crop_size=crop_size, stride=stride):
            window_NCHW = image_NCHW[:, :, top:bottom, left:right]
            logits_NKHW = _logits_of(model, window_NCHW, align_corners=align_corners)
            sum_NKHW[:, :, top:bottom, left:right] += logits_NKHW
            count_11HW[:, :, top:bottom, left:right] += 1
        return sum_NKHW / count_11HW


def predict_labels(
    model: nn.Module,
    image_1CHW: Tensor,
    *,
    mode: Mode,
    crop_size: Size,
    stride: Size,
    num_classes: int,
    content_size: Size,
    original_size: Size,
    align_corners: bool = False,
    least_px: int = 1,
) -> Tensor:
    """The best class of each pixel, int64 HW, in the `original_size` that the picture had before resizing.

    `content_size` is the part of the input that is picture and not padding; pass the input's own size when
    unpadded. A side below `least_px`, which the network needs, is padded with the mean colour.
    """
    size_HW = (int(image_1CHW.shape[2]), int(image_1CHW.shape[3]))
    if min(size_HW) < least_px:
        image_1CHW = F.pad(image_1CHW, padding_to(size_HW, (least_px, least_px)))
    logits_1KHW = predict_logits(
        model,
        image_1CHW,
        mode=mode,
        crop_size=crop_size,
        stride=stride,
        num_classes=num_classes,
        align_corners=align_corners,
    )
    content_1KHW = crop_to_content(logits_1KHW, content_size)
    return resize_bilinear(content_1KHW, original_size, align_corners=align_corners).argmax(dim=1)[0]


def _logits_of(model: nn.Module, image_NCHW: Tensor, *, align_corners: bool) -> Tensor:
    """One forward pass, brought back from 1/4 to the size of the image."""
    size_HW = (int(image_NCHW.shape[2]), int(image_NCHW.shape[3]))
    return resize_bilinear(model(image_NCHW), size_HW, align_corners=align_corners)
