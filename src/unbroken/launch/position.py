"""Where in the data a checkpoint stands, and at which step of the present config's schedule that is.

Progress is kept in samples. A step may take more or fewer of them than before (another batch size, another
accumulation), and the training goes on at the same place in the data all the same. A checkpoint counts the steps that
were really done; the schedule of a training by epochs counts its own, of the present size, so that its last step is
the last one of the training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from unbroken.fields import count_of
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
    """The place in the data: `used` of the `size` samples of the epoch after `epochs` whole ones are used.

    `size_before` is another number where the data set changed; the epoch in progress is then not continued. In a
    training by epochs `schedule_step` steps of the present schedule lead to this place.
    """

    epochs: int
    used: int
    size: int
    size_before: int
    schedule_step: int
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
    position, before = count_of(source.inside.get("position")), count_of(source.inside.get("dataset_size"))
    if position is None or not before:
        return None
    size = job.samples or before
    epochs, used = _place(position, before, size)
    step = step_now(job, source)
    total = job.total_steps
    return Position(
        epochs=epochs,
        used=used,
        size=size,
        size_before=before,
        schedule_step=step,
        before=Pace(
            samples_per_step=count_of(source.inside.get("samples_per_step")),
            steps_per_epoch=count_of(source.inside.get("steps_per_epoch")),
            total_steps=count_of(source.inside.get("total")),
        ),
        now=Pace(
            samples_per_step=job.samples_per_step,
            steps_per_epoch=job.steps_per_epoch,
            total_steps=total_now(job, source) if total is not None else None,
        ),
    )


def step_now(job: Job, source: Candidate) -> int:
    """At which step of this job's schedule a checkpoint is."""
    position, size = count_of(source.inside.get("position")), count_of(source.inside.get("dataset_size"))
    if position is None or size is None:
        return source.step
    return schedule_step(job, step=source.step, position=position, size=size)


def total_now(job: Job, source: Candidate) -> int:
    """How many steps the training will have done at its end, counted as the checkpoint counts them."""
    return source.step + (job.total_steps or 0) - step_now(job, source)


def schedule_step(job: Job, *, step: int, position: int, size: int) -> int:
    """The step of the job's schedule at which a place in the data is: as far from its end as steps are left.

    `step` is what was really done; in a training by steps that is all that counts.
    """
    per_epoch = job.steps_per_epoch
    if job.epochs is None or not per_epoch or size <= 0:
        return step
    size_now = job.samples or size
    epochs, used = _place(position, size, size_now)
    if not used:
        return epochs * per_epoch
    per_step = job.samples_per_step or -(-size_now // per_epoch)
    return (epochs + 1) * per_epoch - -(-(size_now - used) // per_step)


def _place(position: int, size: int, size_now: int) -> tuple[int, int]:
    """Whole epochs, and samples used of the next; with other data, the epoch that was begun is not gone on with."""
    return divmod(position, size) if size == size_now else (-(-position // size), 0)
