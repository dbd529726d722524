"""How training goes: optimizer, phases of the learning rate, length, saving, logging, evaluation, the seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from unbroken.config import Count, Effect, Fraction, FromZero, Misfit, NotNegative, Positive, Rate, Section

SHAPE, MEANING, DATA = Effect.SHAPE, Effect.MEANING, Effect.DATA
SCHEDULE, FREE, IGNORED = Effect.SCHEDULE, Effect.FREE, Effect.IGNORED


class AdamW(Section):
    """PyTorch's AdamW."""

    type: Annotated[Literal["AdamW"], SCHEDULE] = "AdamW"
    lr: Annotated[Positive, SCHEDULE]
    betas: Annotated[tuple[Rate, Rate], SCHEDULE] = (0.9, 0.999)
    weight_decay: Annotated[FromZero, SCHEDULE] = 0.01
    eps: Annotated[Positive, SCHEDULE] = 1e-8


class ClipGrad(Section):
    """The norm over all gradients that a step may have."""

    max_norm: Annotated[Positive, SCHEDULE]
    norm_type: Annotated[Positive, SCHEDULE] = 2.0


class Multipliers(Section):
    """Factors for the parameters whose name contains a text."""

    lr_mult: Annotated[FromZero, SCHEDULE] = 1.0
    decay_mult: Annotated[FromZero, SCHEDULE] = 1.0


class ParamwiseCfg(Section):
    """Learning rate and decay by parameter; a rule that is None is not applied."""

    custom_keys: Annotated[dict[str, Multipliers], SCHEDULE] = Field(default_factory=dict)
    norm_decay_mult: Annotated[FromZero | None, SCHEDULE] = None
    bias_lr_mult: Annotated[FromZero | None, SCHEDULE] = None
    bias_decay_mult: Annotated[FromZero | None, SCHEDULE] = None
    dwconv_decay_mult: Annotated[FromZero | None, SCHEDULE] = None

    @property
    def rules(self) -> dict[str, Any]:
        """The rules that are given, as plain data."""
        return self.model_dump(exclude_none=True, exclude_defaults=True)


class OptimWrapper(Section):
    """One step: gradients of `accumulative_counts` micro-batches, clipped, then the optimizer."""

    type: Annotated[Literal["OptimWrapper", "AmpOptimWrapper"], SCHEDULE] = "OptimWrapper"
    optimizer: AdamW
    clip_grad: ClipGrad | None = None
    accumulative_counts: Annotated[Count, SCHEDULE] = 1
    # With it, each parameter is a group of its own: an optimizer state has one form or the other.
    paramwise_cfg: Annotated[ParamwiseCfg | None, SHAPE] = None
    loss_scale: Annotated[Literal["dynamic"] | Positive, SCHEDULE] = "dynamic"  # of AmpOptimWrapper only
    dtype: Annotated[Literal["float16", "bfloat16"] | None, SCHEDULE] = None  # of AmpOptimWrapper only

    def misfits(self) -> Iterator[Misfit]:
        """Half precision is asked for by the wrapper's type alone."""
        if self.type == "OptimWrapper" and self.dtype is not None:
            yield Misfit("dtype", "needs type='AmpOptimWrapper'", found=repr(self.dtype))


def _empty_phase(begin: int, end: int) -> Iterator[Misfit]:
    if end <= begin:
        yield Misfit("end", "makes this phase empty", f"more than begin={begin}", end)


class LinearLR(Section):
    """Warm-up during iterations [begin, end)."""

    type: Annotated[Literal["LinearLR"], SCHEDULE] = "LinearLR"
    start_factor: Annotated[float, Field(gt=0, le=1), SCHEDULE] = 1.0 / 3
    end_factor: Annotated[Fraction, SCHEDULE] = 1.0
    begin: Annotated[NotNegative, SCHEDULE] = 0
    end: Annotated[Count, SCHEDULE]
    by_epoch: Annotated[Literal[False], SCHEDULE] = False

    def misfits(self) -> Iterator[Misfit]:
        """A phase has at least one iteration."""
        yield from _empty_phase(self.begin, self.end)


