"""How far a run is: the counters that a checkpoint carries besides the parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(kw_only=True)
class Best:
    """The best evaluation so far."""

    metric: str
    value: float
    step: int


@dataclass(kw_only=True)
class Progress:
    """Counters after a finished step, as a checkpoint carries them.

    Args:
        step: Optimizer steps done.
        position: Samples used since the run began, over all processes.
        dataset_size: Samples of an epoch; 0 where that is not known, as of a stream.
        batch_size: Samples of a micro-batch, over all processes; 0 where that is not known.
        shards: Parts that each micro-batch is computed in, whatever the number of processes; 0: one for each process.
        closed_epochs: Epochs whose end was done, when the loop goes by epochs.
        ended: Why no step follows this one, where the loop said so; else empty.
        begun_epochs: Epochs whose beginning was done, when the loop goes by epochs.
        order: How the samples of the epoch in progress are ordered, as a checkpoint keeps it.
        drawn: What a sampler drew for the epoch in progress, as `EpochIndices.kept` gives it; None: nothing is kept.
        stream: The state of a stream, in plain values; None where it has none.
        fingerprint: What the data set says of its files, where it says something.
        part: Which samples of its data a `Subset` takes, as a checksum; else empty.
        evaluated_step: Step whose weights were evaluated last.
        best: Best evaluation so far: its metric, value and step; None: there is none.
        metrics: What the last evaluation found, by name.
        extension: How the schedule goes on, where the run was finished once and made longer; else None.
        accepted: Changes of meaning that the user wanted.
        skipped: Samples that could not be read and were left out, as the user wished.
        divisions: Into how many parts steps are divided since memory ran out.
        excluded: [epoch, sample] of each sample of a step that went wrong.
        not_finite: Steps that went on although their loss was not finite, as the user wished.
    """

    step: int = 0
    position: int = 0
    dataset_size: int = 0
    batch_size: int = 0
    shards: int = 0
    closed_epochs: int = 0
    ended: str = ""
    begun_epochs: int = 0
    order: dict[str, Any] = field(default_factory=dict)
    drawn: Any = None
    stream: Any = None
    fingerprint: str = ""
    part: str = ""
    evaluated_step: int = 0
    best: Best | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    extension: dict[str, Any] | None = None
    accepted: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    divisions: list[dict[str, Any]] = field(default_factory=list)
    excluded: list[list[int]] = field(default_factory=list)
    not_finite: int = 0

    @property
    def epoch(self) -> int:
        """Complete passes over the data set."""
        return self.position // self.dataset_size if self.dataset_size else self.order.get("passes", 0)

    @property
    def epoch_of_last_sample(self) -> int:
        """The epoch that the last used sample was of, from 0."""
        return (self.position - 1) // self.dataset_size if self.dataset_size else self.epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the last used sample was the last one of its epoch."""
        return self.dataset_size > 0 and self.position > 0 and self.position % self.dataset_size == 0

    def improves(self, metric: str, value: float, *, larger: bool) -> bool:
        """Tell whether an evaluation is better than the best so far, or the first by its metric.

        Args:
            metric: Name of the metric.
            value: What was found; NaN never is better.
            larger: Whether a larger value is the better one.
        Returns:
            True for a value that is better, not for an equal one.
        """
        if math.isnan(value):
            return False
        if self.best is None or self.best.metric != metric:
            return True
        return value > self.best.value if larger else value < self.best.value

    def as_plain(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {**asdict(self), "epoch": self.epoch}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Progress:
        """Return the counters in a checkpoint's `unbroken` entry.

        Args:
            data: What `as_plain` gave, of any version; what an older one did not write has its default, what is not
                known is passed over.
        """
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        best = values.get("best")
        return cls(**{**values, "best": Best(**best) if isinstance(best, Mapping) else None})
