"""Where things lie on a picture: windows of a slide, padding, and the one way in which maps are resized.

Sizes are (height, width) in pixels. Padding is always right and bottom, so content starts at (0, 0).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from unbroken.errors import ConfigError

Size = tuple[int, int]


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
