"""The losses of the centre head, in float32 whatever the maps come in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from focalsst.model.center_head import HeadMaps
from focalsst.model.center_targets import CenterTargets


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


def head_losses(maps: HeadMaps, targets: CenterTargets, code_weights: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Heatmap loss and location loss, both before their weights."""
    return (
        heatmap_loss(maps.heatmap_BKYX, targets.heatmap_BKYX),
        location_loss(maps.codes_B8YX, targets, code_weights),
    )
