"""DSVT with one stage: blocks of set attention whose windows move from block to block."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from focalsst.model.geometry import Cells, Geometry
from focalsst.model.rows import RowNorm, normalise_counted
from focalsst.model.set_attention import Block
from focalsst.model.settings import DsvtSettings
from focalsst.model.voxels import SparseVoxels
from focalsst.model.windows import Sets, Windows, find_windows, make_sets


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
        sets = [self._sets_of(windows_of_shift) for windows_of_shift in windows]
        for number, (block, norm) in enumerate(zip(self.stage_0, self.residual_norm_stage_0)):
            positions = tuple(self._embedded(windows, number, i) for i in range(2))
            x_VC = norm(block(x_VC, positions, sets[number % 2]) + x_VC)
        return SparseVoxels(features_VC=x_VC, cells_V4=voxels.cells_V4, batch_size=voxels.batch_size)

    def windows_of(self, cells_V4: Tensor) -> tuple[Windows, Windows]:
        """The windows of the even and of the odd blocks."""
        x, y, z = (size * factor for size, factor in zip(self.settings.window, self.settings.hybrid_factor))
        return (
            find_windows(cells_V4, self.grid_xyz, size=self.settings.window, shift=(0, 0, 0)),
            find_windows(cells_V4, self.grid_xyz, size=(x, y, z), shift=self.settings.shift),
        )

    def _sets_of(self, windows: Windows) -> tuple[Sets, Sets]:
        set_size = self.settings.set_size
        return make_sets(windows, set_size=set_size, order="yxz"), make_sets(windows, set_size=set_size, order="xyz")

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
