"""SDAVFE: the points of a voxel become one feature row, weighed by point and by channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from focalsst.model.settings import Geometry, VfeSettings
from focalsst.model.voxels import (
    PointGroups,
    RowNorm,
    SparseVoxels,
    centres_of,
    group_max,
    group_sum,
    normalise_counted,
)


class GatedPointLayer(nn.Module):
    """Linear, norm, ReLU to h; then h (1 + p c) with a gate p per point and a gate c per voxel and channel.

    The gates have the original's names, its point and its channel attention. The point's comes first, as in all of our
    checkpoints: an optimizer's state counts parameters in this order.
    """

    def __init__(self, in_channels: int, out_channels: int, *, gates: bool, eps: float, momentum: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = RowNorm(out_channels, eps=eps, momentum=momentum)
        self.gates = gates
        if gates:
            self.pa_fc = nn.Sequential(nn.Linear(out_channels, 1, bias=False), nn.Sigmoid())
            self.ca_fc = nn.Sequential(
                nn.Linear(out_channels, out_channels // 2, bias=False),
                nn.ReLU(),
                nn.Linear(out_channels // 2, out_channels, bias=False),
                nn.Sigmoid(),
            )

    def forward(self, x_PC: Tensor, voxel_P: Tensor, voxels: int, count_P: Tensor | None) -> Tensor:
        """PC to PC of the new width; row p stands for `count_P[p]` equal ones, or for itself."""
        h_PC = self.linear(x_PC)
        h_PC = F.relu(self.norm(h_PC) if count_P is None else normalise_counted(self.norm, h_PC, count_P))
        if not self.gates:
            return h_PC
        by_point_P1: Tensor = self.pa_fc(h_PC)
        by_channel_VC: Tensor = self.ca_fc(group_max(h_PC, voxel_P, voxels))
        return h_PC * (1 + by_point_P1 * by_channel_VC.index_select(0, voxel_P))


class SDAVFE(nn.Module):
    """Point groups to voxels: two gated layers, then the maximum over each voxel's points.

    A point enters with its own features, its offset from the mean of its voxel's points and from its centre. Only real
    points take part. The original has a table of `places` rows a voxel, and those without a point, zeros at first, are
    in the statistics of each norm and in each maximum: with `padded_rows` here too. They are equal within a voxel, so
    one row stands for all of them.
    """

    def __init__(
        self,
        settings: VfeSettings,
        geometry: Geometry,
        *,
        point_features: int,
        places: int,
        eps: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.places = places
        self.geometry = geometry
        width = point_features + 6 - (0 if settings.absolute_xyz else 3)
        layers = []
        for filters in settings.filters:
            layers.append(GatedPointLayer(width, filters, gates=settings.gates, eps=eps, momentum=momentum))
            width = filters
        self.pfn_layers = nn.ModuleList(layers)
        self.out_channels = width

    def forward(self, groups: PointGroups) -> SparseVoxels:
        """PF to VC."""
        voxels = len(groups.cells_V4)
        x_PC, voxel_P, count_P = self.describe(groups), groups.voxel_P, None
        if self.settings.padded_rows:
            x_PC, voxel_P, count_P = _with_padding(x_PC, voxel_P, voxels, self.places)
        for layer in self.pfn_layers:
            x_PC = layer(x_PC, voxel_P, voxels, count_P)
        features_VC = group_max(x_PC, voxel_P, voxels)
        return SparseVoxels(features_VC=features_VC, cells_V4=groups.cells_V4, batch_size=groups.batch_size)

    def describe(self, groups: PointGroups) -> Tensor:
        """What the first layer sees of each point: x, y, z, the other features, two offsets, or fewer of these."""
        xyz_P3, rest_PF = groups.points_PF[:, :3].float(), groups.points_PF[:, 3:].float()
        voxels = len(groups.cells_V4)
        count_V1 = torch.bincount(groups.voxel_P, minlength=voxels)[:, None]
        mean_V3 = group_sum(xyz_P3, groups.voxel_P, voxels) / count_V1
        from_mean_P3 = xyz_P3 - mean_V3.index_select(0, groups.voxel_P)
        from_centre_P3 = xyz_P3 - centres_of(groups.cells_V4, self.geometry).index_select(0, groups.voxel_P)
        if self.settings.normalise:
            xyz_P3, from_mean_P3, from_centre_P3 = self._as_fractions(xyz_P3, from_mean_P3, from_centre_P3)
        if self.settings.absolute_xyz:
            return torch.cat((xyz_P3, rest_PF, from_mean_P3, from_centre_P3), dim=1)
        if self.settings.gates:
            return torch.cat((rest_PF, from_mean_P3, from_centre_P3), dim=1)
        return torch.cat((xyz_P3, rest_PF, from_mean_P3), dim=1)  # SimpleVFE leaves the other three out

    def _as_fractions(self, xyz_P3: Tensor, from_mean_P3: Tensor, from_centre_P3: Tensor) -> tuple[Tensor, ...]:
        """Places from -1 to 1 over the range, offsets in voxels."""
        lower_3, upper_3 = xyz_P3.new_tensor(self.geometry.lower_m), xyz_P3.new_tensor(self.geometry.upper_m)
        size_3 = xyz_P3.new_tensor(self.geometry.voxel_size)
        scaled_P3 = (2 * xyz_P3 - lower_3 - upper_3) / (upper_3 - lower_3)
        return scaled_P3, from_mean_P3 / size_3, from_centre_P3 / size_3


def _with_padding(x_PC: Tensor, voxel_P: Tensor, voxels: int, places: int) -> tuple[Tensor, Tensor, Tensor]:
    """The rows, and one of zeros for each voxel with empty places; whose each is, for how many it stands."""
    empty_V = places - torch.bincount(voxel_P, minlength=voxels)
    padded_N = empty_V.nonzero().squeeze(1)
    rows_QC = torch.cat((x_PC, x_PC.new_zeros(len(padded_N), x_PC.shape[1])))
    count_Q = torch.cat((torch.ones_like(voxel_P), empty_V[padded_N]))
    return rows_QC, torch.cat((voxel_P, padded_N)), count_Q
