"""The learning rate of a run, step by step: what was used so far, and what the plan would use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unbroken.fields import number_of
from unbroken.journal import read_steps
from unbroken.launch.job import Job
from unbroken.launch.position import step_now
from unbroken.launch.verdicts import FineTune, Finished, Fresh, Plan, Resume
from unbroken.run.layout import own

MOST_POINTS = 400
Points = tuple[tuple[int, float], ...]  # (step, counted from 1; learning rate)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The rates of `done` steps as they were recorded, and of those `ahead`."""

    done: Points
    ahead: Points

    @property
    def all(self) -> Points:
        """Both, in order."""
        return (*self.done, *self.ahead)


def rates_of(job: Job, plan: Plan) -> Rates | None:
    """The rates of a run under a plan; None where no schedule is known."""
    if job.lr_at is None or job.total_steps is None:
        return None
    match plan:
        case Fresh() | FineTune():
            return Rates(done=(), ahead=_points(job.lr_at, 0, job.total_steps))
        case Resume():
            step = step_now(job, plan.source)
            ahead = _points(rate_ahead(job.lr_at, plan), step, job.total_steps)
            return Rates(
                done=_recorded(job, plan.source.step),
                ahead=tuple((place - step + plan.source.step, rate) for place, rate in ahead),
            )
        case Finished():
            return Rates(done=_recorded(job, plan.source.step), ahead=())
    return None


def rate_ahead(lr_at: Callable[[int], float], plan: Plan) -> Callable[[int], float]:
    """The rate of each step to come under a plan, by steps of the job's schedule."""
    extension = plan.extension if isinstance(plan, Resume) else None
    if extension is None:
        return lr_at
    return lambda step: extension.value_at(step, start=extension.lr, scheduled=lr_at)


def _points(rate_at: Callable[[int], float], first: int, last: int) -> Points:
    stride = max(1, (last - first) // MOST_POINTS)
    steps = sorted({*range(first, last, stride), last - 1}) if first < last else []
    return tuple((step + 1, rate_at(step)) for step in steps)


def _recorded(job: Job, reached: int) -> Points:
    """The last record of each step."""
    rates = {
        int(record["step"]): lr
        for record in read_steps(own(job.directory) / "metrics.jsonl")
        if (lr := number_of(record.get("lr"))) is not None and record["step"] <= reached
    }
    points = sorted(rates.items())
    stride = max(1, len(points) // MOST_POINTS)
    return (*points[:-1:stride], *points[-1:])
