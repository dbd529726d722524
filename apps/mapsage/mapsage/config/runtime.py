"""What leaves the weights alone: saving, logging, evaluation loops; and the seed, which does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from mapsage.config.values import Count, NotNegative
from unbroken.config import Effect, Misfit, Section

MEANING, DATA, FREE, IGNORED = Effect.MEANING, Effect.DATA, Effect.FREE, Effect.IGNORED


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
