"""The focal sparse encoder: two convolutions, importance, dilation, one more convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from focalsst.model.dilation import OWN, join, proposed_cells
from focalsst.model.geometry import Geometry
from focalsst.model.importance import Importance
from focalsst.model.rows import RowNorm
from focalsst.model.settings import FocalSettings
from focalsst.model.submanifold import OFFSETS, Neighbours, SubmanifoldConv3d, find_neighbours
from focalsst.model.voxels import SparseVoxels


class SparseLayers(nn.ModuleList):
    """Layers one after the other on the same voxels: the convolutions among them are told the neighbours."""

    def forward(self, x_VC: Tensor, neighbours: Neighbours) -> Tensor:
        """VC to VD."""
        for layer in self:
            x_VC = layer(x_VC, neighbours) if isinstance(layer, SubmanifoldConv3d) else layer(x_VC)
        return x_VC


class FocalSparseEncoder(nn.Module):
    """Voxels to more voxels: mixed with their neighbours and dilated around what looks like an object.

    Its layers have the original's names.
    """

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

        def block(inside: int, outside: int) -> list[nn.Module]:
            return [SubmanifoldConv3d(inside, outside), RowNorm(outside, eps=eps, momentum=momentum), nn.ReLU()]

        self.conv_input = SparseLayers([*block(in_channels, first), *block(first, second)])
        self.conv_imp = SubmanifoldConv3d(second, len(OFFSETS))
        self.conv_focal = SparseLayers(block(second, out_channels))

    def forward(self, voxels: SparseVoxels) -> tuple[SparseVoxels, Importance]:
        """V voxels to V + N voxels, and the importance of the V."""
        neighbours = find_neighbours(voxels.cells_V4, self.grid_zyx)
        x_VC = self.conv_input(voxels.features_VC, neighbours)
        importance = Importance(logits_VK=self.conv_imp(x_VC, neighbours), cells_V4=voxels.cells_V4)
        dilated = self._dilate(_with_features(voxels, self._let_gradient_through(x_VC, importance)), importance)
        mixed_WC = self.conv_focal(dilated.features_VC, find_neighbours(dilated.cells_V4, self.grid_zyx))
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
            edge_cells=self.settings.edge_cells,
        )
        return join(voxels, cells_N4, self.grid_zyx)


def _with_features(voxels: SparseVoxels, features_VC: Tensor) -> SparseVoxels:
    return SparseVoxels(features_VC=features_VC, cells_V4=voxels.cells_V4, batch_size=voxels.batch_size)
