"""The network: voxel features, focal encoder, set attention; bird's-eye view, centre head, and how boxes are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from focalsst.config.data import Metres3, Range6
from unbroken.config import (
    Count,
    Effect,
    Fraction,
    FromZero,
    Misfit,
    NotNegative,
    Positive,
    Section,
    Since,
    built,
    only,
)

SHAPE, MEANING, SCHEDULE = Effect.SHAPE, Effect.MEANING, Effect.SCHEDULE
FREE, IGNORED = Effect.FREE, Effect.IGNORED
Cells3 = tuple[Count, Count, Count]  # along x, y, z
Shift3 = tuple[NotNegative, NotNegative, NotNegative]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
CODES = 8  # of a box: x, y, z, log dx, dy, dz, cosine and sine of the heading
BRANCHES = ("center", "center_z", "dim", "rot")


def _one_stage(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) != 1:
        raise ValueError("a list of one value, for one stage: DSVT with several stages is not built here")
    return values


ONE_STAGE = AfterValidator(_one_stage)


class VoxelFeatures(Section):
    """Points of a voxel to one row: SDAVFE, or SimpleVFE, which is the same without its gates.

    NORMALIZE_COORDS (default False): coordinates enter as fractions of range and voxel, not in metres. PADDED_ROWS
    (default False; published: True): the places of a voxel that no point fills take part in norms and maxima.
    VOXEL_SIZE and POINT_CLOUD_RANGE are copies: they may be left out, and must agree with DATA_CONFIG.
    """

    NAME: Annotated[str, built("SDAVFE", "SimpleVFE"), SHAPE] = "SDAVFE"
    NUM_FILTERS: Annotated[Counts, SHAPE] = (64, 64)
    USE_NORM: Annotated[bool, only(True), SHAPE] = True
    USE_ABSLOTE_XYZ: Annotated[bool, SHAPE] = True  # so spelt in OpenPCDet
    WITH_DISTANCE: Annotated[bool, IGNORED] = False  # SDAVFE reads it nowhere
    NORMALIZE_COORDS: Annotated[bool, MEANING] = False
    PADDED_ROWS: Annotated[bool, MEANING, Since(before=False)] = False
    VOXEL_SIZE: Annotated[Metres3 | None, IGNORED] = None
    POINT_CLOUD_RANGE: Annotated[Range6 | None, IGNORED] = None

    def misfits(self) -> Iterator[Misfit]:
        """SimpleVFE's distance is not built."""
        if self.NAME == "SimpleVFE" and self.WITH_DISTANCE:
            yield Misfit("WITH_DISTANCE", "is not built for SimpleVFE", expected=False, found=True)


class FocalLoss(Section):
    """The loss of the importance: which voxels lie in an object.

    Three faults of the published code are repaired, each by a switch that is on by default. ADD_TO_TOTAL: the
    loss is added to the total (published: computed and thrown away). BALANCED: ALPHA for objects, 1 - ALPHA for the
    rest, divided by the number of positives (published: ALPHA for both, and the mean). SUPERVISE_NEIGHBOURS: the
    26 neighbours that a voxel may add have targets too (published: only the voxel itself).
    """

    LOSS_WEIGHT: Annotated[FromZero, SCHEDULE] = 1.0
    ALPHA: Annotated[FromZero, SCHEDULE] = 0.25
    GAMMA: Annotated[FromZero, SCHEDULE] = 2.0
    ADD_TO_TOTAL: Annotated[bool, MEANING] = True
    BALANCED: Annotated[bool, MEANING] = True
    SUPERVISE_NEIGHBOURS: Annotated[bool, MEANING] = True

    def misfits(self) -> Iterator[Misfit]:
        """Balanced weights are not negative."""
        if self.BALANCED and self.LOSS_WEIGHT > 0 and self.ALPHA > 1:
            yield Misfit("ALPHA", "is no share, as BALANCED needs", "0 to 1", self.ALPHA)


