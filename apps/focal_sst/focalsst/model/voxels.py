"""Points to voxels: who lies in which cell, without ever laying out a padded table of points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from focalsst.model.geometry import Cells, Geometry
from focalsst.model.settings import VoxelSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class PointGroups:
    """The points that are kept, ordered by voxel, and the voxels that they fill.

    `points_PF` starts with x, y, z in metres; `voxel_P` names each point's row in `cells_V4`.
    """

    points_PF: Tensor
    voxel_P: Tensor
    cells_V4: Tensor
    batch_size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseVoxels:
    """A feature row for each voxel; `cells_V4` are sample, z, y, x, sorted and without repetition."""

    features_VC: Tensor
    cells_V4: Tensor
    batch_size: int


def keys_of(cells_N4: Tensor, grid_zyx: Cells) -> Tensor:
    """One whole number per cell, ((b Z + z) Y + y) X + x: its order is the order of the cells."""
    depth, height, width = grid_zyx
    sample, z, y, x = cells_N4.unbind(1)
    return ((sample * depth + z) * height + y) * width + x


def cells_of(keys_N: Tensor, grid_zyx: Cells) -> Tensor:
    """The inverse of `keys_of`."""
    depth, height, width = grid_zyx
    rows = torch.div(keys_N, width, rounding_mode="floor")
    layers = torch.div(rows, height, rounding_mode="floor")
    samples = torch.div(layers, depth, rounding_mode="floor")
    return torch.stack((samples, layers % depth, rows % height, keys_N % width), dim=1)


def rank_within(group_N: Tensor, groups: int) -> Tensor:
    """The place of each row within its group, from 0; the groups 0..groups-1 come sorted."""
    count_G = torch.bincount(group_N, minlength=groups)
    start_G = count_G.cumsum(0) - count_G
    return torch.arange(len(group_N), device=group_N.device) - start_G[group_N]


def centres_of(cells_N4: Tensor, geometry: Geometry) -> Tensor:
    """The middle of each cell: x, y, z in metres."""
    size_3 = torch.tensor(geometry.voxel_size, device=cells_N4.device)
    lower_3 = torch.tensor(geometry.lower_m, device=cells_N4.device)
    return (cells_N4[:, [3, 2, 1]] + 0.5) * size_3 + lower_3


def group_points(
    points_PF: Tensor, sample_P: Tensor, *, batch_size: int, geometry: Geometry, caps: VoxelSettings
) -> PointGroups:
    """Find each point's voxel; points outside the range, or beyond the caps, are left out.

    Of a crowded voxel the first points stay, of a crowded sample the voxels that `caps.overflow` says. Samples do not
    influence each other.
    """
    cells_P4, inside_P = _cells_of_points(points_PF, sample_P, geometry)
    kept_P = inside_P.nonzero().squeeze(1)
    keys_V, voxel_P, count_V = torch.unique(
        keys_of(cells_P4[kept_P], geometry.grid_zyx), return_inverse=True, return_counts=True
    )
    order_P = torch.argsort(voxel_P, stable=True)
    kept_P, voxel_P = kept_P[order_P], voxel_P[order_P]
    rank_P = rank_within(voxel_P, len(count_V))
    cells_V = keys_V % math.prod(geometry.grid_zyx)
    priority_V = _mixed(cells_V) if caps.overflow == "hash" else kept_P[rank_P == 0]
    samples_V = torch.div(keys_V - cells_V, math.prod(geometry.grid_zyx), rounding_mode="floor")
    stays_V = _under_the_cap(priority_V, samples_V, batch_size=batch_size, cap=caps.max_voxels)
    stays_P = (rank_P < caps.max_points_per_voxel) & stays_V[voxel_P]
    renumbered_V = stays_V.long().cumsum(0) - 1
    return PointGroups(
        points_PF=points_PF[kept_P[stays_P]],
        voxel_P=renumbered_V[voxel_P[stays_P]],
        cells_V4=cells_of(keys_V[stays_V], geometry.grid_zyx),
        batch_size=batch_size,
    )


def _cells_of_points(points_PF: Tensor, sample_P: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Cells P4 of all points, and which of them lie in the grid; a point that is no number lies nowhere."""
    lower_3 = torch.tensor(geometry.lower_m, device=points_PF.device)
    size_3 = torch.tensor(geometry.voxel_size, device=points_PF.device)
    grid_3 = torch.tensor(geometry.grid_xyz, device=points_PF.device)
    place_P3 = ((points_PF[:, :3].float() - lower_3) / size_3).floor()
    inside_P = ((place_P3 >= 0) & (place_P3 < grid_3)).all(dim=1)
    cells_P4 = torch.cat((sample_P.long()[:, None], place_P3.flip(1).nan_to_num().long()), dim=1)
    return cells_P4, inside_P


def _under_the_cap(priority_V: Tensor, sample_V: Tensor, *, batch_size: int, cap: int) -> Tensor:
    """Which voxels stay when a sample has more than `cap`: those with the smallest priority.

    The hash of their place spreads what is lost over space and is the same every time; the number of their first point,
    as in the original, takes what comes late.
    """
    by_priority_V = torch.argsort(priority_V, stable=True)
    order_V = by_priority_V[torch.argsort(sample_V[by_priority_V], stable=True)]
    stays_V = torch.zeros_like(sample_V, dtype=torch.bool)
    stays_V[order_V] = rank_within(sample_V[order_V], batch_size) < cap
    return stays_V


def _mixed(number_N: Tensor) -> Tensor:
    """Scatter 64-bit numbers over their range (the finaliser of MurmurHash3, with signed shifts)."""
    for factor in (-49064778989728563, -4265267296055464877):
        number_N = (number_N ^ (number_N >> 33)) * factor
    return number_N ^ (number_N >> 33)
