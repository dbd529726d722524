"""The focal sparse encoder: two convolutions, the importance of cells, dilation, one more convolution.

The *importance* says which cells belong to an object, and a focal loss teaches it. In the *dilation*, empty neighbours
of important voxels join the grid, with features of zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from focalsst.model.settings import Cells, FocalSettings, Geometry
from focalsst.model.voxels import (
    CENTRE,
    OFFSETS,
    Neighbours,
    RowNorm,
    SparseVoxels,
    SubmanifoldConv3d,
    cells_of,
    centres_of,
    find_neighbours,
    group_max,
    keys_of,
    rank_within,
)

NEIGHBOURS = tuple(offset for offset in OFFSETS if offset != OFFSETS[CENTRE])
OWN = len(NEIGHBOURS)  # the last of a voxel's 27 logits is about itself


def proposed_cells(
    voxels: SparseVoxels,
    logits_VK: Tensor,
    *,
    threshold: float,
    max_growth: float,
    grid_zyx: Cells,
    edge_cells: bool = True,
) -> Tensor:
    """The cells N4 to add: empty, in the grid, and asked for by an important voxel; sorted, each once.

    A voxel is important if the sigmoid of its own logit is above `threshold`; it asks for a neighbour whose
    logit reaches `threshold` too. Of a sample with n voxels the best `max_growth` n cells are taken, by the
    highest sigmoid that asked. Without `edge_cells` none of them is the first of an axis.
    """
    score_VK = torch.sigmoid(logits_VK.detach().float())
    asked_VK = (score_VK[:, OWN:] > threshold) & (score_VK[:, :OWN] >= threshold)
    voxel_N, offset_N = asked_VK.nonzero().unbind(1)
    steps_K4 = voxels.cells_V4.new_tensor([(0, *offset) for offset in NEIGHBOURS])
    cells_N4 = voxels.cells_V4[voxel_N] + steps_K4[offset_N]
    inside_N = ((cells_N4[:, 1:] >= (0 if edge_cells else 1)) & (cells_N4[:, 1:] < cells_N4.new_tensor(grid_zyx))).all(
        dim=1
    )
    empty_N = inside_N & ~torch.isin(keys_of(cells_N4, grid_zyx), keys_of(voxels.cells_V4, grid_zyx))
    keys_U, place_N = torch.unique(keys_of(cells_N4[empty_N], grid_zyx), return_inverse=True)
    score_N1 = score_VK[voxel_N[empty_N], offset_N[empty_N]][:, None]
    cells_U4 = cells_of(keys_U, grid_zyx)
    best_U = group_max(score_N1, place_N, len(keys_U))[:, 0]
    return cells_U4[_within_growth(cells_U4[:, 0], best_U, voxels, max_growth)]


def _within_growth(sample_U: Tensor, score_U: Tensor, voxels: SparseVoxels, max_growth: float) -> Tensor:
    """Which proposals are among the best of their sample; equal scores go by the order of cells."""
    count_B = torch.bincount(voxels.cells_V4[:, 0], minlength=voxels.batch_size)
    limit_B = (count_B.double() * max_growth).nan_to_num(0.0).floor()
    by_score_U = torch.argsort(score_U, descending=True, stable=True)
    order_U = by_score_U[torch.argsort(sample_U[by_score_U], stable=True)]
    taken_U = torch.zeros_like(sample_U, dtype=torch.bool)
    taken_U[order_U] = rank_within(sample_U[order_U], voxels.batch_size) < limit_B[sample_U[order_U]]
    return taken_U


def join(voxels: SparseVoxels, cells_N4: Tensor, grid_zyx: Cells) -> SparseVoxels:
    """The voxels and the new, empty ones in one sorted grid: V to V + N."""
    cells_W4 = torch.cat((voxels.cells_V4, cells_N4))
    order_W = torch.argsort(keys_of(cells_W4, grid_zyx))
    empty_NC = voxels.features_VC.new_zeros(len(cells_N4), voxels.features_VC.shape[1])
    features_WC = torch.cat((voxels.features_VC, empty_NC)).index_select(0, order_W)
    return SparseVoxels(features_VC=features_WC, cells_V4=cells_W4[order_W], batch_size=voxels.batch_size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Importance:
    """27 logits for each voxel before the dilation: 26 neighbours, then the voxel itself."""

    logits_VK: Tensor
    cells_V4: Tensor


def inside_boxes(places_VK3: Tensor, boxes_VM8: Tensor) -> Tensor:
    """Which places lie in any of their row's boxes, surface included: VK3, VM8 to VK. Rows of zeros are empty."""
    away_VKM3 = places_VK3[:, :, None, :] - boxes_VM8[:, None, :, :3]
    cos_V1M, sin_V1M = boxes_VM8[:, None, :, 6].cos(), boxes_VM8[:, None, :, 6].sin()
    along = away_VKM3[..., 0] * cos_V1M + away_VKM3[..., 1] * sin_V1M
    across = away_VKM3[..., 1] * cos_V1M - away_VKM3[..., 0] * sin_V1M
    local_VKM3 = torch.stack((along, across, away_VKM3[..., 2]), dim=-1)
    size_V1M3 = boxes_VM8[:, None, :, 3:6]
    inside_VKM = ((local_VKM3.abs() <= size_V1M3 / 2) & (size_V1M3 > 0)).all(dim=-1)
    return inside_VKM.any(dim=-1)


