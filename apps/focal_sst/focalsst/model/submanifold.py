"""Submanifold 3-D convolution (Graham & van der Maaten, 2017): outputs only where there are inputs, by gathering."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from focalsst.model.geometry import Cells
from focalsst.model.voxels import keys_of

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
