"""Dilation: empty neighbours of important voxels join the grid, with features of zero."""

from __future__ import annotations

import torch
from torch import Tensor

from focalsst.model.geometry import Cells
from focalsst.model.rows import group_max
from focalsst.model.submanifold import CENTRE, OFFSETS
from focalsst.model.voxels import SparseVoxels, cells_of, keys_of, rank_within

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
