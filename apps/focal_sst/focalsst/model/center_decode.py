"""From the maps of the centre head to boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from focalsst.model.center_head import HeadMaps
from focalsst.model.center_targets import turns
from focalsst.model.geometry import Geometry
from focalsst.model.settings import DecodeSettings, HeadSettings

Suppress = Callable[[Tensor, Tensor], Tensor]
"""Boxes N7 and their scores N, best first, to the indices of those that stay, best first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The boxes of one sample, best first: `boxes_N7` in metres and radians, `scores_N`, `labels_N` from 1."""

    boxes_N7: Tensor
    scores_N: Tensor
    labels_N: Tensor


def decode(
    maps: HeadMaps,
    *,
    geometry: Geometry,
    stride: int,
    head: HeadSettings,
    settings: DecodeSettings,
    suppress: Suppress,
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
