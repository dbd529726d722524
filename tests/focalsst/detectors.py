"""The named detectors: the published one, its ablations and sizes for a CPU."""

from __future__ import annotations

import math
from dataclasses import replace

from focalsst.model.settings import (
    BevSettings,
    DetectorSettings,
    DsvtSettings,
    FocalSettings,
    Geometry,
    HeadSettings,
    VfeSettings,
    VoxelSettings,
)

FOCAL_SST = DetectorSettings()

SMALL = replace(FOCAL_SST, dsvt=DsvtSettings(d_model=96, heads=6))

NO_FOCAL = replace(FOCAL_SST, focal=FocalSettings(threshold=1.1, loss_weight=0.0))

# 50 m are no whole number of 0.15 m, and 333 cells would not survive a stride of 2: x ends at 50.4 m (336 cells).
VOXEL_015 = replace(
    FOCAL_SST,
    geometry=Geometry(point_cloud_range=(0.0, -20.0, -20.0, 50.4, 20.0, 15.0), voxel_size=(0.15, 0.25, 0.25)),
)

MICRO = DetectorSettings(
    geometry=Geometry(point_cloud_range=(0.0, -10.0, -8.0, 32.0, 10.0, 4.0), voxel_size=(0.5, 0.5, 0.5)),
    voxels=VoxelSettings(max_voxels=6_000),
    vfe=VfeSettings(filters=(16, 32), normalise=True),
    focal=FocalSettings(channels=(16, 32)),
    dsvt=DsvtSettings(d_model=32, heads=4, feedforward=64, blocks=2, set_size=16, window=(12, 10, 8), shift=(6, 5, 4)),
    bev=BevSettings(
        height_aware=True,
        height_window=5,
        height_loss_weight=0.3,
        layer_nums=(1, 2),
        filters=(32, 48),
        upsample_filters=(32, 32),
    ),
    head=HeadSettings(shared_channels=32, location_weight=1.0, code_weights=(1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
    bn_momentum=0.1,
)

NANO = DetectorSettings(
    geometry=Geometry(point_cloud_range=(0.0, -8.25, -6.0, 24.0, 8.25, 3.0), voxel_size=(0.75, 0.75, 0.75)),
    voxels=VoxelSettings(max_voxels=2_000),
    vfe=VfeSettings(filters=(8, 16), normalise=True),
    focal=FocalSettings(channels=(8, 16)),
    dsvt=DsvtSettings(d_model=16, heads=2, feedforward=32, blocks=1, set_size=8, window=(8, 6, 6), shift=(4, 3, 3)),
    bev=BevSettings(
        height_aware=True,
        layer_nums=(1,),
        layer_strides=(1,),
        filters=(16,),
        upsample_strides=(1,),
        upsample_filters=(16,),
    ),
    head=HeadSettings(shared_channels=16, location_weight=1.0),
    bn_momentum=0.1,
)

PRESETS = {
    "focal_sst": FOCAL_SST,
    "small": SMALL,
    "no_focal": NO_FOCAL,
    "voxel_015": VOXEL_015,
    "micro": MICRO,
    "nano": NANO,
}


def as_published(settings: DetectorSettings) -> DetectorSettings:
    """The same detector with every repair taken back that has a switch, for comparison with the original."""
    focal = replace(
        settings.focal,
        add_loss=False,
        balanced=False,
        supervise_neighbours=False,
        straight_through=False,
        edge_cells=False,
        max_growth=math.inf,
    )
    return replace(
        settings,
        voxels=replace(settings.voxels, overflow="first"),
        vfe=replace(settings.vfe, padded_rows=True),
        focal=focal,
        dsvt=replace(settings.dsvt, paired_positions=False),
        bev=replace(settings.bev, height_aware=False),
        head=replace(settings.head, heading="direction"),
        decode=replace(settings.decode, per_class=False, peaks_only=False),
    )