class FocalEncoder(Section):
    """Convolutions that mix neighbouring voxels, and the importance that adds voxels; above 1 it adds none.

    STRAIGHT_THROUGH (default True): the choice of voxels gets a gradient (published: none). MAX_GROWTH
    (default 1.0): new voxels of a frame, as a fraction of those it has; null, as published, for no limit. EDGE_CELLS
    (default True): the first cell of an axis can get a new voxel (published: only the last one can).
    VOXEL_SIZE and POINT_CLOUD_RANGE are copies: they may be left out, and must agree with DATA_CONFIG.
    """

    NAME: Annotated[str, built("FocalSparseEncoder"), SHAPE] = "FocalSparseEncoder"
    NUM_FILTERS: Annotated[tuple[Count, Count], SHAPE] = (32, 64)  # of the first two convolutions
    FOCAL_THRESHOLD: Annotated[FromZero, MEANING] = 0.5
    FOCAL_TOPK: Annotated[bool, only(False), MEANING] = False
    STRAIGHT_THROUGH: Annotated[bool, MEANING] = True
    MAX_GROWTH: Annotated[FromZero | None, MEANING] = 1.0
    EDGE_CELLS: Annotated[bool, MEANING, Since(before=True)] = True
    LOSS_CONFIG: FocalLoss = FocalLoss()
    VOXEL_SIZE: Annotated[Metres3 | None, IGNORED] = None
    POINT_CLOUD_RANGE: Annotated[Range6 | None, IGNORED] = None


class SetInfo(Section):
    """Written `[size, blocks]`: voxels in a set, which no weight depends on, and the number of blocks."""

    size: Annotated[Count, MEANING] = 32
    blocks: Annotated[Count, SHAPE] = 4

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            if len(value) != 2:
                raise ValueError("[voxels in a set, number of blocks]")
            return {"size": value[0], "blocks": value[1]}
        return value


Sets = Annotated[tuple[SetInfo, ...], ONE_STAGE]


class InputLayer(Section):
    """How voxels are divided into windows and sets; cells along x, y, z.

    sparse_shape, d_model and set_info are copies: they may be left out, and must agree with the grid and with DSVT.
    paired_pos (default True): each layer takes the positions of its block's own shift (published: of shift i).
    """

    sparse_shape: Annotated[Cells3 | None, IGNORED] = None
    d_model: Annotated[tuple[Count, ...] | None, IGNORED] = None
    set_info: Annotated[tuple[SetInfo, ...] | None, IGNORED] = None
    downsample_stride: Annotated[tuple[Cells3, ...], SHAPE] = ()
    window_shape: Annotated[tuple[Cells3, ...], ONE_STAGE, MEANING] = ((20, 10, 10),)
    hybrid_factor: Annotated[Cells3, MEANING] = (1, 1, 1)
    shifts_list: Annotated[tuple[tuple[Shift3, Shift3], ...], ONE_STAGE, MEANING] = (((0, 0, 0), (10, 5, 5)),)
    normalize_pos: Annotated[bool, MEANING] = False
    paired_pos: Annotated[bool, MEANING] = True

    def misfits(self) -> Iterator[Misfit]:
        """There is one stage, and its first shift is none."""
        if self.downsample_stride:
            found = [list(stride) for stride in self.downsample_stride]
            yield Misfit("downsample_stride", "is of DSVT with several stages, which is not built here", [], found)
        if self.shifts_list[0][0] != (0, 0, 0):
            yield Misfit("shifts_list", "does not begin without a shift", [0, 0, 0], list(self.shifts_list[0][0]))


class Dsvt(Section):
    """Set attention in windows, one stage: the lists have one value each."""

    NAME: Annotated[str, built("DSVT"), SHAPE] = "DSVT"
    INPUT_LAYER: InputLayer = InputLayer()
    block_name: Annotated[tuple[Annotated[str, built("DSVTBlock")], ...], ONE_STAGE, SHAPE] = ("DSVTBlock",)
    set_info: Annotated[Sets, SHAPE] = (SetInfo(),)
    d_model: Annotated[tuple[Count, ...], ONE_STAGE, SHAPE] = (128,)
    nhead: Annotated[tuple[Count, ...], ONE_STAGE, MEANING] = (8,)
    dim_feedforward: Annotated[tuple[Count, ...], ONE_STAGE, SHAPE] = (192,)
    dropout: Annotated[float, only(0.0), MEANING] = 0.0
    activation: Annotated[str, built("gelu"), MEANING] = "gelu"
    output_shape: Annotated[tuple[Count, Count] | None, IGNORED] = None  # a copy of the grid's x, y
    conv_out_channel: Annotated[NotNegative | None, IGNORED] = None
    reduction_type: Annotated[str | None, IGNORED] = None  # between stages
    ues_checkpoint: Annotated[bool, IGNORED] = False  # so spelt in DSVT

    def misfits(self) -> Iterator[Misfit]:
        """Each head is equally wide."""
        if self.d_model[0] % self.nhead[0]:
            yield Misfit("nhead", f"does not divide d_model {self.d_model[0]}", found=self.nhead[0])


