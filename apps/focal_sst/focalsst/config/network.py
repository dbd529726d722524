"""From a config to the settings of the detector: each key of the original to the word of the network."""

from __future__ import annotations

import math
from typing import Annotated, Protocol

from focalsst.config.data import DataConfig
from focalsst.config.encoder import Backbone3d, BatchNorms, Dsvt, FocalEncoder, VoxelFeatures
from focalsst.config.head import Backbone2d, DenseHead, HeadPostProcessing, MapToBev, PostProcessing
from focalsst.config.values import built
from focalsst.model.geometry import Geometry
from focalsst.model.settings import (
    BevSettings,
    DecodeSettings,
    DetectorSettings,
    DsvtSettings,
    FocalSettings,
    HeadSettings,
    VfeSettings,
    VoxelSettings,
)
from unbroken.config import Effect, Section


class Model(Section):
    """The parts of the network. BATCH_NORM is ours: a momentum of 0.1 suits runs of a few hundred steps."""

    NAME: Annotated[str, built("CenterPoint"), Effect.SHAPE] = "CenterPoint"
    VFE: VoxelFeatures = VoxelFeatures()
    BACKBONE_3D: Backbone3d = Backbone3d()
    MAP_TO_BEV: MapToBev = MapToBev()
    BACKBONE_2D: Backbone2d = Backbone2d()
    DENSE_HEAD: DenseHead = DenseHead()
    POST_PROCESSING: PostProcessing = PostProcessing()
    BATCH_NORM: BatchNorms = BatchNorms()


class Described(Protocol):
    """What of a config the network follows from."""

    @property
    def MODEL(self) -> Model:
        """The parts."""

    @property
    def DATA_CONFIG(self) -> DataConfig:
        """The grid and its limits."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the head's outputs."""


def detector_settings(config: Described) -> DetectorSettings:
    """Give what the detector is built from; raise ConfigError where parts do not fit each other."""
    model, voxels = config.MODEL, config.DATA_CONFIG.voxels
    return DetectorSettings(
        geometry=geometry(config.DATA_CONFIG),
        voxels=VoxelSettings(
            max_points_per_voxel=voxels.MAX_POINTS_PER_VOXEL,
            max_voxels=voxels.MAX_NUMBER_OF_VOXELS.train,
            overflow=voxels.OVERFLOW,
        ),
        vfe=_vfe(model.VFE),
        focal=_focal(model.BACKBONE_3D.FOCAL_ENCODER),
        dsvt=_dsvt(model.BACKBONE_3D.DSVT),
        bev=_bev(model.MAP_TO_BEV, model.BACKBONE_2D),
        head=_head(model.DENSE_HEAD, config.class_names),
        decode=_decode(model.DENSE_HEAD.POST_PROCESSING),
        point_features=len(config.DATA_CONFIG.POINT_FEATURE_ENCODING.used_feature_list),
        bn_eps=model.BATCH_NORM.EPS,
        bn_momentum=model.BATCH_NORM.MOMENTUM,
    )


def geometry(data: DataConfig) -> Geometry:
    """Give the grid; raise ConfigError where the range is no whole number of voxels."""
    return Geometry(point_cloud_range=data.POINT_CLOUD_RANGE, voxel_size=data.voxels.VOXEL_SIZE)


def _vfe(vfe: VoxelFeatures) -> VfeSettings:
    return VfeSettings(
        filters=vfe.NUM_FILTERS,
        gates=vfe.NAME == "SDAVFE",
        absolute_xyz=vfe.USE_ABSLOTE_XYZ,
        normalise=vfe.NORMALIZE_COORDS,
        padded_rows=vfe.PADDED_ROWS,
    )


def _focal(encoder: FocalEncoder) -> FocalSettings:
    loss = encoder.LOSS_CONFIG
    return FocalSettings(
        channels=encoder.NUM_FILTERS,
        threshold=encoder.FOCAL_THRESHOLD,
        loss_weight=loss.LOSS_WEIGHT,
        alpha=loss.ALPHA,
        gamma=loss.GAMMA,
        add_loss=loss.ADD_TO_TOTAL,
        balanced=loss.BALANCED,
        supervise_neighbours=loss.SUPERVISE_NEIGHBOURS,
        straight_through=encoder.STRAIGHT_THROUGH,
        edge_cells=encoder.EDGE_CELLS,
        max_growth=math.inf if encoder.MAX_GROWTH is None else encoder.MAX_GROWTH,
    )


def _dsvt(dsvt: Dsvt) -> DsvtSettings:
    windows = dsvt.INPUT_LAYER
    return DsvtSettings(
        d_model=dsvt.d_model[0],
        heads=dsvt.nhead[0],
        feedforward=dsvt.dim_feedforward[0],
        blocks=dsvt.set_info[0].blocks,
        set_size=dsvt.set_info[0].size,
        window=windows.window_shape[0],
        shift=windows.shifts_list[0][1],
        hybrid_factor=windows.hybrid_factor,
        normalise_positions=windows.normalize_pos,
        paired_positions=windows.paired_pos,
    )


def _bev(bev: MapToBev, backbone: Backbone2d) -> BevSettings:
    return BevSettings(
        height_aware=bev.HEIGHT_AWARE,
        height_window=bev.HEIGHT_WINDOW,
        height_loss_weight=bev.HEIGHT_LOSS_WEIGHT,
        layer_nums=backbone.LAYER_NUMS,
        layer_strides=backbone.LAYER_STRIDES,
        filters=backbone.NUM_FILTERS,
        upsample_strides=backbone.UPSAMPLE_STRIDES,
        upsample_filters=backbone.NUM_UPSAMPLE_FILTERS,
    )


def _head(head: DenseHead, class_names: tuple[str, ...]) -> HeadSettings:
    weights = head.LOSS_CONFIG.LOSS_WEIGHTS
    return HeadSettings(
        class_names=class_names,
        shared_channels=head.SHARED_CONV_CHANNEL,
        branch_convs=head.NUM_HM_CONV,
        bias_before_norm=head.USE_BIAS_BEFORE_NORM,
        heading=head.HEADING,
        gaussian_overlap=head.TARGET_ASSIGNER_CONFIG.GAUSSIAN_OVERLAP,
        min_radius=head.TARGET_ASSIGNER_CONFIG.MIN_RADIUS,
        heatmap_weight=weights.cls_weight,
        location_weight=weights.loc_weight,
        code_weights=weights.code_weights,
    )


def _decode(reading: HeadPostProcessing) -> DecodeSettings:
    return DecodeSettings(
        score_threshold=reading.SCORE_THRESH,
        center_limit_range=reading.POST_CENTER_LIMIT_RANGE,
        max_boxes=reading.MAX_OBJ_PER_SAMPLE,
        nms_pre=reading.NMS_CONFIG.NMS_PRE_MAXSIZE,
        nms_post=reading.NMS_CONFIG.NMS_POST_MAXSIZE,
        per_class=reading.NMS_CONFIG.PER_CLASS,
        peaks_only=reading.PEAKS_ONLY,
    )
