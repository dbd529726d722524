"""How much each switch of AS_PUBLISHED changes: measured on two small frames, with fresh seeded weights.

`python -m tests.focalsst.deviation_sizes` prints what docs/deviations.md has in its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focalsst.dataset.points import encode_intensity
from focalsst.model.detector import Detector, build_detector
from focalsst.model.settings import DetectorSettings, FocalSettings
from focalsst.model.voxels import group_points
from tests.focalsst.detectors import FOCAL_SST, NANO, as_published

from .model_inputs import KEEP_ALL, LABELLED, scene

ORIGINAL = as_published(NANO)


def network(settings: DetectorSettings) -> Detector:
    torch.manual_seed(0)
    return build_detector(settings).train()


def grouped(settings: DetectorSettings) -> Any:
    cloud, owner = scene()
    return group_points(cloud, owner, batch_size=2, geometry=settings.geometry, caps=settings.voxels)


def loss_and_gradient(focal: FocalSettings) -> tuple[Tensor, float]:
    """The importance's loss, and the norm of its convolution's gradient after a step's backward pass."""
    model = network(replace(ORIGINAL, focal=focal))
    cloud, owner = scene()
    losses = model.losses(model(cloud, owner, 2), LABELLED)
    losses.total.backward()
    gradient = model.backbone_3d.focal_encoder.conv_imp.weight.grad
    return losses.importance.detach(), 0.0 if gradient is None else float(gradient.norm())


def voxels_after(focal: FocalSettings) -> int:
    model = network(replace(ORIGINAL, focal=focal))
    with torch.no_grad():
        return model(*scene(), 2).voxels


def boxes_of(**decode: Any) -> int:
    model = network(ORIGINAL).eval()
    with torch.no_grad():
        prediction = model(*scene(), 2)
    settings = replace(ORIGINAL.decode, score_threshold=0.0, nms_post=1000, **decode)
    model.settings = replace(ORIGINAL, decode=settings)
    return sum(len(found.scores_N) for found in model.detect(prediction, KEEP_ALL))


def padded_rows() -> tuple[float, float, float]:
    one, other = (
        network(replace(ORIGINAL, vfe=replace(ORIGINAL.vfe, padded_rows=on)))
        .vfe(grouped(ORIGINAL))
        .features_VC.detach()
        for on in (True, False)
    )
    away = (one - other).abs()
    return 100 * float((away.amax(1) > 1e-5).float().mean()), float(away.max()), float(one.max())


def overflow() -> float:
    kept = []
    for how in ("first", "hash"):
        voxels = replace(ORIGINAL.voxels, max_voxels=100, overflow=how)
        kept.append({tuple(cell) for cell in grouped(replace(ORIGINAL, voxels=voxels)).cells_V4.tolist()})
    return 100 * len(kept[0] - kept[1]) / len(kept[0])


def paired_pos() -> tuple[float, float]:
    found = []
    for on in (False, True):
        model = network(replace(ORIGINAL, dsvt=replace(ORIGINAL.dsvt, paired_positions=on)))
        with torch.no_grad():
            found.append(model.backbone_3d.dsvt(model.vfe(grouped(ORIGINAL))).features_VC)
    return float((found[0] - found[1]).abs().max()), float(found[0].abs().max())


def intensity() -> tuple[float, float]:
    raw = (10 ** np.random.default_rng(0).normal(8.95, 0.23, 100_000)).astype(np.float32)
    return tuple(float(encode_intensity(raw, how).std()) for how in ("original", "standard"))  # type: ignore[return-value]


def sizes() -> Mapping[str, tuple[float, ...]]:
    """The figures of each switch, in the order in which the page has them."""
    focal, unlimited = ORIGINAL.focal, voxels_after(ORIGINAL.focal)
    in_proj = sum(tensor.numel() for name, tensor in network(FOCAL_SST).named_parameters() if "in_proj" in name)
    both = replace(focal, add_loss=True)
    return {
        "PADDED_ROWS": padded_rows(),
        "OVERFLOW": (overflow(),),
        "EDGE_CELLS": (unlimited, voxels_after(replace(focal, edge_cells=True))),
        "MAX_GROWTH": (unlimited, voxels_after(replace(focal, max_growth=1.0))),
        "paired_pos": paired_pos(),
        "INTENSITY": intensity(),
        "ADD_TO_TOTAL": (loss_and_gradient(focal)[1], loss_and_gradient(both)[1]),
        "STRAIGHT_THROUGH": (0.0, loss_and_gradient(replace(focal, straight_through=True))[1]),
        "BALANCED": (float(loss_and_gradient(focal)[0]), float(loss_and_gradient(replace(focal, balanced=True))[0])),
        "SUPERVISE_NEIGHBOURS": (
            float(loss_and_gradient(focal)[0]),
            float(loss_and_gradient(replace(focal, supervise_neighbours=True))[0]),
        ),
        "PEAKS_ONLY": (boxes_of(), boxes_of(peaks_only=True)),
        "FREEZE_IN_PROJ": (in_proj, sum(p.numel() for p in network(FOCAL_SST).parameters())),
    }


if __name__ == "__main__":
    for name, figures in sizes().items():
        print(name, *(f"{figure:.3g}" if figure < 1000 else f"{figure:.0f}" for figure in figures))
