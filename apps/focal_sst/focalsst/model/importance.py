"""The importance of cells: which of them belong to an object, and the focal loss that teaches it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from focalsst.model.dilation import NEIGHBOURS
from focalsst.model.geometry import Geometry
from focalsst.model.settings import FocalSettings
from focalsst.model.submanifold import CENTRE, OFFSETS
from focalsst.model.voxels import centres_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Importance:
    """27 logits for each voxel before the dilation: 26 neighbours, then the voxel itself."""

    logits_VK: Tensor
    cells_V4: Tensor


def inside_boxes(places_VK3: Tensor, boxes_VM8: Tensor) -> Tensor:
    """Which places lie in any of their row's boxes, surface included: VK3, VM8 to VK. Rows of zeros are empty."""
    away_VKM3 = places_VK3[:, :, None, :] - boxes_VM8[:, None, :, :3]
    cos_V1M, sin_V1M = boxes_VM8[:, None, :, 6].cos(), boxes_VM8[:, None, :, 6].sin()
    along = away_VKM3[..., 0] * cos_V1M + away_VKM3[..., 1] * sin_V1M
    across = away_VKM3[..., 1] * cos_V1M - away_VKM3[..., 0] * sin_V1M
    local_VKM3 = torch.stack((along, across, away_VKM3[..., 2]), dim=-1)
    size_V1M3 = boxes_VM8[:, None, :, 3:6]
    inside_VKM = ((local_VKM3.abs() <= size_V1M3 / 2) & (size_V1M3 > 0)).all(dim=-1)
    return inside_VKM.any(dim=-1)


def importance_targets(cells_V4: Tensor, boxes_BM8: Tensor, geometry: Geometry) -> Tensor:
    """Whether the centres of the 26 neighbours and of the voxel itself lie in a box of its sample: VK, K = 27."""
    steps_K3 = torch.tensor((*NEIGHBOURS, OFFSETS[CENTRE]), device=cells_V4.device).flip(1)
    places_V3 = centres_of(cells_V4, geometry)
    size_3 = places_V3.new_tensor(geometry.voxel_size)
    return inside_boxes(places_V3[:, None, :] + steps_K3 * size_3, boxes_BM8.float()[cells_V4[:, 0]])


def focal_terms(logits_N: Tensor, target_N: Tensor, *, alpha_N: Tensor | float, gamma: float) -> Tensor:
    """-alpha (1 - p_t)^gamma log p_t of each logit (Lin et al., 2017), in float32."""
    signed_N = torch.where(target_N, logits_N, -logits_N).float()
    return -alpha_N * torch.sigmoid(-signed_N) ** gamma * F.logsigmoid(signed_N)


def importance_loss(importance: Importance, boxes_BM8: Tensor, geometry: Geometry, settings: FocalSettings) -> Tensor:
    """The focal loss of the importance, one number; 0 where there are no voxels."""
    target_VK = importance_targets(importance.cells_V4, boxes_BM8, geometry)
    logits_VK = importance.logits_VK
    if not settings.supervise_neighbours:
        target_VK, logits_VK = target_VK[:, -1:], logits_VK[:, -1:]
    if not settings.balanced:
        terms_VK = focal_terms(logits_VK, target_VK, alpha_N=settings.alpha, gamma=settings.gamma)
        return terms_VK.sum() / max(terms_VK.numel(), 1)
    alpha_VK = torch.where(target_VK, settings.alpha, 1 - settings.alpha)
    terms_VK = focal_terms(logits_VK, target_VK, alpha_N=alpha_VK, gamma=settings.gamma)
    return terms_VK.sum() / target_VK.sum().clamp(min=1)