class PolyLR(Section):
    """Decay to `eta_min` during iterations [begin, end)."""

    type: Annotated[Literal["PolyLR"], SCHEDULE] = "PolyLR"
    power: Annotated[Positive, SCHEDULE] = 1.0
    eta_min: Annotated[FromZero, SCHEDULE] = 0.0
    begin: Annotated[NotNegative, SCHEDULE] = 0
    end: Annotated[Count, SCHEDULE]
    by_epoch: Annotated[Literal[False], SCHEDULE] = False

    def misfits(self) -> Iterator[Misfit]:
        """A phase has at least one iteration."""
        yield from _empty_phase(self.begin, self.end)


Phase = Annotated[LinearLR | PolyLR, Field(discriminator="type")]


class TrainLoop(Section):
    """How long training goes on, and when it is interrupted by validation (iterations)."""

    type: Annotated[Literal["IterBasedTrainLoop"], SCHEDULE] = "IterBasedTrainLoop"
    max_iters: Annotated[Count, SCHEDULE]
    val_interval: Annotated[Count, FREE] = 1000
    val_begin: Annotated[Count, FREE] = 1


class EvalLoop(Section):
    """Validation or test."""

    type: Annotated[Literal["ValLoop", "TestLoop"], FREE] = "ValLoop"
    fp16: Annotated[Literal[False], FREE] = False


class IoUMetric(Section):
    """mIoU, mAcc and aAcc over all labelled pixels."""

    type: Annotated[Literal["IoUMetric"], MEANING] = "IoUMetric"
    iou_metrics: Annotated[tuple[Literal["mIoU"], ...], MEANING] = ("mIoU",)
    ignore_index: Annotated[Literal[255], MEANING] = 255


class CheckpointHook(Section):
    """When a checkpoint is saved (iterations), how many are kept (-1: all), and which one is the best."""

    type: Annotated[Literal["CheckpointHook"], FREE] = "CheckpointHook"
    interval: Annotated[Count, FREE] = 1000
    by_epoch: Annotated[Literal[False], FREE] = False
    max_keep_ckpts: Annotated[int, Field(ge=-1), FREE] = -1
    save_best: Annotated[Literal["mIoU", "mAcc", "aAcc"] | None, FREE] = "mIoU"
    rule: Annotated[Literal["greater"] | None, FREE] = None
    save_last: Annotated[Literal[True], FREE] = True

    def misfits(self) -> Iterator[Misfit]:
        """Keeping none is no way to keep a run."""
        if self.max_keep_ckpts == 0:
            yield Misfit("max_keep_ckpts", "would keep no checkpoint", "-1 for all, or at least 1", 0)


class LoggerHook(Section):
    """How often a line is logged (iterations)."""

    type: Annotated[Literal["LoggerHook"], FREE] = "LoggerHook"
    interval: Annotated[Count, FREE] = 10
    log_metric_by_epoch: Annotated[bool, IGNORED] = False


class DefaultHooks(Section):
    """What MMEngine's hooks decide here: saving and logging; the others have nothing to decide."""

    checkpoint: CheckpointHook = CheckpointHook()
    logger: LoggerHook = LoggerHook()
    timer: Annotated[Any, IGNORED] = None
    param_scheduler: Annotated[Any, IGNORED] = None
    sampler_seed: Annotated[Any, IGNORED] = None
    runtime_info: Annotated[Any, IGNORED] = None
    visualization: Annotated[Any, IGNORED] = None


class Randomness(Section):
    """The seed that sample order, augmentation, dropout and first weights follow from."""

    seed: Annotated[NotNegative, DATA] = 0
    deterministic: Annotated[bool, DATA] = False
    diff_rank_seed: Annotated[bool, IGNORED] = False


class LogProcessor(Section):
    """Losses and times in the log are means over the last `window_size` iterations."""

    type: Annotated[Literal["LogProcessor"], FREE] = "LogProcessor"
    window_size: Annotated[Count, FREE] = 10
    by_epoch: Annotated[bool, IGNORED] = False
    num_digits: Annotated[Count, IGNORED] = 4
