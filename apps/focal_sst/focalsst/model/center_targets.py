"""What the centre head should say about labelled boxes: a peak on the heatmap, and codes at its cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from focalsst.model.geometry import Geometry
from focalsst.model.settings import HeadSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class CenterTargets:
    """`heatmap_BKYX` from 0 to exactly 1 at centres; `codes_G8` of the boxes and their places `cell_G` in B Y X."""

    heatmap_BKYX: Tensor
    codes_G8: Tensor
    cell_G: Tensor


def assign_targets(
    boxes_BM8: Tensor, *, geometry: Geometry, stride: int, map_YX: tuple[int, int], settings: HeadSettings
) -> CenterTargets:
    """Boxes BM8 to targets. Rows without a class or without extent count for nothing.

    A centre beyond the map is drawn at its edge, as in the original.
    """
    boxes_BM8 = boxes_BM8.float()
    sample_G, row_G = ((boxes_BM8[..., 7] >= 1) & (boxes_BM8[..., 3:6] > 0).all(dim=-1)).nonzero().unbind(1)
    box_G8 = boxes_BM8[sample_G, row_G]
    cell_m_2 = box_G8.new_tensor(geometry.voxel_size[:2]) * stride
    place_G2 = (box_G8[:, :2] - box_G8.new_tensor(geometry.lower_m[:2])) / cell_m_2
    edge_2 = place_G2.new_tensor((map_YX[1], map_YX[0])) - 0.5
    place_G2 = torch.minimum(place_G2.clamp(min=0), edge_2)
    peak_G2 = place_G2.floor().long()
    radius_G = gaussian_radius(box_G8[:, 3:5] / cell_m_2, settings.gaussian_overlap).long()
    heatmap_BKYX = box_G8.new_zeros(len(boxes_BM8), len(settings.class_names), *map_YX)
    plane_G = sample_G * len(settings.class_names) + box_G8[:, 7].long() - 1
    draw_peaks(heatmap_BKYX, plane_G, peak_G2, radius_G.clamp(min=settings.min_radius))
    return CenterTargets(
        heatmap_BKYX=heatmap_BKYX,
        codes_G8=encode(box_G8, place_G2 - peak_G2, settings),
        cell_G=(sample_G * map_YX[0] + peak_G2[:, 1]) * map_YX[1] + peak_G2[:, 0],
    )


def encode(box_G8: Tensor, offset_G2: Tensor, settings: HeadSettings) -> Tensor:
    """The codes G8 of boxes whose centres are `offset_G2` cells (x, y) from their cell's corner."""
    heading_G1 = box_G8[:, 6:7] * turns(settings)
    return torch.cat((offset_G2, box_G8[:, 2:3], box_G8[:, 3:6].log(), heading_G1.cos(), heading_G1.sin()), dim=1)


def turns(settings: HeadSettings) -> int:
    """How often the heading's code goes round in one turn: 2 where a box looks the same from behind."""
    return 2 if settings.heading == "axis" else 1


def gaussian_radius(size_G2: Tensor, overlap: float) -> Tensor:
    """How far, in cells, a corner pair may stray and still overlap a box of that size by `overlap` (CornerNet).

    Keeps CornerNet's known slip, dividing by 2 where the root has 2a: radii stay comparable with the original.
    """
    total_G, area_G = size_G2.sum(dim=1), size_G2.prod(dim=1)
    first = (total_G + (total_G**2 - 4 * area_G * (1 - overlap) / (1 + overlap)).sqrt()) / 2
    second = (2 * total_G + (4 * total_G**2 - 16 * (1 - overlap) * area_G).sqrt()) / 2
    b_G = -2 * overlap * total_G
    third = (b_G + (b_G**2 - 16 * overlap * (overlap - 1) * area_G).sqrt()) / 2
    return torch.minimum(torch.minimum(first, second), third)


def draw_peaks(heatmap_BKYX: Tensor, plane_G: Tensor, peak_G2: Tensor, radius_G: Tensor) -> None:
    """Write a Gaussian of sigma (2 r + 1) / 6 within a square of 2 r + 1 cells around each peak (x, y), in place.

    Where several meet, the largest value stays.
    """
    if not len(plane_G):
        return
    height, width = heatmap_BKYX.shape[2:]
    reach_D = torch.arange(-int(radius_G.max()), int(radius_G.max()) + 1, device=radius_G.device)
    dy_DD, dx_DD = torch.meshgrid(reach_D, reach_D, indexing="ij")
    sigma_G11 = ((2 * radius_G + 1) / 6.0)[:, None, None]
    value_GDD = torch.exp(-(dx_DD**2 + dy_DD**2) / (2 * sigma_G11**2))
    x_GDD, y_GDD = peak_G2[:, 0, None, None] + dx_DD, peak_G2[:, 1, None, None] + dy_DD
    near_GDD = torch.maximum(dx_DD.abs(), dy_DD.abs()) <= radius_G[:, None, None]
    drawn_GDD = near_GDD & (x_GDD >= 0) & (x_GDD < width) & (y_GDD >= 0) & (y_GDD < height)
    drawn_GDD &= value_GDD >= torch.finfo(value_GDD.dtype).eps
    place_GDD = (plane_G[:, None, None] * height + y_GDD) * width + x_GDD
    heatmap_BKYX.view(-1).scatter_reduce_(0, place_GDD[drawn_GDD], value_GDD[drawn_GDD], "amax")
