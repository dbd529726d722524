"""The centre head (CenterPoint, Yin et al., CVPR 2021): a heatmap per class and the codes of a box at its centre.

What it should say about labelled boxes, the losses that teach it, and the boxes that are read from its maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from focalsst.model.bev import BevMap
from focalsst.model.settings import DecodeSettings, Geometry, HeadSettings

HEATMAP_BIAS = -2.19  # sigmoid 0.1: at first almost everything is background


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadMaps:
    """What the head says: `heatmap_BKYX` logits and `codes_B8YX`.

    Codes: offset of the centre in the cell (x, y), z in metres, log of dx, dy, dz, cosine and sine of the heading.
    """

    heatmap_BKYX: Tensor
    codes_B8YX: Tensor


class SeparateHead(nn.Module):
    """One small stack of convolutions for each branch: `center`, `center_z`, `dim`, `rot`, `hm`."""

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.center = _branch(settings, 2)
        self.center_z = _branch(settings, 1)
        self.dim = _branch(settings, 3)
        self.rot = _branch(settings, 2)
        self.hm = _branch(settings, len(settings.class_names))
        for branch in (self.center, self.center_z, self.dim, self.rot):
            branch.apply(_initialise)
        last = self.hm[-1]
        if isinstance(last, nn.Conv2d) and last.bias is not None:
            nn.init.constant_(last.bias, HEATMAP_BIAS)

    def forward(self, x_BCYX: Tensor, height_B1YX: Tensor) -> HeadMaps:
        """BCYX to maps of the same size."""
        z_B1YX = self.center_z(x_BCYX) + height_B1YX
        codes_B8YX = torch.cat((self.center(x_BCYX), z_B1YX, self.dim(x_BCYX), self.rot(x_BCYX)), dim=1)
        return HeadMaps(heatmap_BKYX=self.hm(x_BCYX), codes_B8YX=codes_B8YX)


class CenterHead(nn.Module):
    """A shared convolution, then one separate head for all classes."""

    def __init__(self, settings: HeadSettings, *, in_channels: int) -> None:
        super().__init__()
        self.shared_conv = _convolution(in_channels, settings.shared_channels, bias=settings.bias_before_norm)
        self.heads_list = nn.ModuleList([SeparateHead(settings)])

    def forward(self, x_BCYX: Tensor, bev: BevMap) -> HeadMaps:
        """BCYX, and the heights of the columns at the same size, to the maps."""
        maps: HeadMaps = self.heads_list[0](self.shared_conv(x_BCYX), bev.height_B1YX)
        return maps


def _convolution(in_channels: int, out_channels: int, *, bias: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _branch(settings: HeadSettings, out_channels: int) -> nn.Sequential:
    width = settings.shared_channels
    hidden = [_convolution(width, width, bias=settings.bias_before_norm) for _ in range(settings.branch_convs - 1)]
    return nn.Sequential(*hidden, nn.Conv2d(width, out_channels, kernel_size=3, padding=1))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


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


def heatmap_loss(logits_BKYX: Tensor, target_BKYX: Tensor) -> Tensor:
    """The penalty-reduced focal loss of CornerNet (alpha 2, beta 4), divided by the number of peaks.

    Written with log-sigmoids: a probability of 1 - 1e-4 is 1 in half precision, and its log(1 - p) not finite.
    """
    logits_BKYX = logits_BKYX.float()
    peak_BKYX = target_BKYX == 1
    p_BKYX = torch.sigmoid(logits_BKYX)
    at_peaks = (1 - p_BKYX) ** 2 * F.logsigmoid(logits_BKYX)
    elsewhere = (1 - target_BKYX) ** 4 * p_BKYX**2 * F.logsigmoid(-logits_BKYX)
    return -torch.where(peak_BKYX, at_peaks, elsewhere).sum() / peak_BKYX.sum().clamp(min=1)


def location_loss(codes_B8YX: Tensor, targets: CenterTargets, code_weights: tuple[float, ...]) -> Tensor:
    """The mean L1 distance of each code over all boxes of the batch, weighed and summed; 0 without boxes."""
    codes_N8 = codes_B8YX.float().permute(0, 2, 3, 1).flatten(0, 2)
    distance_G8 = (codes_N8.index_select(0, targets.cell_G) - targets.codes_G8).abs()
    mean_8 = distance_G8.sum(dim=0) / max(len(distance_G8), 1)
    return (mean_8 * mean_8.new_tensor(code_weights)).sum()


Suppress = Callable[[Tensor, Tensor], Tensor]
"""Boxes N7 and their scores N, best first, to the indices of those that stay, best first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The boxes of one sample, best first: `boxes_N7` in metres and radians, `scores_N`, `labels_N` from 1."""

    boxes_N7: Tensor
    scores_N: Tensor
    labels_N: Tensor


def decode(
    maps: HeadMaps, *, geometry: Geometry, stride: int, head: HeadSettings, settings: DecodeSettings, suppress: Suppress
) -> list[Detections]:
    """Maps to the detections of each sample; `suppress` is the non-maximum suppression, called per class or once."""
    scores_BN, labels_BN, cells_BN = best_cells(maps.heatmap_BKYX, settings)
    width = maps.heatmap_BKYX.shape[3]
    boxes_BN7 = _boxes(maps, cells_BN, width, geometry=geometry, stride=stride, head=head)
    limit_6 = boxes_BN7.new_tensor(settings.center_limit_range)
    near_BN = ((boxes_BN7[..., :3] >= limit_6[:3]) & (boxes_BN7[..., :3] <= limit_6[3:])).all(dim=-1)
    kept_BN = near_BN & (scores_BN > settings.score_threshold)
    return [
        _suppressed(boxes_N7[kept_N], scores_N[kept_N], labels_N[kept_N], settings, suppress)
        for boxes_N7, scores_N, labels_N, kept_N in zip(boxes_BN7, scores_BN, labels_BN, kept_BN)
    ]


def best_cells(heatmap_BKYX: Tensor, settings: DecodeSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels (from 1) and cells (y X + x), each BN: the best of each class, then of all classes."""
    score_BKYX = torch.sigmoid(heatmap_BKYX.float())
    if settings.peaks_only:
        highest_BKYX = F.max_pool2d(score_BKYX, kernel_size=3, stride=1, padding=1)
        score_BKYX = torch.where(score_BKYX == highest_BKYX, score_BKYX, 0.0)
    flat_BKS = score_BKYX.flatten(2)
    count = min(settings.max_boxes, flat_BKS.shape[2])
    # A stable sort and not topk: among equal scores the first cell wins, on every machine.
    score_BKN, cell_BKN = (x[..., :count] for x in flat_BKS.sort(dim=2, descending=True, stable=True))
    score_BN, place_BN = (x[:, :count] for x in score_BKN.flatten(1).sort(dim=1, descending=True, stable=True))
    labels_BN = torch.div(place_BN, count, rounding_mode="floor") + 1
    return score_BN, labels_BN, cell_BKN.flatten(1).gather(1, place_BN)


