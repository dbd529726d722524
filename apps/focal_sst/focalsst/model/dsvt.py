"""DSVT with one stage: blocks of set attention whose windows move from block to block."""

from __future__ import annotations

import math

from torch import Tensor, nn

from focalsst.model.geometry import Geometry
from focalsst.model.rows import RowNorm
from focalsst.model.set_attention import Block
from focalsst.model.settings import DsvtSettings
from focalsst.model.voxels import SparseVoxels
from focalsst.model.windows import Sets, Windows, find_windows, make_sets


class PositionEmbedding(nn.Module):
    """Place within a window, V3, to VC: linear, norm, ReLU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Linear(3, width), RowNorm(width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, place_V3: Tensor) -> Tensor:
        """V3 to VC."""
        out_VC: Tensor = self.position_embedding_head(place_V3)
        return out_VC


class InputLayer(nn.Module):
    """Holds the position embeddings, one for each layer of each block: `posembed_layers.<stage>.<block>.<layer>`."""

    def __init__(self, settings: DsvtSettings) -> None:
        super().__init__()
        embeddings = [
            nn.ModuleList(PositionEmbedding(settings.d_model) for _ in range(2)) for _ in range(settings.blocks)
        ]
        self.posembed_layers = nn.ModuleList([nn.ModuleList(embeddings)])

    def embed(self, block: int, layer: int, place_V3: Tensor) -> Tensor:
        """V3 to VC."""
        embedding = self.posembed_layers.get_submodule(f"0.{block}.{layer}")
        out_VC: Tensor = embedding(place_V3)
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
            positions = tuple(self.input_layer.embed(number, i, self._places(windows, number, i)) for i in range(2))
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

    def _places(self, windows: tuple[Windows, Windows], block: int, layer: int) -> Tensor:
        """Each voxel's place in its window, from the middle: cells, or -pi to pi.

        The original takes those of shift number `layer` (issue 50 of the DSVT repository); a block that attends within
        the windows of one shift needs the places of that shift.
        """
        chosen = windows[block % 2 if self.settings.paired_positions else layer]
        half_3 = chosen.inside_V3.new_tensor(chosen.size) / 2
        place_V3 = chosen.inside_V3 - half_3
        return place_V3 / half_3 * math.pi if self.settings.normalise_positions else place_V3
