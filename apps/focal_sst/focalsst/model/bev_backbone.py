"""The 2-D backbone: convolutions at falling sizes, brought back to one size and put side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from focalsst.model.settings import BevSettings


class BaseBEVBackbone(nn.Module):
    """BCYX to BDYX, D the sum of `upsample_filters`; Y and X fall by `settings.stride`."""

    def __init__(self, settings: BevSettings, *, in_channels: int, eps: float, momentum: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.deblocks = nn.ModuleList()
        widths = (in_channels, *settings.filters)
        for before, width, layers, stride in zip(widths, settings.filters, settings.layer_nums, settings.layer_strides):
            self.blocks.append(_block(before, width, layers=layers, stride=stride, eps=eps, momentum=momentum))
        for width, out, stride in zip(settings.filters, settings.upsample_filters, settings.upsample_strides):
            self.deblocks.append(
                nn.Sequential(
                    nn.ConvTranspose2d(width, out, kernel_size=stride, stride=stride, bias=False),
                    nn.BatchNorm2d(out, eps=eps, momentum=momentum),
                    nn.ReLU(),
                )
            )
        self.out_channels = sum(settings.upsample_filters)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """BCYX to BDYX."""
        levels = []
        for block, deblock in zip(self.blocks, self.deblocks):
            x_BCYX = block(x_BCYX)
            levels.append(deblock(x_BCYX))
        return torch.cat(levels, dim=1)


def _block(before: int, width: int, *, layers: int, stride: int, eps: float, momentum: float) -> nn.Sequential:
    """A strided convolution and `layers` more, each with norm and ReLU; the padding is a layer, as in the original."""
    parts: list[nn.Module] = [nn.ZeroPad2d(1)]
    for i in range(layers + 1):
        first = i == 0
        parts += [
            nn.Conv2d(
                before if first else width,
                width,
                kernel_size=3,
                stride=stride if first else 1,
                padding=0 if first else 1,
                bias=False,
            ),
            nn.BatchNorm2d(width, eps=eps, momentum=momentum),
            nn.ReLU(),
        ]
    return nn.Sequential(*parts)
