"""The bird's-eye view: each column of the grid is a cell of a map, which 2-D convolutions of falling sizes read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from focalsst.model.focal_encoder import Importance
from focalsst.model.settings import BevSettings, Geometry
from focalsst.model.voxels import SparseVoxels, centres_of, group_max, group_sum


@dataclass(frozen=True, kw_only=True, eq=False)
class BevMap:
    """`features_BCYX`, and the height in metres to which center_z is added, `height_B1YX` or one 0 for all.

    `weights` says how much each voxel counted for the height of its column, where that was learned.
    """

    features_BCYX: Tensor
    height_B1YX: Tensor
    weights: Importance | None = None


class MaxToBev(nn.Module):
    """The largest value of each channel over z, 0 in empty columns; the height is 0, so that center_z is absolute."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry

    def forward(self, voxels: SparseVoxels) -> BevMap:
        """VC to BCYX."""
        features_BCYX = self.lay_out(group_max(voxels.features_VC, *self.columns(voxels)), voxels)
        return BevMap(features_BCYX=features_BCYX, height_B1YX=features_BCYX.new_zeros(1, 1, 1, 1))

    def columns(self, voxels: SparseVoxels) -> tuple[Tensor, int]:
        """The number (b Y + y) X + x of each voxel's column, and how many there are."""
        width, height, _ = self.geometry.grid_xyz
        sample_V, _, y_V, x_V = voxels.cells_V4.unbind(1)
        return (sample_V * height + y_V) * width + x_V, voxels.batch_size * height * width

    def lay_out(self, columns_NC: Tensor, voxels: SparseVoxels) -> Tensor:
        """NC to BCYX, N = B Y X."""
        width, height, _ = self.geometry.grid_xyz
        return columns_NC.view(voxels.batch_size, height, width, -1).permute(0, 3, 1, 2).contiguous()


class HeightAwareToBev(MaxToBev):
    """The same, with what a maximum forgets: the mean height of a column, weighed by learned weights.

    w = sigmoid(linear(x)) per voxel; (sum w z / sum w, log(1 + sum w)) enters the map through a 1x1 convolution. The
    height that center_z is added to is the weighed mean over `window` x `window` columns, the middle of the range where
    they are empty. A frame of beams has its echoes on its edges: the window has to reach them.
    """

    def __init__(self, geometry: Geometry, channels: int, *, window: int) -> None:
        super().__init__(geometry)
        self.window = window
        self.weigh = nn.Linear(channels, 1)
        self.mix = nn.Conv2d(2, channels, kernel_size=1)

    def forward(self, voxels: SparseVoxels) -> BevMap:
        """VC to BCYX."""
        logits_V1 = self.weigh(voxels.features_VC)
        weight_V1 = torch.sigmoid(logits_V1).float()
        sums_V2 = torch.cat((weight_V1 * self._height(voxels), weight_V1), dim=1)
        sums_B2YX = self.lay_out(group_sum(sums_V2, *self.columns(voxels)), voxels)
        mean_B1YX = _mean_height(sums_B2YX)
        hints_B2YX = torch.cat((mean_B1YX, sums_B2YX[:, 1:].log1p()), dim=1)
        around_B2YX = F.avg_pool2d(sums_B2YX, kernel_size=self.window, stride=1, padding=self.window // 2)
        features_BCYX = super().forward(voxels).features_BCYX + self.mix(hints_B2YX)
        return BevMap(
            features_BCYX=features_BCYX,
            height_B1YX=self._to_metres(_mean_height(around_B2YX)),
            weights=Importance(logits_VK=logits_V1, cells_V4=voxels.cells_V4),
        )

    def _height(self, voxels: SparseVoxels) -> Tensor:
        """V1, from -1 to 1 over the range: a scale that a convolution can start with."""
        low, high = self.geometry.lower_m[2], self.geometry.upper_m[2]
        return (2 * centres_of(voxels.cells_V4, self.geometry)[:, 2:] - low - high) / (high - low)

    def _to_metres(self, height: Tensor) -> Tensor:
        low, high = self.geometry.lower_m[2], self.geometry.upper_m[2]
        return (height * (high - low) + low + high) / 2


def _mean_height(sums_B2YX: Tensor) -> Tensor:
    """Sum of w z over sum of w; 0 where there is no weight."""
    return sums_B2YX[:, :1] / sums_B2YX[:, 1:].clamp(min=1e-6)


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