class Backbone3d(Section):
    """The focal encoder, then set attention."""

    NAME: Annotated[str, built("FocalDSVT"), SHAPE] = "FocalDSVT"
    FOCAL_ENCODER: FocalEncoder = FocalEncoder()
    DSVT: Dsvt = Dsvt()


class BatchNorms(Section):
    """Batch norms of everything but the head and the position embeddings."""

    EPS: Annotated[Positive, MEANING] = 1e-3
    MOMENTUM: Annotated[Positive, MEANING] = 0.01


class MapToBev(Section):
    """The columns of the grid to a map: the maximum over z, which forgets the height.

    HEIGHT_AWARE (default False): mean height and weight of each column enter the map, and center_z becomes a
    residual to the mean height over HEIGHT_WINDOW x HEIGHT_WINDOW columns; a few weights more. HEIGHT_LOSS_WEIGHT
    teaches which voxels count for that height: those inside labelled boxes. NUM_BEV_FEATURES is a copy of DSVT's
    d_model and may be left out.
    """

    NAME: Annotated[str, built("DsvtToDenseBEV"), SHAPE] = "DsvtToDenseBEV"
    NUM_BEV_FEATURES: Annotated[Count | None, IGNORED] = None
    HEIGHT_AWARE: Annotated[bool, SHAPE] = False
    HEIGHT_WINDOW: Annotated[Count, MEANING] = 3
    HEIGHT_LOSS_WEIGHT: Annotated[FromZero, SCHEDULE] = 0.0

    def misfits(self) -> Iterator[Misfit]:
        """A window has a middle."""
        if self.HEIGHT_WINDOW % 2 == 0:
            yield Misfit("HEIGHT_WINDOW", "has no middle", "an odd number of columns", self.HEIGHT_WINDOW)


class Backbone2d(Section):
    """2-D convolutions in stages, brought back to one size."""

    NAME: Annotated[str, built("BaseBEVBackbone"), SHAPE] = "BaseBEVBackbone"
    LAYER_NUMS: Annotated[tuple[NotNegative, ...], Field(min_length=1), SHAPE] = (5, 5)
    LAYER_STRIDES: Annotated[Counts, MEANING] = (1, 2)
    NUM_FILTERS: Annotated[Counts, SHAPE] = (128, 128)
    UPSAMPLE_STRIDES: Annotated[Counts, SHAPE] = (1, 2)
    NUM_UPSAMPLE_FILTERS: Annotated[Counts, SHAPE] = (128, 128)

    def misfits(self) -> Iterator[Misfit]:
        """Each stage needs one number of every kind."""
        stages = len(self.LAYER_NUMS)
        for name in ("LAYER_STRIDES", "NUM_FILTERS", "UPSAMPLE_STRIDES", "NUM_UPSAMPLE_FILTERS"):
            found = getattr(self, name)
            if len(found) != stages:
                yield Misfit(name, "needs one number per stage of LAYER_NUMS", f"{stages} numbers", list(found))


class Branch(Section):
    """One branch of the head: what it says, and its convolutions."""

    out_channels: Annotated[Count, SHAPE]
    num_conv: Annotated[Count, SHAPE] = 2


class HeadDict(Section):
    """The branches beside the heatmap."""

    center: Branch = Branch(out_channels=2)
    center_z: Branch = Branch(out_channels=1)
    dim: Branch = Branch(out_channels=3)
    rot: Branch = Branch(out_channels=2)

    def misfits(self) -> Iterator[Misfit]:
        """A box has these codes."""
        for name, channels in zip(BRANCHES, (2, 1, 3, 2)):
            found = getattr(self, name).out_channels
            if found != channels:
                yield Misfit(f"{name}.out_channels", "is not what a box needs", channels, found)


class SeparateHeadCfg(Section):
    """The branches of the head in their order."""

    HEAD_ORDER: Annotated[tuple[str, ...], SHAPE] = BRANCHES
    HEAD_DICT: HeadDict = HeadDict()

    def misfits(self) -> Iterator[Misfit]:
        """The order is that of the codes."""
        if self.HEAD_ORDER != BRANCHES:
            yield Misfit("HEAD_ORDER", "is not what is built here", list(BRANCHES), list(self.HEAD_ORDER))


class TargetAssigner(Section):
    """The heatmap that is learned: a Gaussian around each centre."""

    FEATURE_MAP_STRIDE: Annotated[Count | None, IGNORED] = None  # a copy: follows from BACKBONE_2D's strides
    NUM_MAX_OBJS: Annotated[Count, IGNORED] = 500  # here every object of a frame has its target
    GAUSSIAN_OVERLAP: Annotated[float, Field(gt=0, lt=1), MEANING] = 0.15
    MIN_RADIUS: Annotated[NotNegative, MEANING] = 2


