"""Windows and sets of DSVT (Wang et al., CVPR 2023): which voxels attend to each other, without any loop.

A window with n voxels is cut into S = ceil(n / K) sets of K slots; slot k of set j holds the voxel of rank
floor((j K + k) n / (S K)) in an ordering of the window. So every voxel is in exactly one set, and where n is no
multiple of K some fill several slots in a row, of which all but the first are masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from focalsst.model.geometry import Cells

Order = Literal["yxz", "xyz"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """`window_V`: the number of each voxel's window; `inside_V3`: its x, y, z in cells within it.

    `place_V` numbers the places of a window in the order of x, y, z: (x Y + y) Z + z.
    """

    window_V: Tensor
    inside_V3: Tensor
    size: Cells

    @property
    def place_V(self) -> Tensor:
        """The number of each voxel's place."""
        return _key(self, "xyz")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sets:
    """`voxel_TK`: who sits in each slot; `repeated_TK`: slots to ignore; `slot_V`: each voxel's own slot in T K."""

    voxel_TK: Tensor
    repeated_TK: Tensor
    slot_V: Tensor


def find_windows(cells_V4: Tensor, grid_xyz: Cells, *, size: Cells, shift: Cells) -> Windows:
    """Divide the grid, moved by `shift` cells, into windows of `size` (x, y, z); samples never share a window."""
    if size[2] == grid_xyz[2]:  # one window reaches from floor to ceiling: a shift would only cut it
        shift = (shift[0], shift[1], 0)
    moved_V3 = cells_V4[:, [3, 2, 1]] + cells_V4.new_tensor(shift)
    size_3 = cells_V4.new_tensor(size)
    at_V3 = torch.div(moved_V3, size_3, rounding_mode="floor")
    count_x, count_y, count_z = (-(-cells // window) + 1 for cells, window in zip(grid_xyz, size))
    window_V = ((cells_V4[:, 0] * count_x + at_V3[:, 0]) * count_y + at_V3[:, 1]) * count_z + at_V3[:, 2]
    return Windows(window_V=window_V, inside_V3=moved_V3 % size_3, size=size)


def make_sets(windows: Windows, *, set_size: int, order: Order) -> Sets:
    """Cut every window into sets of `set_size` slots along one of two orderings of its cells."""
    ranked_V = torch.argsort(windows.window_V * _volume(windows.size) + _key(windows, order))
    _, count_W = torch.unique_consecutive(windows.window_V[ranked_V], return_counts=True)
    sets_W = torch.div(count_W + set_size - 1, set_size, rounding_mode="floor")
    window_T = torch.repeat_interleave(torch.arange(len(count_W), device=count_W.device), sets_W)
    set_T = torch.arange(len(window_T), device=count_W.device) - (sets_W.cumsum(0) - sets_W)[window_T]
    slot_TK = set_T[:, None] * set_size + torch.arange(set_size, device=count_W.device)
    spread_T1 = (sets_W * set_size)[window_T][:, None]
    rank_TK = torch.div(slot_TK * count_W[window_T][:, None], spread_T1, rounding_mode="floor")
    voxel_TK = ranked_V[(count_W.cumsum(0) - count_W)[window_T][:, None] + rank_TK]
    repeated_TK = torch.zeros_like(rank_TK, dtype=torch.bool)
    repeated_TK[:, 1:] = rank_TK[:, 1:] == rank_TK[:, :-1]
    return Sets(voxel_TK=voxel_TK, repeated_TK=repeated_TK, slot_V=_own_slots(voxel_TK, repeated_TK))


def _key(windows: Windows, order: Order) -> Tensor:
    x_V, y_V, z_V = windows.inside_V3.unbind(1)
    match order:
        case "yxz":
            return (y_V * windows.size[0] + x_V) * windows.size[2] + z_V
        case "xyz":
            return (x_V * windows.size[1] + y_V) * windows.size[2] + z_V


def _volume(size: Cells) -> int:
    return size[0] * size[1] * size[2]


def _own_slots(voxel_TK: Tensor, repeated_TK: Tensor) -> Tensor:
    slots_V = (~repeated_TK).flatten().nonzero().squeeze(1)
    return torch.empty_like(slots_V).index_copy_(0, voxel_TK.flatten()[slots_V], slots_V)
