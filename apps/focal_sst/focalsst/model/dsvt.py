"""DSVT with one stage (Wang et al., CVPR 2023): attention within sets of voxels, in windows that move by block.

A window with n voxels is cut into S = ceil(n / K) sets of K slots; slot k of set j holds the voxel of rank
floor((j K + k) n / (S K)) in an ordering of the window. So every voxel is in exactly one set, and where n is no
multiple of K some fill several slots in a row, of which all but the first are masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from focalsst.model.settings import Cells, DsvtSettings, Geometry
from focalsst.model.voxels import RowNorm, SparseVoxels, normalise_counted

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
    ranked_V = torch.argsort(windows.window_V * math.prod(windows.size) + _key(windows, order))
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
    slots_V = (~repeated_TK).flatten().nonzero().squeeze(1)
    slot_V = torch.empty_like(slots_V).index_copy_(0, voxel_TK.flatten()[slots_V], slots_V)  # of each voxel, its own
    return Sets(voxel_TK=voxel_TK, repeated_TK=repeated_TK, slot_V=slot_V)


def _key(windows: Windows, order: Order) -> Tensor:
    x_V, y_V, z_V = windows.inside_V3.unbind(1)
    match order:
        case "yxz":
            return (y_V * windows.size[0] + x_V) * windows.size[2] + z_V
        case "xyz":
            return (x_V * windows.size[1] + y_V) * windows.size[2] + z_V


class SelfAttention(nn.Module):
    """Multi-head attention within sets; parameters are named as in `torch.nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x_VC: Tensor, position_VC: Tensor, sets: Sets) -> Tensor:
        """VC to VC. Positions enter queries and keys, not values.

        The projections come before the gathering: a voxel that fills two slots is projected once.
        """
        width = x_VC.shape[1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        query_key_V2C = F.linear(x_VC + position_VC, weight[: 2 * width], bias[: 2 * width])
        value_VC = F.linear(x_VC, weight[2 * width :], bias[2 * width :])
        query, key, value = (self._gather(part, sets) for part in (*query_key_V2C.chunk(2, dim=1), value_VC))
        mixed_THKD = F.scaled_dot_product_attention(query, key, value, attn_mask=~sets.repeated_TK[:, None, None, :])
        mixed_NC = mixed_THKD.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, sets.slot_V)
        out_VC: Tensor = self.out_proj(mixed_NC)
        return out_VC

    def _gather(self, x_VC: Tensor, sets: Sets) -> Tensor:
        """VC to THKD, D = C / H."""
        in_slots = x_VC.index_select(0, sets.voxel_TK.flatten())
        return in_slots.view(*sets.voxel_TK.shape, self.heads, x_VC.shape[1] // self.heads).transpose(1, 2)


class SetAttention(nn.Module):
    """Attention and feed-forward, each added to what came in and normalised after."""

    def __init__(self, settings: DsvtSettings) -> None:
        super().__init__()
        self.self_attn = SelfAttention(settings.d_model, settings.heads)
        self.linear1 = nn.Linear(settings.d_model, settings.feedforward)
        self.linear2 = nn.Linear(settings.feedforward, settings.d_model)
        self.norm1 = nn.LayerNorm(settings.d_model)
        self.norm2 = nn.LayerNorm(settings.d_model)

    def forward(self, x_VC: Tensor, position_VC: Tensor, sets: Sets) -> Tensor:
        """VC to VC."""
        x_VC = self.norm1(x_VC + self.self_attn(x_VC, position_VC, sets))
        out_VC: Tensor = self.norm2(x_VC + self.linear2(F.gelu(self.linear1(x_VC))))
        return out_VC


class EncoderLayer(nn.Module):
    """Set attention with one more residual and norm around it."""

    def __init__(self, settings: DsvtSettings) -> None:
        super().__init__()
        self.win_attn = SetAttention(settings)
        self.norm = nn.LayerNorm(settings.d_model)

    def forward(self, x_VC: Tensor, position_VC: Tensor, sets: Sets) -> Tensor:
        """VC to VC."""
        out_VC: Tensor = self.norm(self.win_attn(x_VC, position_VC, sets) + x_VC)
        return out_VC


class Block(nn.Module):
    """Two layers on the same windows, whose sets follow the two orderings."""

    def __init__(self, settings: DsvtSettings) -> None:
        super().__init__()
        self.encoder_list = nn.ModuleList(EncoderLayer(settings) for _ in range(2))

    def forward(self, x_VC: Tensor, positions: tuple[Tensor, Tensor], sets: tuple[Sets, Sets]) -> Tensor:
        """VC to VC."""
        for layer, position_VC, sets_of_layer in zip(self.encoder_list, positions, sets):
            x_VC = layer(x_VC, position_VC, sets_of_layer)
        return x_VC


class PositionEmbedding(nn.Module):
    """Place within a window to features: linear, norm, ReLU, linear.

    A window has few places and a batch many voxels, so each place is embedded once; the norm counts its voxels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Linear(3, width), RowNorm(width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, places_U3: Tensor, place_V: Tensor) -> Tensor:
        """All places U3, and the number of each voxel's place, to VC."""
        first, norm, relu, last = self.position_embedding_head
        count_U = torch.bincount(place_V, minlength=len(places_U3))
        out_UC: Tensor = last(relu(normalise_counted(cast(RowNorm, norm), first(places_U3), count_U)))
        return out_UC.index_select(0, place_V)


class InputLayer(nn.Module):
    """Holds the position embeddings, one for each layer of each block: `posembed_layers.<stage>.<block>.<layer>`."""

    def __init__(self, settings: DsvtSettings) -> None:
        super().__init__()
        embeddings = [
            nn.ModuleList(PositionEmbedding(settings.d_model) for _ in range(2)) for _ in range(settings.blocks)
        ]
        self.posembed_layers = nn.ModuleList([nn.ModuleList(embeddings)])

    def embed(self, block: int, layer: int, places_U3: Tensor, place_V: Tensor) -> Tensor:
        """Places U3 and V to VC."""
        embedding = self.posembed_layers.get_submodule(f"0.{block}.{layer}")
        out_VC: Tensor = embedding(places_U3, place_V)
        return out_VC


class DSVT(nn.Module):
    """Voxels VC to voxels VC; `geometry` and the windows decide who attends to whom."""

    def __init__(self, settings: DsvtSettings, geometry: Geometry) -> None:
        super().__init__()
        self.settings = settings
        self.grid_xyz = geometry.grid_xyz
        self.input_layer = InputLayer(settings)
        self.stage_0 = nn.ModuleList(Block(settings) for _ in range(settings.blocks))
        self.residual_norm_stage_0 = nn.ModuleList(nn.LayerNorm(settings.d_model) for _ in range(settings.blocks))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """VC to VC on the same cells."""
        x_VC = voxels.features_VC
        windows = self.windows_of(voxels.cells_V4)
        size = self.settings.set_size
        sets = [tuple(make_sets(each, set_size=size, order=order) for order in ("yxz", "xyz")) for each in windows]
        for number, (block, norm) in enumerate(zip(self.stage_0, self.residual_norm_stage_0)):
            positions = tuple(self._embedded(windows, number, i) for i in range(2))
            x_VC = norm(block(x_VC, positions, sets[number % 2]) + x_VC)
        return replace(voxels, features_VC=x_VC)

    def windows_of(self, cells_V4: Tensor) -> tuple[Windows, Windows]:
        """The windows of the even and of the odd blocks."""
        x, y, z = (size * factor for size, factor in zip(self.settings.window, self.settings.hybrid_factor))
        return (
            find_windows(cells_V4, self.grid_xyz, size=self.settings.window, shift=(0, 0, 0)),
            find_windows(cells_V4, self.grid_xyz, size=(x, y, z), shift=self.settings.shift),
        )

    def _embedded(self, windows: tuple[Windows, Windows], block: int, layer: int) -> Tensor:
        """The embedding of each voxel's place in its window.

        The original takes the places of shift number `layer` (issue 50 of the DSVT repository); a block that attends
        within the windows of one shift needs the places of that shift.
        """
        chosen = windows[block % 2 if self.settings.paired_positions else layer]
        places_U3 = self.places_of(chosen.size).to(chosen.place_V.device)
        return self.input_layer.embed(block, layer, places_U3, chosen.place_V)

    def places_of(self, size: Cells) -> Tensor:
        """All places in a window, numbered as in `Windows`, from the middle: cells, or -pi to pi."""
        inside_U3 = torch.cartesian_prod(*(torch.arange(cells) for cells in size))
        half_3 = torch.tensor(size) / 2
        place_U3 = inside_U3 - half_3
        return place_U3 / half_3 * math.pi if self.settings.normalise_positions else place_U3
