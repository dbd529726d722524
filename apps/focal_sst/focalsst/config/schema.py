"""The whole config of the sonar detector, what must agree and fit in it, and the detector that it describes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import Field, model_validator

from focalsst.config.data import DataConfig, GtSampling
from focalsst.config.model import (
    Backbone2d,
    Backbone3d,
    BatchNorms,
    DenseHead,
    Dsvt,
    FocalEncoder,
    MapToBev,
    PostProcessing,
    VoxelFeatures,
)
from focalsst.config.original import not_built, with_published
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
from unbroken.config import (
    ConfigError,
    Count,
    Effect,
    Fraction,
    FromZero,
    Instead,
    Misfit,
    NotNegative,
    Positive,
    Section,
    Since,
    built,
)

VFE, ENCODER = "MODEL.VFE", "MODEL.BACKBONE_3D.FOCAL_ENCODER"
DSVT, HEAD = "MODEL.BACKBONE_3D.DSVT", "MODEL.DENSE_HEAD"
RANGE = "DATA_CONFIG.POINT_CLOUD_RANGE"
COPY = "Write {} here, or remove this line: it is a copy."
KEYS = {"model.dsvt": DSVT, "model.bev": "MODEL.BACKBONE_2D", "model.head.code_weights": HEAD}
ONE_CYCLE = Instead("one cycle: OPTIMIZATION.LR, DIV_FACTOR, PCT_START")
SHAPE, MEANING, DATA = Effect.SHAPE, Effect.MEANING, Effect.DATA
SCHEDULE, FREE, IGNORED = Effect.SCHEDULE, Effect.FREE, Effect.IGNORED

Momentum = Annotated[float, Field(ge=0, lt=1)]


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


class Optimization(Section):
    """Adam with decoupled decay under a one-cycle learning rate.

    FREEZE_IN_PROJ (default False; published: True): the projections by which DSVT's attention makes queries, keys and
    values keep their initial weights. Beyond the published keys: EVAL_INTERVAL, epochs between evaluations while
    training, 0 for only at the end; SEED of first weights, order and augmentation; FP16, which `--fp16` sets.
    """

    BATCH_SIZE_PER_GPU: Annotated[Count, SCHEDULE]
    NUM_EPOCHS: Annotated[Count, SCHEDULE]
    GRAD_ACCUMULATION_STEPS: Annotated[Count, SCHEDULE] = 1
    OPTIMIZER: Annotated[str, built("adam_onecycle"), SCHEDULE] = "adam_onecycle"
    LR: Annotated[Positive, SCHEDULE]  # at the peak
    WEIGHT_DECAY: Annotated[FromZero, SCHEDULE] = 0.01
    MOMS: Annotated[tuple[Momentum, Momentum], SCHEDULE] = (0.95, 0.85)  # at the ends, at the peak
    PCT_START: Annotated[Fraction, SCHEDULE] = 0.4  # of all steps, until the peak
    DIV_FACTOR: Annotated[float, Field(ge=1), SCHEDULE] = 10.0  # LR / DIV_FACTOR at the start
    GRAD_NORM_CLIP: Annotated[Positive, SCHEDULE] = 10.0
    LOSS_SCALE_FP16: Annotated[Positive, SCHEDULE] = 65536.0  # the first one; it adapts
    FREEZE_IN_PROJ: Annotated[bool, MEANING, Since(before=False)] = False
    FP16: Annotated[bool, DATA] = False
    SEED: Annotated[NotNegative, DATA] = 0
    EVAL_INTERVAL: Annotated[NotNegative, FREE] = 10

    # What adam_onecycle does not read.
    MOMENTUM: Annotated[Any, IGNORED, Instead("OPTIMIZATION.MOMS")] = None
    DECAY_STEP_LIST: Annotated[Any, IGNORED, ONE_CYCLE] = None
    LR_DECAY: Annotated[Any, IGNORED, ONE_CYCLE] = None
    LR_CLIP: Annotated[Any, IGNORED, ONE_CYCLE] = None
    LR_WARMUP: Annotated[Any, IGNORED, Instead("OPTIMIZATION.PCT_START")] = None
    WARMUP_EPOCH: Annotated[Any, IGNORED, Instead("OPTIMIZATION.PCT_START")] = None


class ClassName(Section):
    """Written as its name alone: another name or order is another meaning, another number another shape."""

    name: Annotated[str, MEANING]

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping) else {"name": value}


class SonarConfig(Section):
    """A config of the sonar detector: what a file in `cfgs/sonar_models` says, with its base.

    AS_PUBLISHED is not a setting of its own but stands for those of `published.SWITCHES`: True sets each of them as the
    original is, whatever the file says of it. A file that does not say AS_PUBLISHED is one of the original's, and is
    trained as it is there, except for the switches that it sets itself.
    """

    CLASS_NAMES: Annotated[tuple[ClassName, ...], SHAPE]
    DATA_CONFIG: DataConfig
    MODEL: Model
    OPTIMIZATION: Optimization
    AS_PUBLISHED: Annotated[bool, MEANING] = True
    HOOK: Annotated[Any, IGNORED] = None

    @classmethod
    def not_built(cls, tree: Mapping[str, Any], /) -> Misfit | None:
        """Whether it is another network than the one that is built here."""
        return not_built(tree)

    @classmethod
    def completed(cls, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        """With what AS_PUBLISHED stands for, or the original's defaults where it is not said."""
        return with_published(tree)

    def misfits(self) -> Iterator[Misfit]:
        """What is said in several places agrees, and the parts fit each other."""
        if not any(True for _ in self.DATA_CONFIG.misfits()) and not any(
            True for _ in self.MODEL.BACKBONE_2D.misfits()
        ):
            yield from disagreements(self)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the head's outputs."""
        return tuple(item.name for item in self.CLASS_NAMES)

    @property
    def map_class_to_kitti(self) -> dict[str, str]:
        """KITTI's name of each class, which decides how much overlap counts."""
        return {name: self.DATA_CONFIG.MAP_CLASS_TO_KITTI[name] for name in self.class_names}


