"""The pace of learning: optimizer, phases of the learning rate, number of iterations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from mapsage.config.values import Count, Fraction, FromZero, NotNegative, Positive, Rate
from unbroken.config import Effect, Misfit, Section

SHAPE, SCHEDULE, FREE, IGNORED = Effect.SHAPE, Effect.SCHEDULE, Effect.FREE, Effect.IGNORED


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
