"""Points to voxels, arithmetic on rows of voxels, and convolution where voxels are.

Who lies in which cell is found without ever laying out a padded table of points. The convolution is the submanifold one
(Graham & van der Maaten, 2017): outputs only where there are inputs, by gathering.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from focalsst.model.settings import Cells, Geometry, VoxelSettings


def group_max(x_NC: Tensor, group_N: Tensor, groups: int) -> Tensor:
    """The largest value of each channel in each group, NC to GC; a group without rows is 0."""
    index_NC = group_N[:, None].expand(-1, x_NC.shape[1])
    return x_NC.new_zeros(groups, x_NC.shape[1]).scatter_reduce(0, index_NC, x_NC, "amax", include_self=False)


def group_sum(x_NC: Tensor, group_N: Tensor, groups: int) -> Tensor:
    """The sum of the rows of each group, NC to GC."""
    return x_NC.new_zeros(groups, x_NC.shape[1]).index_add(0, group_N, x_NC)


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation of rows NC; fewer than two rows have no variance and use the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        """NC to NC."""
        if len(input) > 1 or not self.training:
            return super().forward(input)
        mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        return F.batch_norm(input, mean, variance, self.weight, self.bias, training=False, eps=self.eps)


def normalise_counted(norm: nn.BatchNorm1d, x_UC: Tensor, count_U: Tensor) -> Tensor:
    """What `RowNorm` makes of rows of which row u is there `count_U[u]` times, each computed once: UC to UC."""
    x_UC, rows = x_UC.to(norm.weight.dtype), int(count_U.sum())
    running_mean, running_variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    if rows < 2 or not norm.training:
        mean_C, variance_C = running_mean, running_variance
    else:
        share_U1 = (count_U.to(x_UC.dtype) / rows)[:, None]
        mean_C = (share_U1 * x_UC).sum(dim=0)
        variance_C = (share_U1 * (x_UC - mean_C) ** 2).sum(dim=0)
        momentum = cast(float, norm.momentum)
        running_mean.lerp_(mean_C.detach(), momentum)
        running_variance.lerp_(variance_C.detach() * rows / (rows - 1), momentum)
        cast(Tensor, norm.num_batches_tracked).add_(1)
    return (x_UC - mean_C) * (norm.weight * torch.rsqrt(variance_C + norm.eps)) + norm.bias


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


# Lexicographic in dz, dy, dx: offset 13 is the centre, offset 26 - k the opposite of offset k.
OFFSETS = tuple((dz, dy, dx) for dz in (-1, 0, 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
CENTRE = 13


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """For each offset of the 3x3x3 kernel, the voxels `to[k]` that have a neighbour there, and it, `of[k]`.

    Within one offset every voxel occurs at most once on either side, so that adding rows never collides.
    """

    to: tuple[Tensor, ...]
    of: tuple[Tensor, ...]


def find_neighbours(cells_V4: Tensor, grid_zyx: Cells) -> Neighbours:
    """Look up all neighbours once; every convolution on the same voxels shares the answer."""
    depth, height, width = grid_zyx
    padded = (depth + 2, height + 2, width + 2)  # so that a step over the edge cannot land on the opposite side
    shift_4 = cells_V4.new_tensor((0, 1, 1, 1))
    keys_V = keys_of(cells_V4 + shift_4, padded)
    steps_K = keys_of(cells_V4.new_tensor([(0, *offset) for offset in OFFSETS[:CENTRE]]), padded)
    wanted_KV = keys_V + steps_K[:, None]
    found_KV = torch.searchsorted(keys_V, wanted_KV).clamp(max=max(len(keys_V) - 1, 0))
    offset_N, to_N = (keys_V[found_KV] == wanted_KV).nonzero().unbind(1)
    sizes = torch.bincount(offset_N, minlength=CENTRE).tolist()
    to = torch.split(to_N, sizes)
    of = torch.split(found_KV[offset_N, to_N], sizes)
    self_V = torch.arange(len(keys_V), device=keys_V.device)
    return Neighbours(to=(*to, self_V, *reversed(of)), of=(*of, self_V, *reversed(to)))


class _GatherConvolution(torch.autograd.Function):
    """sum over k of x[of[k]] W[k], added to rows to[k]; its backward is made of gathers too, and so repeats exactly."""

    @staticmethod
    def forward(ctx: Any, x_VC: Tensor, weight_KCD: Tensor, neighbours: Neighbours) -> Tensor:
        ctx.save_for_backward(x_VC, weight_KCD)
        ctx.neighbours = neighbours
        out_VD = x_VC.new_zeros(len(x_VC), weight_KCD.shape[2])
        for weight_CD, to, of in zip(weight_KCD, neighbours.to, neighbours.of):
            out_VD.index_add_(0, to, x_VC.index_select(0, of) @ weight_CD)
        return out_VD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_VD: Tensor) -> tuple[Tensor, Tensor, None]:
        x_VC, weight_KCD = ctx.saved_tensors
        grad_x_VC, grad_weight_KCD = torch.zeros_like(x_VC), torch.zeros_like(weight_KCD)
        for k, (to, of) in enumerate(zip(ctx.neighbours.to, ctx.neighbours.of)):
            grad_ND = grad_VD.index_select(0, to)
            grad_x_VC.index_add_(0, of, grad_ND @ weight_KCD[k].T)
            grad_weight_KCD[k] = x_VC.index_select(0, of).T @ grad_ND
        return grad_x_VC, grad_weight_KCD, None


class SubmanifoldConv3d(nn.Module):
    """3x3x3, stride 1, no bias; `weight` is laid out as spconv 2 does: out, kz, ky, kx, in."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, 3, 3, 3, in_channels))
        bound = 1 / math.sqrt(len(OFFSETS) * in_channels)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x_VC: Tensor, neighbours: Neighbours) -> Tensor:
        """VC to VD; in full precision also under autocast, whose formats index_add does not mix."""
        with torch.autocast(x_VC.device.type, enabled=False):
            weight_KCD = self.weight.flatten(1, 3).permute(1, 2, 0).contiguous()
            convolve = cast(Callable[[Tensor, Tensor, Neighbours], Tensor], _GatherConvolution.apply)
            return convolve(x_VC.to(weight_KCD.dtype), weight_KCD, neighbours)
