"""The centre head (CenterPoint, Yin et al., CVPR 2021): a heatmap per class and the codes of a box at its centre."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from focalsst.model.bev_map import BevMap
from focalsst.model.settings import HeadSettings

HEATMAP_BIAS = -2.19  # sigmoid 0.1: at first almost everything is background


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadMaps:
    """What the head says: `heatmap_BKYX` logits and `codes_B8YX`.

    Codes: offset of the centre in the cell (x, y), z in metres, log of dx, dy, dz, cosine and sine of the heading.
    """

    heatmap_BKYX: Tensor
    codes_B8YX: Tensor


class SeparateHead(nn.Module):
    """One small stack of convolutions for each branch: `center`, `center_z`, `dim`, `rot`, `hm`."""

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.center = _branch(settings, 2)
        self.center_z = _branch(settings, 1)
        self.dim = _branch(settings, 3)
        self.rot = _branch(settings, 2)
        self.hm = _branch(settings, len(settings.class_names))
        for branch in (self.center, self.center_z, self.dim, self.rot):
            branch.apply(_initialise)
        last = self.hm[-1]
        if isinstance(last, nn.Conv2d) and last.bias is not None:
            nn.init.constant_(last.bias, HEATMAP_BIAS)

    def forward(self, x_BCYX: Tensor, height_B1YX: Tensor) -> HeadMaps:
        """BCYX to maps of the same size."""
        z_B1YX = self.center_z(x_BCYX) + height_B1YX
        codes_B8YX = torch.cat((self.center(x_BCYX), z_B1YX, self.dim(x_BCYX), self.rot(x_BCYX)), dim=1)
        return HeadMaps(heatmap_BKYX=self.hm(x_BCYX), codes_B8YX=codes_B8YX)


class CenterHead(nn.Module):
    """A shared convolution, then one separate head for all classes."""

    def __init__(self, settings: HeadSettings, *, in_channels: int) -> None:
        super().__init__()
        self.shared_conv = _convolution(in_channels, settings.shared_channels, bias=settings.bias_before_norm)
        self.heads_list = nn.ModuleList([SeparateHead(settings)])

    def forward(self, x_BCYX: Tensor, bev: BevMap) -> HeadMaps:
        """BCYX, and the heights of the columns at the same size, to the maps."""
        maps: HeadMaps = self.heads_list[0](self.shared_conv(x_BCYX), bev.height_B1YX)
        return maps


def _convolution(in_channels: int, out_channels: int, *, bias: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _branch(settings: HeadSettings, out_channels: int) -> nn.Sequential:
    width = settings.shared_channels
    hidden = [_convolution(width, width, bias=settings.bias_before_norm) for _ in range(settings.branch_convs - 1)]
    return nn.Sequential(*hidden, nn.Conv2d(width, out_channels, kernel_size=3, padding=1))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
