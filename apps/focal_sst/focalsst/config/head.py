"""The network from the bird's-eye view on: map, 2-D convolutions, centre head, and how boxes are read from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from focalsst.config.values import Count, Counts, Fraction, FromZero, NotNegative, Range6, built, only
from unbroken.config import Effect, Misfit, Section

SHAPE, MEANING, SCHEDULE = Effect.SHAPE, Effect.MEANING, Effect.SCHEDULE
FREE, IGNORED = Effect.FREE, Effect.IGNORED

CODES = 8  # of a box: x, y, z, log dx, dy, dz, cosine and sine of the heading
BRANCHES = ("center", "center_z", "dim", "rot")


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
