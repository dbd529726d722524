"""Small seeded inputs for the tests of the detector."""

from __future__ import annotations

import torch
from torch import Tensor

from focalsst.model.center_head import Suppress
from focalsst.model.detector import Detector, build_detector
from focalsst.model.settings import DetectorSettings
from tests.focalsst.detectors import NANO

LABELLED = torch.tensor(
    [
        [[8.3, 1.2, -1.0, 2.5, 2.1, 1.7, 0.7, 1.0], [15.1, -4.4, 0.5, 1.1, 0.8, 1.3, -1.2, 2.0]],
        [[12.2, 3.3, -2.0, 2.6, 2.0, 1.6, 2.9, 1.0], [0.0] * 8],
    ]
)


def random_cells(voxels: int, grid_zyx: tuple[int, int, int], *, samples: int = 2, seed: int = 0) -> Tensor:
    """Sorted, unique cells V4."""
    total = samples * grid_zyx[0] * grid_zyx[1] * grid_zyx[2]
    keys = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:voxels].sort().values
    return torch.stack(torch.unravel_index(keys, (samples, *grid_zyx)), dim=1)


def scene(*, samples: int = 2, points: int = 300, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clutter, and points within the labelled boxes: P4 and P."""
    generator = torch.Generator().manual_seed(seed)
    lower, upper = torch.tensor([0.0, -8.25, -6.0]), torch.tensor([24.0, 8.25, 3.0])
    clouds, owners = [], []
    for sample in range(samples):
        clutter = lower + (upper - lower) * torch.rand(points, 3, generator=generator)
        box = LABELLED[sample % 2, 0]
        near = box[:3] + (torch.rand(60, 3, generator=generator) - 0.5) * 1.5
        xyz = torch.cat((clutter, near))
        clouds.append(torch.cat((xyz, torch.rand(len(xyz), 1, generator=generator)), dim=1))
        owners.append(torch.full((len(xyz),), sample))
    return torch.cat(clouds), torch.cat(owners)


def detector(settings: DetectorSettings = NANO, *, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return build_detector(settings)


def keep_all(boxes: Tensor, scores: Tensor) -> Tensor:
    return torch.arange(len(scores))


KEEP_ALL: Suppress = keep_all