class LossWeights(Section):
    """The weights of the head's losses, and of the 8 codes of a box."""

    cls_weight: Annotated[FromZero, SCHEDULE] = 1.0
    loc_weight: Annotated[FromZero, SCHEDULE] = 0.25
    code_weights: Annotated[tuple[FromZero, ...], Field(min_length=CODES, max_length=CODES), SCHEDULE] = (1.0,) * CODES


class HeadLoss(Section):
    """The losses of the head."""

    LOSS_WEIGHTS: LossWeights = LossWeights()


class NmsConfig(Section):
    """Of boxes that overlap on the ground by more than NMS_THRESH, the best stays.

    PER_CLASS (default True): boxes compete with those of their class only (published: a diver can suppress the box
    below it).
    """

    NMS_TYPE: Annotated[str, IGNORED] = "nms_gpu"  # one way, on every device
    NMS_THRESH: Annotated[Fraction, FREE] = 0.2
    NMS_PRE_MAXSIZE: Annotated[Count, FREE] = 1000
    NMS_POST_MAXSIZE: Annotated[Count, FREE] = 83
    PER_CLASS: Annotated[bool, FREE] = True


class HeadPostProcessing(Section):
    """From maps to boxes; nothing here touches training.

    PEAKS_ONLY (default True): only cells that are the best of their 3x3 neighbours count (published: all cells).
    """

    SCORE_THRESH: Annotated[Fraction, FREE] = 0.1
    POST_CENTER_LIMIT_RANGE: Annotated[Range6, FREE] = (0.0, -50.0, -20.0, 100.0, 50.0, 20.0)  # m
    MAX_OBJ_PER_SAMPLE: Annotated[Count, FREE] = 500
    NMS_CONFIG: NmsConfig = NmsConfig()
    PEAKS_ONLY: Annotated[bool, FREE] = True


class DenseHead(Section):
    """The centre head, one for all classes.

    HEADING (default axis): cosine and sine of twice the heading, since labels repeat by pi; `direction`, as
    published, of the heading itself. CLASS_NAMES_EACH_HEAD is a copy of CLASS_NAMES and may be left out.
    """

    NAME: Annotated[str, built("CenterHead"), SHAPE] = "CenterHead"
    CLASS_AGNOSTIC: Annotated[bool, IGNORED] = False  # read nowhere in CenterHead
    CLASS_NAMES_EACH_HEAD: Annotated[tuple[tuple[str, ...], ...] | None, IGNORED] = None
    SHARED_CONV_CHANNEL: Annotated[Count, SHAPE] = 64
    USE_BIAS_BEFORE_NORM: Annotated[bool, SHAPE] = True
    NUM_HM_CONV: Annotated[Count, SHAPE] = 2
    UPSAMPLE: Annotated[int, only(1), SHAPE] = 1
    BN_EPS: Annotated[float, only(1e-5), MEANING] = 1e-5
    BN_MOM: Annotated[float, only(0.1), MEANING] = 0.1
    HEADING: Annotated[Literal["axis", "direction"], MEANING] = "axis"
    SEPARATE_HEAD_CFG: SeparateHeadCfg = SeparateHeadCfg()
    TARGET_ASSIGNER_CONFIG: TargetAssigner = TargetAssigner()
    LOSS_CONFIG: HeadLoss = HeadLoss()
    POST_PROCESSING: HeadPostProcessing = HeadPostProcessing()

    def misfits(self) -> Iterator[Misfit]:
        """All branches are equally deep."""
        for name in BRANCHES:
            found = getattr(self.SEPARATE_HEAD_CFG.HEAD_DICT, name).num_conv
            if found != self.NUM_HM_CONV:
                key = f"SEPARATE_HEAD_CFG.HEAD_DICT.{name}.num_conv"
                yield Misfit(key, "differs from NUM_HM_CONV; only one depth is built here", self.NUM_HM_CONV, found)


class PostProcessing(Section):
    """What evaluation reports; the threshold of scores that counts is DENSE_HEAD.POST_PROCESSING.SCORE_THRESH."""

    RECALL_THRESH_LIST: Annotated[tuple[Fraction, ...], FREE] = (0.3, 0.5, 0.7)
    SCORE_THRESH: Annotated[Any, IGNORED] = None
    OUTPUT_RAW_SCORE: Annotated[Any, IGNORED] = None
    EVAL_METRIC: Annotated[Any, IGNORED] = None
