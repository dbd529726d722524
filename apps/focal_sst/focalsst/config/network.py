"""From a config to the settings of the detector, and what a config says in several places or must fit in all of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Protocol

from focalsst.config.data import DataConfig, GtSampling
from focalsst.config.model import (
    Backbone2d,
    Backbone3d,
    BatchNorms,
    DenseHead,
    Dsvt,
    FocalEncoder,
    HeadPostProcessing,
    MapToBev,
    PostProcessing,
    VoxelFeatures,
)
from focalsst.model.settings import (
    BevSettings,
    DecodeSettings,
    DetectorSettings,
    DsvtSettings,
    FocalSettings,
    Geometry,
    HeadSettings,
    VfeSettings,
    VoxelSettings,
)
from unbroken.config import ConfigError, Effect, Misfit, Section, built

VFE, ENCODER = "MODEL.VFE", "MODEL.BACKBONE_3D.FOCAL_ENCODER"
DSVT, HEAD = "MODEL.BACKBONE_3D.DSVT", "MODEL.DENSE_HEAD"
RANGE = "DATA_CONFIG.POINT_CLOUD_RANGE"
COPY = "Write {} here, or remove this line: it is a copy."
KEYS = {"model.dsvt": DSVT, "model.bev": "MODEL.BACKBONE_2D", "model.head.code_weights": HEAD}


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


def disagreements(config: Described) -> Iterator[Misfit]:
    """Yield every place that disagrees with the one that decides, with the value to write there."""
    data, model, dsvt = config.DATA_CONFIG, config.MODEL, config.MODEL.BACKBONE_3D.DSVT
    windows, bev, head = dsvt.INPUT_LAYER, model.MAP_TO_BEV, model.DENSE_HEAD
    voxel_key = f"DATA_CONFIG.{data.voxels_key}.VOXEL_SIZE"
    sets = [[(part.size, part.blocks) for part in parts or ()] for parts in (windows.set_info, dsvt.set_info)]
    stride = model.BACKBONE_2D.LAYER_STRIDES[0] // model.BACKBONE_2D.UPSAMPLE_STRIDES[0]
    map_stride = head.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE
    # Of each copy: its key, what is given there, what is right, and which place decides it.
    copies: list[tuple[str, object, object, str]] = []
    for key, part in ((VFE, model.VFE), (ENCODER, model.BACKBONE_3D.FOCAL_ENCODER)):
        copies.append((f"{key}.VOXEL_SIZE", part.VOXEL_SIZE, data.voxels.VOXEL_SIZE, voxel_key))
        copies.append((f"{key}.POINT_CLOUD_RANGE", part.POINT_CLOUD_RANGE, data.POINT_CLOUD_RANGE, RANGE))
    one_head = "CLASS_NAMES, one head for all"
    copies += [
        (f"{DSVT}.INPUT_LAYER.d_model", windows.d_model, dsvt.d_model, f"{DSVT}.d_model"),
        (f"{DSVT}.INPUT_LAYER.set_info", sets[0] or None, sets[1], f"{DSVT}.set_info"),
        ("MODEL.MAP_TO_BEV.NUM_BEV_FEATURES", bev.NUM_BEV_FEATURES, dsvt.d_model[0], f"{DSVT}.d_model"),
        (f"{HEAD}.CLASS_NAMES_EACH_HEAD", head.CLASS_NAMES_EACH_HEAD, (config.class_names,), one_head),
        (f"{HEAD}.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE", map_stride, stride, "MODEL.BACKBONE_2D"),
    ]
    no_grid: list[Misfit] = []
    try:
        cells, decides = geometry(data).grid_xyz, f"the grid of {RANGE} and {voxel_key}"
        copies.append((f"{DSVT}.INPUT_LAYER.sparse_shape", windows.sparse_shape, cells, decides))
        copies.append((f"{DSVT}.output_shape", dsvt.output_shape, cells[:2], decides))
    except ConfigError as error:
        what, do = f"and {RANGE} make no grid: {error.what}", f"{error.do} The range is {RANGE}.".strip()
        no_grid.append(Misfit(voxel_key, what, error.expected, error.found, do))
    wrong = [
        Misfit(key, f"disagrees with {decides}", _shown(right), _shown(given), COPY.format(_shown(right)))
        for key, given, right, decides in copies
        if given is not None and given != right
    ]
    found = [*_class_misfits(config), *wrong, *no_grid]
    yield from found
    if found or any(True for _ in dsvt.misfits()):
        return  # parts that do not fit say so themselves, with the key
    try:
        detector_settings(config)
    except ConfigError as error:
        yield Misfit(KEYS.get(error.where, "MODEL"), error.what, error.expected, error.found, error.do)


def _class_misfits(config: Described) -> Iterator[Misfit]:
    names, kitti = config.class_names, config.DATA_CONFIG.MAP_CLASS_TO_KITTI
    if not names or len(set(names)) < len(names):
        yield Misfit("CLASS_NAMES", "does not name each class once", found=list(names))
    strange = [name for name in names if name not in kitti]
    for name in strange:
        close = get_close_matches(name, kitti, n=1)
        yield Misfit(
            "CLASS_NAMES", f"names `{name}`, which is not in DATA_CONFIG.MAP_CLASS_TO_KITTI",
            expected=" or ".join(kitti), found=name,
            do=f"Did you mean `{close[0]}`?" if close else "Add it there: it says how the class is judged.",
        )  # fmt: skip
    judged = [kitti[name] for name in names if name in kitti]
    if len(set(judged)) < len(judged):
        what = "judges two classes of CLASS_NAMES as one"
        yield Misfit("DATA_CONFIG.MAP_CLASS_TO_KITTI", what, "another KITTI class for each", judged)
    augmentor = config.DATA_CONFIG.DATA_AUGMENTOR
    for place, entry in enumerate(augmentor.AUG_CONFIG_LIST):
        pasted = entry.groups if isinstance(entry, GtSampling) and entry.NAME not in augmentor.DISABLE_AUG_LIST else ()
        for name in pasted:
            if name not in names:
                key = f"DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST.{place}.SAMPLE_GROUPS"
                yield Misfit(key, "names a class that is not in CLASS_NAMES", list(names), name)


def _shown(value: object) -> str:
    """Write a value as YAML has it: lists, not tuples."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
