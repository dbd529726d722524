"""The whole config of the sonar detector, and the pace of learning in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from focalsst.config.data import DataConfig
from focalsst.config.network import Model, disagreements
from focalsst.config.original import not_built, with_published
from unbroken.config import (
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

ONE_CYCLE = Instead("one cycle: OPTIMIZATION.LR, DIV_FACTOR, PCT_START")
SHAPE, MEANING, DATA = Effect.SHAPE, Effect.MEANING, Effect.DATA
SCHEDULE, FREE, IGNORED = Effect.SCHEDULE, Effect.FREE, Effect.IGNORED

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
