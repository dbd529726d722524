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
    """Counters after a finished step, as a checkpoint carries them."""

    step: int = 0  # optimizer steps done
    position: int = 0  # samples used since the run began, over all processes
    dataset_size: int = 0  # samples of an epoch; 0 where that is not known, as of a stream
    closed_epochs: int = 0  # epochs whose end was done, when the loop goes by epochs
    ended: str = ""  # why no step follows this one, where the loop said so; else empty
    begun_epochs: int = 0  # epochs whose beginning was done, when the loop goes by epochs
    order: dict[str, Any] = field(default_factory=dict)  # of the epoch in progress; see feed.py and data/stream.py
    stream: Any = None  # the state of a stream that has one, in plain values
    fingerprint: str = ""  # of the data set's files, where it has one
    evaluated_step: int = 0  # step whose weights were evaluated last
    best: Best | None = None  # best evaluation so far: its metric, value and step
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    extension: dict[str, Any] | None = None  # in force, when the run was finished once and made longer
    accepted: list[dict[str, Any]] = field(default_factory=list)  # changes of meaning that the user wanted
    skipped: int = 0  # samples that could not be read and were left out, as the user wished
    divisions: list[dict[str, Any]] = field(default_factory=list)  # what ran out of memory taught; see memory.py
    excluded: list[list[int]] = field(default_factory=list)  # [epoch, sample] of steps that went wrong; see finite.py
    not_finite: int = 0  # steps that went on although their loss was not finite, as the user wished

    @property
    def epoch(self) -> int:
        """Return how many passes over the data set are complete."""
        return self.position // self.dataset_size if self.dataset_size else self.order.get("passes", 0)

    @property
    def epoch_of_last_sample(self) -> int:
        """Return the epoch that the last used sample was of, from 0."""
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
