"""The grid that a detector works on and what it is built from: frozen values, by default the published ones, repaired.

Every repair of a fault of the original is a switch here; a config's AS_PUBLISHED turns all of them back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from unbroken.errors import ConfigError

Triple = tuple[float, float, float]
Cells = tuple[int, int, int]
WHERE = "model.geometry"
ROUNDING = 1e-4  # of a cell: 40 / 0.4 is 100.00000000000001


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The space that is looked at, in metres, and its division into voxels; everything else is derived from it.

    `point_cloud_range` is x, y, z of the lower and then of the upper corner.
    """

    point_cloud_range: tuple[float, float, float, float, float, float] = (0.0, -20.0, -20.0, 50.0, 20.0, 15.0)
    voxel_size: Triple = (0.25, 0.4, 0.35)

    def __post_init__(self) -> None:
        lengths = len(tuple(self.point_cloud_range)), len(tuple(self.voxel_size))
        if lengths != (6, 3):  # a config file can hold what the types exclude
            found = f"{self.point_cloud_range} and {self.voxel_size}"
            raise ConfigError(WHERE, "a range has six numbers and a voxel size has three", found=found)
        for axis, low, high, size in zip("xyz", self.lower_m, self.upper_m, self.voxel_size):
            _check_axis(axis, low, high, size)
        if self.grid_xyz[2] >= self.grid_xyz[0]:
            found = f"{self.grid_xyz[0]} along x, {self.grid_xyz[2]} along z"
            raise ConfigError(WHERE, "the grid is not flat", expected="fewer cells along z than along x", found=found)

    @property
    def lower_m(self) -> Triple:
        """Lower corner x, y, z."""
        return self.point_cloud_range[:3]

    @property
    def upper_m(self) -> Triple:
        """Upper corner x, y, z."""
        return self.point_cloud_range[3:]

    @property
    def grid_xyz(self) -> Cells:
        """Number of cells along x, y and z."""
        x, y, z = (round((high - low) / size) for low, high, size in zip(self.lower_m, self.upper_m, self.voxel_size))
        return x, y, z

    @property
    def grid_zyx(self) -> Cells:
        """Number of cells in the order of voxel coordinates."""
        x, y, z = self.grid_xyz
        return z, y, x


def _check_axis(axis: str, low: float, high: float, size: float) -> None:
    if size <= 0 or high <= low:
        found = f"{low} to {high} in voxels of {size}"
        raise ConfigError(WHERE, f"{axis} has no extent", expected="lower < upper and a voxel size > 0", found=found)
    cells = (high - low) / size
    if abs(cells - round(cells)) > ROUNDING:
        fitting = round(low + (int(cells) + 1) * size, 6)
        raise ConfigError(
            WHERE,
            f"the range along {axis} is not a whole number of voxels",
            expected=f"(upper - lower) / {size} to be whole",
            found=f"{cells:.4f} cells between {low} and {high}",
            do=f"An upper end of {fitting} would fit.",
        )


@dataclass(frozen=True, kw_only=True)
class VoxelSettings:
    """How many points and voxels a sample may have; what exceeds it is left out."""

    max_points_per_voxel: int = 64
    max_voxels: int = 20_000  # per sample
    overflow: Literal["hash", "first"] = "hash"  # which stay beyond it: evenly over space, or those seen first


@dataclass(frozen=True, kw_only=True)
class VfeSettings:
    """Points of a voxel to one feature row. Changing widths or `absolute_xyz` changes the shape of weights."""

    filters: tuple[int, ...] = (64, 64)
    gates: bool = True  # point and channel attention; without them it is the plain voxel PointNet
    absolute_xyz: bool = True
    normalise: bool = False  # coordinates as fractions of range and voxel instead of metres
    padded_rows: bool = False  # on: empty places for points count in norms and maxima, as in the original


@dataclass(frozen=True, kw_only=True)
class FocalSettings:
    """Submanifold convolutions and the importance that adds voxels. A threshold above 1 adds none."""

    channels: tuple[int, int] = (32, 64)
    threshold: float = 0.5
    loss_weight: float = 1.0
    alpha: float = 0.25
    gamma: float = 2.0
    add_loss: bool = True  # off: computed and thrown away, as in the original
    balanced: bool = True  # alpha / 1 - alpha and divided by the positives; off: alpha for both and the mean
    supervise_neighbours: bool = True  # off: only a voxel's own logit has a target
    straight_through: bool = True  # off: no gradient reaches the importance through the features
    edge_cells: bool = True  # off: no voxel is added in the first cell of an axis, as in the original
    max_growth: float = 1.0  # new voxels of a sample, as a fraction of those it has; math.inf for no limit