def importance_targets(cells_V4: Tensor, boxes_BM8: Tensor, geometry: Geometry) -> Tensor:
    """Whether the centres of the 26 neighbours and of the voxel itself lie in a box of its sample: VK, K = 27."""
    steps_K3 = torch.tensor((*NEIGHBOURS, OFFSETS[CENTRE]), device=cells_V4.device).flip(1)
    places_V3 = centres_of(cells_V4, geometry)
    size_3 = places_V3.new_tensor(geometry.voxel_size)
    return inside_boxes(places_V3[:, None, :] + steps_K3 * size_3, boxes_BM8.float()[cells_V4[:, 0]])


def focal_terms(logits_N: Tensor, target_N: Tensor, *, alpha_N: Tensor | float, gamma: float) -> Tensor:
    """-alpha (1 - p_t)^gamma log p_t of each logit (Lin et al., 2017), in float32."""
    signed_N = torch.where(target_N, logits_N, -logits_N).float()
    return -alpha_N * torch.sigmoid(-signed_N) ** gamma * F.logsigmoid(signed_N)


def importance_loss(importance: Importance, boxes_BM8: Tensor, geometry: Geometry, settings: FocalSettings) -> Tensor:
    """The focal loss of the importance, one number; 0 where there are no voxels."""
    target_VK = importance_targets(importance.cells_V4, boxes_BM8, geometry)
    logits_VK = importance.logits_VK
    if not settings.supervise_neighbours:
        target_VK, logits_VK = target_VK[:, -1:], logits_VK[:, -1:]
    if not settings.balanced:
        terms_VK = focal_terms(logits_VK, target_VK, alpha_N=settings.alpha, gamma=settings.gamma)
        return terms_VK.sum() / max(terms_VK.numel(), 1)
    alpha_VK = torch.where(target_VK, settings.alpha, 1 - settings.alpha)
    terms_VK = focal_terms(logits_VK, target_VK, alpha_N=alpha_VK, gamma=settings.gamma)
    return terms_VK.sum() / target_VK.sum().clamp(min=1)


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
        cells_N4 = proposed_cells(
            voxels,
            importance.logits_VK,
            threshold=self.settings.threshold,
            max_growth=self.settings.max_growth,
            grid_zyx=self.grid_zyx,
            edge_cells=self.settings.edge_cells,
        )
        x_VC = self._let_gradient_through(x_VC, importance)
        dilated = join(replace(voxels, features_VC=x_VC), cells_N4, self.grid_zyx)
        mixed_WC = self.conv_focal(dilated.features_VC, find_neighbours(dilated.cells_V4, self.grid_zyx))
        return replace(dilated, features_VC=mixed_WC), importance

    def _let_gradient_through(self, x_VC: Tensor, importance: Importance) -> Tensor:
        """Multiply important rows by 1 with the derivative of the sigmoid, so that the choice can be learned."""
        if not self.settings.straight_through:
            return x_VC
        score_V1 = torch.sigmoid(importance.logits_VK[:, OWN:])
        one_V1 = 1 + (score_V1 - score_V1.detach())
        return x_VC * torch.where(score_V1 > self.settings.threshold, one_V1, 1.0)
