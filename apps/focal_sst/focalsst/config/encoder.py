"""The network up to the bird's-eye view: voxel features, focal encoder, set attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import model_validator

from focalsst.config.values import (
    ONE_STAGE,
    Cells3,
    Count,
    Counts,
    FromZero,
    Metres3,
    NotNegative,
    Positive,
    Range6,
    Shift3,
    built,
    only,
)
from unbroken.config import Effect, Misfit, Section, Since

SHAPE, MEANING, SCHEDULE, IGNORED = Effect.SHAPE, Effect.MEANING, Effect.SCHEDULE, Effect.IGNORED


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