@dataclass(frozen=True, kw_only=True)
class DsvtSettings:
    """Set attention in windows. Windows and shifts are cells along x, y, z."""

    d_model: int = 128
    heads: int = 8
    feedforward: int = 192
    blocks: int = 4
    set_size: int = 32
    window: Cells = (20, 10, 10)
    shift: Cells = (10, 5, 5)  # of every second block
    hybrid_factor: Cells = (1, 1, 1)  # multiplies the window of every second block
    normalise_positions: bool = False
    paired_positions: bool = True  # off: layer i takes the positions of shift i, whatever its block's shift is


@dataclass(frozen=True, kw_only=True)
class BevSettings:
    """The map of columns and the 2-D convolutions over it."""

    height_aware: bool = False  # mean height and weight of each column enter the map; center_z becomes a residual
    height_window: int = 3  # columns along each side over which that height is the mean; odd
    height_loss_weight: float = 0.0  # of teaching which voxels count for it: those in objects
    layer_nums: tuple[int, ...] = (5, 5)
    layer_strides: tuple[int, ...] = (1, 2)
    filters: tuple[int, ...] = (128, 128)
    upsample_strides: tuple[int, ...] = (1, 2)
    upsample_filters: tuple[int, ...] = (128, 128)

    @property
    def stride(self) -> int:
        """Cells of the grid per cell of the map that the head sees."""
        return self.layer_strides[0] // self.upsample_strides[0]


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """The centre head: its branches, its targets and the weights of its loss."""

    class_names: tuple[str, ...] = ("Box", "Diver")
    shared_channels: int = 64
    branch_convs: int = 2
    bias_before_norm: bool = True
    heading: Literal["axis", "direction"] = "axis"  # cos, sin of twice the angle (labels repeat by pi), or of it
    gaussian_overlap: float = 0.15
    min_radius: int = 2
    heatmap_weight: float = 1.0
    location_weight: float = 0.25
    code_weights: tuple[float, ...] = (1.0,) * 8


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """From maps to boxes. Nothing here touches training."""

    score_threshold: float = 0.1
    center_limit_range: tuple[float, ...] = (0.0, -50.0, -20.0, 100.0, 50.0, 20.0)
    max_boxes: int = 500
    nms_pre: int = 1000
    nms_post: int = 83
    per_class: bool = True  # off: a diver can suppress the box below it, as in the original
    peaks_only: bool = True  # off: neighbours of a peak are candidates too


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """A whole detector; parts that do not fit each other are refused when it is made."""

    geometry: Geometry = field(default_factory=Geometry)
    voxels: VoxelSettings = field(default_factory=VoxelSettings)
    vfe: VfeSettings = field(default_factory=VfeSettings)
    focal: FocalSettings = field(default_factory=FocalSettings)
    dsvt: DsvtSettings = field(default_factory=DsvtSettings)
    bev: BevSettings = field(default_factory=BevSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    decode: DecodeSettings = field(default_factory=DecodeSettings)
    point_features: int = 4  # x, y, z first
    bn_eps: float = 1e-3
    bn_momentum: float = 0.01  # 0.1 for runs of a few hundred steps, or evaluation lags behind

    def __post_init__(self) -> None:
        dsvt = self.dsvt
        if dsvt.d_model % dsvt.heads:
            found = f"{dsvt.d_model} and {dsvt.heads}"
            raise ConfigError("model.dsvt", "d_model is not divisible by heads", found=found)
        if min(*dsvt.window, *dsvt.hybrid_factor, dsvt.set_size) < 1:
            raise ConfigError("model.dsvt", "a window or a set is empty", expected="sizes of at least 1", found=dsvt)
        _check_bev(self.bev, self.geometry)
        if len(self.head.code_weights) != 8:
            raise ConfigError("model.head.code_weights", "a box has 8 codes", found=len(self.head.code_weights))


def _check_bev(bev: BevSettings, geometry: Geometry) -> None:
    lists = (bev.layer_nums, bev.layer_strides, bev.filters, bev.upsample_strides, bev.upsample_filters)
    if len({len(values) for values in lists}) != 1:
        raise ConfigError("model.bev", "not every list has one value per stage", found=lists)
    reached = [math.prod(bev.layer_strides[: i + 1]) for i in range(len(bev.layer_strides))]
    uneven = [(deep, up) for deep, up in zip(reached, bev.upsample_strides) if deep != up * bev.stride]
    if uneven or bev.stride < 1:
        raise ConfigError("model.bev", "the stages do not come back to one size", found=f"{reached}, {lists[3]}")
    if bev.height_window < 1 or bev.height_window % 2 == 0:
        raise ConfigError(
            "model.bev", "a window has a middle", expected="an odd number of columns", found=bev.height_window
        )
    if bev.height_aware and bev.stride != 1:
        raise ConfigError("model.bev", "heights of columns need a map of full size", expected=1, found=bev.stride)
    x, y, _ = geometry.grid_xyz
    if x % reached[-1] or y % reached[-1]:
        expected = f"cells along x and y divisible by {reached[-1]}, the product of layer_strides"
        raise ConfigError("model.bev", "the deepest map does not fit the grid", expected=expected, found=f"{x}, {y}")
