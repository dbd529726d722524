"""The whole network: the backbone, then SegFormer's decode head.

The head brings all levels to one size and width, mixes them, and classifies each position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mapsage.model.mix_transformer import MixVisionTransformer
from mapsage.predict import resize_bilinear
from unbroken.errors import ConfigError


class ConvNormRelu(nn.Module):
    """1x1 convolution, batch normalisation, ReLU: the parameters `conv` and `bn`.

    The convolution has a bias where no normalisation follows it (`norm_requires_grad` None).
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm_requires_grad: bool | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=norm_requires_grad is None)
        self.bn = None if norm_requires_grad is None else nn.BatchNorm2d(out_channels)
        if self.bn is not None:
            # Frozen means scale and shift only: the running statistics follow the data all the same.
            self.bn.requires_grad_(bool(norm_requires_grad))
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """NCHW to NCHW of the same size."""
        mixed_NCHW = self.conv(x_NCHW)
        return F.relu(mixed_NCHW if self.bn is None else self.bn(mixed_NCHW))


class SegformerHead(nn.Module):
    """Feature maps to logits [N, num_classes, h, w] at the size of the finest map.

    `in_index` chooses the maps, `in_channels` are their widths, `channels` the common width.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_index: Sequence[int],
        channels: int,
        num_classes: int,
        dropout_ratio: float = 0.1,
        norm_requires_grad: bool | None = True,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if len(in_channels) != len(in_index):
            raise ConfigError(
                "model.decode_head",
                "in_channels and in_index name different numbers of maps",
                expected=f"{len(in_index)} widths",
                found=list(in_channels),
            )
        self.in_index = tuple(in_index)
        self.align_corners = align_corners
        # conv_seg first, though it is used last: this order numbers the parameters in optimizer states.
        self.conv_seg = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.convs = nn.ModuleList(
            ConvNormRelu(width, channels, norm_requires_grad=norm_requires_grad) for width in in_channels
        )
        self.fusion_conv = ConvNormRelu(channels * len(in_channels), channels, norm_requires_grad=norm_requires_grad)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        if self.conv_seg.bias is not None:
            nn.init.zeros_(self.conv_seg.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """A list of maps NCHW, finest first, to logits NKHW at the size of the finest chosen map."""
        chosen = [maps[i] for i in self.in_index]
        size_HW = (int(chosen[0].shape[2]), int(chosen[0].shape[3]))
        levels = [
            resize_bilinear(conv(map_NCHW), size_HW, align_corners=self.align_corners)
            for conv, map_NCHW in zip(self.convs, chosen)
        ]
        logits_NKHW: Tensor = self.conv_seg(self.dropout(self.fusion_conv(torch.cat(levels, dim=1))))
        return logits_NKHW


class EncoderDecoder(nn.Module):
    """Normalised RGB image NCHW to logits NKHW at 1/4 of its size; loss and prediction resize them."""

    def __init__(self, backbone: MixVisionTransformer, decode_head: SegformerHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """NCHW to logits NKHW."""
        logits_NKHW: Tensor = self.decode_head(self.backbone(image_NCHW))
        return logits_NKHW


def segmentor_name(name: str) -> str:
    """A tensor's name in the whole network; bare MiT files say `layers...` for `backbone.layers...`."""
    return f"backbone.{name}" if name.startswith("layers.") else name
