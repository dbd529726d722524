"""The pace of learning, and what a run begins from."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from focalsst.config.values import Count, Fraction, FromZero, NotNegative, Positive, built
from unbroken.config import Effect, Instead, Section, Since

ONE_CYCLE = Instead("one cycle: OPTIMIZATION.LR, DIV_FACTOR, PCT_START")
MEANING, DATA, SCHEDULE, FREE, IGNORED = (
    Effect.MEANING,
    Effect.DATA,
    Effect.SCHEDULE,
    Effect.FREE,
    Effect.IGNORED,
)

Momentum = Annotated[float, Field(ge=0, lt=1)]


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
