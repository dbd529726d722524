"""The whole detector: points to maps, maps and labels to losses, maps to boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from focalsst.model.bev import BaseBEVBackbone, BevMap, HeightAwareToBev, MaxToBev
from focalsst.model.center_head import (
    CenterHead,
    Detections,
    HeadMaps,
    Suppress,
    assign_targets,
    decode,
    heatmap_loss,
    location_loss,
)
from focalsst.model.dsvt import DSVT
from focalsst.model.focal_encoder import FocalSparseEncoder, Importance, importance_loss
from focalsst.model.settings import DetectorSettings, FocalSettings
from focalsst.model.vfe import SDAVFE
from focalsst.model.voxels import SparseVoxels, group_points
from unbroken.errors import ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """All that the network says about a batch; `voxels` counts those after the dilation."""

    maps: HeadMaps
    importance: Importance
    voxels: int
    height_weights: Importance | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectorLosses:
    """`total` is what is trained on; the others are its weighed parts (`importance` also where it is not added).

    `height` is 0 where the map knows no heights.
    """

    total: Tensor
    heatmap: Tensor
    location: Tensor
    importance: Tensor
    height: Tensor


class FocalDSVT(nn.Module):
    """The 3-D backbone: the focal encoder, then set attention."""

    def __init__(self, settings: DetectorSettings, *, in_channels: int) -> None:
        super().__init__()
        self.focal_encoder = FocalSparseEncoder(
            settings.focal,
            settings.geometry,
            in_channels=in_channels,
            out_channels=settings.dsvt.d_model,
            eps=settings.bn_eps,
            momentum=settings.bn_momentum,
        )
        self.dsvt = DSVT(settings.dsvt, settings.geometry)

    def forward(self, voxels: SparseVoxels) -> tuple[SparseVoxels, Importance]:
        """V voxels to V + N voxels of width d_model, and the importance of the V."""
        voxels, importance = self.focal_encoder(voxels)
        return self.dsvt(voxels), importance


class Detector(nn.Module):
    """Sonar points to boxes. The parts are named as in OpenPCDet; all of them come from one `settings`."""

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__()
        self.settings = settings
        eps, momentum, width = settings.bn_eps, settings.bn_momentum, settings.dsvt.d_model
        self.vfe = SDAVFE(
            settings.vfe,
            settings.geometry,
            point_features=settings.point_features,
            places=settings.voxels.max_points_per_voxel,
            eps=eps,
            momentum=momentum,
        )
        self.backbone_3d = FocalDSVT(settings, in_channels=self.vfe.out_channels)
        height_aware = settings.bev.height_aware
        self.map_to_bev_module = (
            HeightAwareToBev(settings.geometry, width, window=settings.bev.height_window)
            if height_aware
            else MaxToBev(settings.geometry)
        )
        self.backbone_2d = BaseBEVBackbone(settings.bev, in_channels=width, eps=eps, momentum=momentum)
        self.dense_head = CenterHead(settings.head, in_channels=self.backbone_2d.out_channels)

    def forward(self, points_PF: Tensor, sample_P: Tensor, batch_size: int) -> Prediction:
        """Points (x, y, z in metres first) and the sample each belongs to; a sample may have no point at all."""
        if points_PF.dim() != 2 or points_PF.shape[1] != self.settings.point_features:
            expected = f"P x {self.settings.point_features}"
            raise ConfigError("model", "points of another width", expected=expected, found=tuple(points_PF.shape))
        groups = group_points(
            points_PF, sample_P, batch_size=batch_size, geometry=self.settings.geometry, caps=self.settings.voxels
        )
        voxels, importance = self.backbone_3d(self.vfe(groups))
        bev: BevMap = self.map_to_bev_module(voxels)
        maps = self.dense_head(self.backbone_2d(bev.features_BCYX), bev)
        return Prediction(maps=maps, importance=importance, voxels=len(voxels.cells_V4), height_weights=bev.weights)

    def losses(self, prediction: Prediction, boxes_BM8: Tensor) -> DetectorLosses:
        """The weighed losses against labelled boxes, in float32; rows of zeros pad."""
        head, focal = self.settings.head, self.settings.focal
        _, _, height, width = prediction.maps.heatmap_BKYX.shape
        stride = self.settings.bev.stride
        with torch.autocast(boxes_BM8.device.type, enabled=False):
            targets = assign_targets(
                boxes_BM8, geometry=self.settings.geometry, stride=stride, map_YX=(height, width), settings=head
            )
            heatmap = heatmap_loss(prediction.maps.heatmap_BKYX, targets.heatmap_BKYX)
            location = location_loss(prediction.maps.codes_B8YX, targets, head.code_weights)
            importance = importance_loss(prediction.importance, boxes_BM8, self.settings.geometry, focal)
            columns = self._height_loss(prediction, boxes_BM8)
        heatmap, location = head.heatmap_weight * heatmap, head.location_weight * location
        importance = focal.loss_weight * importance
        total = heatmap + location + columns + (importance if focal.add_loss else 0.0)
        return DetectorLosses(total=total, heatmap=heatmap, location=location, importance=importance, height=columns)

    def _height_loss(self, prediction: Prediction, boxes_BM8: Tensor) -> Tensor:
        """Which voxels count for the height of their column: the balanced focal loss, as for the importance."""
        weight, weights = self.settings.bev.height_loss_weight, prediction.height_weights
        if weights is None or not weight:
            return boxes_BM8.new_zeros(())
        of_voxels = FocalSettings(supervise_neighbours=False)
        return weight * importance_loss(weights, boxes_BM8, self.settings.geometry, of_voxels)

    @torch.no_grad()
    def detect(self, prediction: Prediction, suppress: Suppress) -> list[Detections]:
        """The boxes of each sample."""
        return decode(
            prediction.maps,
            geometry=self.settings.geometry,
            stride=self.settings.bev.stride,
            head=self.settings.head,
            settings=self.settings.decode,
            suppress=suppress,
        )


def build_detector(settings: DetectorSettings) -> Detector:
    """A fresh detector; its weights are drawn from torch's global generator."""
    return Detector(settings)
