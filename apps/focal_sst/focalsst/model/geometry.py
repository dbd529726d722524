"""The one place where the grid comes from: a range and a voxel size."""

from __future__ import annotations

from dataclasses import dataclass

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
