"""From a normalised image to a map of classes: in one piece, or window by window with averaged overlaps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mapsage.geometry import Size, crop_to_content, padding_to, resize_bilinear, slide_windows
from unbroken.train import evaluating

Mode = Literal["whole", "slide"]


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
