"""The preprocessor: a list of samples becomes one normalised batch, on the device of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from mapsage.dataset.palette import IGNORED
from mapsage.dataset.pipeline import Sample, require_trainable
from unbroken.errors import ConfigError
from unbroken.train import even_slices

Size = tuple[int, int]
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, in grey levels of 0..255
IMAGENET_STD = (58.395, 57.12, 57.375)


class Preprocessor(nn.Module):
    """BGR to RGB, (x - mean) / std, then padding at the right and the bottom.

    `mean` and `std` are RGB in grey levels, None for pictures that stay as they are; `size` is (height, width) in px of
    a training batch. The padding is 0 after normalisation, which is the mean colour, and 255 in the labels, which
    nothing counts.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        *,
        size: Size,
        mean: Sequence[float] | None = IMAGENET_MEAN,
        std: Sequence[float] | None = IMAGENET_STD,
        bgr_to_rgb: bool = True,
    ) -> None:
        super().__init__()
        self.bgr_to_rgb = bgr_to_rgb
        self.size: Size = (size[0], size[1])
        # Not persistent: they belong to the config, and checkpoints of mmseg have no such entries.
        self.register_buffer("mean", torch.tensor(mean or (0.0, 0.0, 0.0)).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std or (1.0, 1.0, 1.0)).view(-1, 1, 1), persistent=False)

    def forward(self, samples: Sequence[Sample], training: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Give images float32 NCHW and labels int64 NHW, or None where a sample has no label.

        Only training pads; otherwise the pictures of a batch must have one size.
        """
        pixels = (sample.image.to(self.mean.device) for sample in samples)
        ordered = (image_CHW.flip(0) if self.bgr_to_rgb else image_CHW for image_CHW in pixels)
        images = [(image_CHW.float() - self.mean) / self.std for image_CHW in ordered]
        labels = [sample.label.to(self.mean.device) for sample in samples if sample.label is not None]
        if training:
            for sample in samples:
                label_HW = None if sample.label is None else tuple(sample.label.shape)
                require_trainable(sample.name, tuple(sample.image.shape[-2:]), label_HW, batch_HW=self.size)
            images = [_pad(image, self.size, 0.0) for image in images]
            labels = [_pad(label, self.size, IGNORED) for label in labels]
        else:
            for which in ("image", "label"):
                tensors = [getattr(sample, which) for sample in samples]
                sizes = {tuple(tensor.shape[-2:]) for tensor in tensors if tensor is not None}
                if len(sizes) > 1:
                    what, do = f"the {which}s of this batch differ in size", "Evaluate with a batch size of 1."
                    raise ConfigError(samples[0].name, what, found=sorted(sizes), do=do)
        return torch.stack(images), torch.stack(labels) if len(labels) == len(samples) else None


def collate(samples: list[Sample]) -> list[Sample]:
    """Keep the samples of a batch as a list: they may differ in size until they are padded."""
    return samples


def split(samples: list[Sample], parts: int) -> list[list[Sample]]:
    """Divide a batch in its order into parts of nearly equal size."""
    return [samples[piece] for piece in even_slices(len(samples), parts)]


def _pad(pixels: torch.Tensor, size: Size, value: float) -> torch.Tensor:
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, size[1] - width, 0, size[0] - height), value=value)