def detector_settings(config: SonarConfig) -> DetectorSettings:
    """Give what the detector is built from; raise ConfigError where parts do not fit each other."""
    model, voxels, reading = config.MODEL, config.DATA_CONFIG.voxels, config.MODEL.DENSE_HEAD.POST_PROCESSING
    return DetectorSettings(
        geometry=geometry(config.DATA_CONFIG),
        voxels=VoxelSettings(
            max_points_per_voxel=voxels.MAX_POINTS_PER_VOXEL,
            max_voxels=voxels.MAX_NUMBER_OF_VOXELS.train,
            overflow=voxels.OVERFLOW,
        ),
        vfe=VfeSettings(
            filters=model.VFE.NUM_FILTERS,
            gates=model.VFE.NAME == "SDAVFE",
            absolute_xyz=model.VFE.USE_ABSLOTE_XYZ,
            normalise=model.VFE.NORMALIZE_COORDS,
            padded_rows=model.VFE.PADDED_ROWS,
        ),
        focal=_focal(model.BACKBONE_3D.FOCAL_ENCODER),
        dsvt=_dsvt(model.BACKBONE_3D.DSVT),
        bev=_bev(model.MAP_TO_BEV, model.BACKBONE_2D),
        head=_head(model.DENSE_HEAD, config.class_names),
        decode=DecodeSettings(
            score_threshold=reading.SCORE_THRESH,
            center_limit_range=reading.POST_CENTER_LIMIT_RANGE,
            max_boxes=reading.MAX_OBJ_PER_SAMPLE,
            nms_pre=reading.NMS_CONFIG.NMS_PRE_MAXSIZE,
            nms_post=reading.NMS_CONFIG.NMS_POST_MAXSIZE,
            per_class=reading.NMS_CONFIG.PER_CLASS,
            peaks_only=reading.PEAKS_ONLY,
        ),
        point_features=len(config.DATA_CONFIG.POINT_FEATURE_ENCODING.used_feature_list),
        bn_eps=model.BATCH_NORM.EPS,
        bn_momentum=model.BATCH_NORM.MOMENTUM,
    )


def geometry(data: DataConfig) -> Geometry:
    """Give the grid; raise ConfigError where the range is no whole number of voxels."""
    return Geometry(point_cloud_range=data.POINT_CLOUD_RANGE, voxel_size=data.voxels.VOXEL_SIZE)


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


def disagreements(config: SonarConfig) -> Iterator[Misfit]:
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


def _class_misfits(config: SonarConfig) -> Iterator[Misfit]:
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
