"""The focal sparse encoder: two convolutions, importance, dilation, one more convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from focalsst.model.dilation import OWN, join, proposed_cells
from focalsst.model.geometry import Geometry
from focalsst.model.importance import Importance
from focalsst.model.rows import RowNorm
from focalsst.model.settings import FocalSettings
from focalsst.model.submanifold import OFFSETS, Neighbours, SubmanifoldConv3d, find_neighbours
from focalsst.model.voxels import SparseVoxels


class ConvolutionBlock(nn.Module):
    """Submanifold convolution, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.conv = SubmanifoldConv3d(in_channels, out_channels)
        self.norm = RowNorm(out_channels, eps=eps, momentum=momentum)

    def forward(self, x_VC: Tensor, neighbours: Neighbours) -> Tensor:
        """VC to VD."""
        return F.relu(self.norm(self.conv(x_VC, neighbours)))


class FocalSparseEncoder(nn.Module):
    """Voxels to more voxels: mixed with their neighbours and dilated around what looks like an object."""

    def __init__(
        self,
        settings: FocalSettings,
        geometry: Geometry,
        *,
        in_channels: int,
        out_channels: int,
        eps: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.grid_zyx = geometry.grid_zyx
        first, second = settings.channels
        self.conv1 = ConvolutionBlock(in_channels, first, eps=eps, momentum=momentum)
        self.conv2 = ConvolutionBlock(first, second, eps=eps, momentum=momentum)
        self.importance = SubmanifoldConv3d(second, len(OFFSETS))
        self.conv3 = ConvolutionBlock(second, out_channels, eps=eps, momentum=momentum)

    def forward(self, voxels: SparseVoxels) -> tuple[SparseVoxels, Importance]:
        """V voxels to V + N voxels, and the importance of the V."""
        neighbours = find_neighbours(voxels.cells_V4, self.grid_zyx)
        x_VC = self.conv2(self.conv1(voxels.features_VC, neighbours), neighbours)
        importance = Importance(logits_VK=self.importance(x_VC, neighbours), cells_V4=voxels.cells_V4)
        dilated = self._dilate(_with_features(voxels, self._let_gradient_through(x_VC, importance)), importance)
        mixed_WC = self.conv3(dilated.features_VC, find_neighbours(dilated.cells_V4, self.grid_zyx))
        return _with_features(dilated, mixed_WC), importance

    def _let_gradient_through(self, x_VC: Tensor, importance: Importance) -> Tensor:
        """Multiply important rows by 1 with the derivative of the sigmoid, so that the choice can be learned."""
        if not self.settings.straight_through:
            return x_VC
        score_V1 = torch.sigmoid(importance.logits_VK[:, OWN:])
        one_V1 = 1 + (score_V1 - score_V1.detach())
        return x_VC * torch.where(score_V1 > self.settings.threshold, one_V1, 1.0)

    def _dilate(self, voxels: SparseVoxels, importance: Importance) -> SparseVoxels:
        cells_N4 = proposed_cells(
            voxels,
            importance.logits_VK,
            threshold=self.settings.threshold,
            max_growth=self.settings.max_growth,
            grid_zyx=self.grid_zyx,
        )
        return join(voxels, cells_N4, self.grid_zyx)


def _with_features(voxels: SparseVoxels, features_VC: Tensor) -> SparseVoxels:
    return SparseVoxels(features_VC=features_VC, cells_V4=voxels.cells_V4, batch_size=voxels.batch_size)
