"""Where in the data a checkpoint stands, and which of the present job's steps that is.

Progress is kept in samples. A step may take more or fewer of them than before (another batch size, another
accumulation), and the training goes on at the same place in the data all the same.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from unbroken.launch.job import Job
from unbroken.run import Candidate


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a training goes through its data; None where it is known only once the data is seen."""

    samples_per_step: int | None
    steps_per_epoch: int | None
    total_steps: int | None


@dataclass(frozen=True, kw_only=True)
class Position:
    """The place in the data: `used` of the `size` samples of the epoch after `epochs` whole ones are used."""

    epochs: int
    used: int
    size: int
    before: Pace
    now: Pace

    @property
    def left(self) -> int:
        """Samples of the epoch in progress that follow."""
        return self.size - self.used

    def as_data(self) -> dict[str, Any]:
        """JSON-able data."""
        return {**asdict(self), "left": self.left}


def position_of(job: Job, source: Candidate) -> Position | None:
    """The place in the data of a checkpoint that says so; another program's does not."""
    position, size = source.inside.get("position"), source.inside.get("dataset_size")
    if not isinstance(position, int) or not isinstance(size, int) or size <= 0:
        return None
    return Position(
        epochs=position // size,
        used=position % size,
        size=size,
        before=Pace(
            samples_per_step=_number(source, "samples_per_step"),
            steps_per_epoch=_number(source, "steps_per_epoch"),
            total_steps=_number(source, "total"),
        ),
        now=Pace(
            samples_per_step=job.samples_per_step, steps_per_epoch=job.steps_per_epoch, total_steps=job.total_steps
        ),
    )


def step_now(job: Job, source: Candidate) -> int:
    """At which of this job's steps the checkpoint is: its place in the data counts, as steps may have been shorter."""
    found = position_of(job, source)
    if found is None or job.epochs is None or not job.steps_per_epoch:
        return source.step
    return found.epochs * job.steps_per_epoch + -(-found.used * job.steps_per_epoch // found.size)


def _number(source: Candidate, name: str) -> int | None:
    value = source.inside.get(name)
    return value if isinstance(value, int) else None