def _boxes(
    maps: HeadMaps, cells_BN: Tensor, width: int, *, geometry: Geometry, stride: int, head: HeadSettings
) -> Tensor:
    """The boxes BN7 at the given cells."""
    codes_BS8 = maps.codes_B8YX.float().flatten(2).transpose(1, 2)
    codes_BN8 = codes_BS8.gather(1, cells_BN[..., None].expand(-1, -1, codes_BS8.shape[2]))
    corner_BN2 = torch.stack((cells_BN % width, torch.div(cells_BN, width, rounding_mode="floor")), dim=-1)
    cell_m_2 = codes_BN8.new_tensor(geometry.voxel_size[:2]) * stride
    xy_BN2 = (corner_BN2 + codes_BN8[..., :2]) * cell_m_2 + codes_BN8.new_tensor(geometry.lower_m[:2])
    heading_BN1 = torch.atan2(codes_BN8[..., 7:8], codes_BN8[..., 6:7]) / turns(head)
    return torch.cat((xy_BN2, codes_BN8[..., 2:3], codes_BN8[..., 3:6].exp(), heading_BN1), dim=-1)


def _suppressed(
    boxes_N7: Tensor, scores_N: Tensor, labels_N: Tensor, settings: DecodeSettings, suppress: Suppress
) -> Detections:
    """Suppress within each class, or all together; what stays is again best first."""
    labels = sorted(set(labels_N.tolist())) if settings.per_class else []
    groups = [labels_N == label for label in labels] or [labels_N > 0]
    kept = [labels_N.new_zeros(0)]
    for group_N in groups:
        rows = group_N.nonzero().squeeze(1)[: settings.nms_pre]
        kept.append(rows[suppress(boxes_N7[rows], scores_N[rows])][: settings.nms_post])
    chosen = torch.cat(kept).sort().values  # rows come best first, so their order is the order of scores
    return Detections(boxes_N7=boxes_N7[chosen], scores_N=scores_N[chosen], labels_N=labels_N[chosen])
