"""How far a session will get, and how many more it takes: from what earlier sessions recorded of their pace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from unbroken.clock import shown_time
from unbroken.launch.decide import Facts
from unbroken.launch.job import Job, Limit
from unbroken.launch.verdicts import FineTune, Fresh, Plan, Resume, total_now
from unbroken.quantities import counted, duration_text

TIMING = "timing"  # the journal's event


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of a session: the step it will reach, and how many sessions of its length follow, until when."""

    reaches: int
    total: int
    sessions_after: int
    step_s: float
    done_at: datetime


def last_timing(facts: Facts, plan: Plan) -> Mapping[str, Any]:
    """What the last session that did a step, here or where the run is taken from, recorded of its pace; else empty."""
    events = facts.history_of(plan).events
    found = (event for event in reversed(events) if event.get("event") == TIMING and event.get("steps"))
    return next(found, {})


def forecast(job: Job, plan: Plan, timing: Mapping[str, Any], now: datetime) -> Forecast | None:
    """Where this session will end, if the pace stays; None where the length or the pace is not known."""
    steps, seconds = timing.get("steps"), timing.get("seconds")
    if job.total_steps is None or not steps or not seconds or not isinstance(plan, Fresh | FineTune | Resume):
        return None
    done, total = (plan.source.step, total_now(job, plan.source)) if isinstance(plan, Resume) else (0, job.total_steps)
    try:
        step_s, startup_s = float(seconds) / int(steps), float(timing.get("startup_s") or 0.0)
        reaches, after, calendar_s = total, 0, startup_s + (total - done) * step_s
        if job.limit is not None:
            useful_s = _useful_s(job.limit, startup_s)
            reaches = min(total, done + int(useful_s / step_s))
            after = _sessions((total - reaches) * step_s, useful_s)
            calendar_s = calendar_s if not after else (after + 1) * job.limit.left_s
        done_at = now + timedelta(seconds=calendar_s)
    except OverflowError:  # beyond the end of the calendar
        return None
    return Forecast(reaches=reaches, total=total, sessions_after=after, step_s=step_s, done_at=done_at)


def sessions_left(steps: int, timing: Mapping[str, Any], limit: Limit) -> int | None:
    """How many more sessions of this length so many steps take; None where no step was timed."""
    if not timing.get("steps") or not timing.get("seconds"):
        return None
    needed_s = steps * float(timing["seconds"]) / int(timing["steps"])
    return _sessions(needed_s, _useful_s(limit, float(timing.get("startup_s") or 0.0)))


def _useful_s(limit: Limit, startup_s: float) -> float:
    return max(limit.left_s - limit.reserve_s - startup_s, 0.0)


def _sessions(needed_s: float, useful_s: float) -> int:
    return math.ceil(needed_s / useful_s) if useful_s > 0 else 0


def forecast_lines(job: Job, plan: Plan, timing: Mapping[str, Any], now: datetime) -> list[str]:
    """What a person is told of this session's time, before it begins."""
    if not isinstance(plan, Fresh | FineTune | Resume):
        return []
    limit, found = job.limit, forecast(job, plan, timing, now)
    lines = []
    if limit is not None:
        until = now + timedelta(seconds=limit.left_s - limit.reserve_s)
        margin = f"{duration_text(limit.reserve_s)} before its end" if limit.reserve_s else "at its end"
        lines.append(
            f"session: {duration_text(limit.left_s)} ({limit.source}); training stops {margin}, at {shown_time(until)}"
        )
    if found is None:
        return [*lines, *(["  how far it gets is known once steps were timed"] if limit is not None else [])]
    pace = f"at {found.step_s:.3g} s a step, as before{_with_other_samples(plan)}"
    if limit is None:
        whole = duration_text((found.done_at - now).total_seconds())
        return [f"time: about {whole} {pace}: until {shown_time(found.done_at)}"]
    if found.reaches >= found.total:
        return [*lines, f"  {pace}, it reaches the end (step {found.total}) at about {shown_time(found.done_at)}"]
    if not found.sessions_after:
        return [*lines, f"  {pace}, it is too short for a step: the last one took {found.step_s:.3g} s"]
    more = f"{counted(found.sessions_after, 'more session')} of this length"
    return [
        *lines,
        f"  {pace}, it reaches about step {found.reaches} of {found.total}; {more}, one after the other, "
        f"until {shown_time(found.done_at)}",
    ]


def _with_other_samples(plan: Fresh | FineTune | Resume) -> str:
    """What has to be said of a pace that was taken with smaller or larger steps."""
    position = plan.position if isinstance(plan, Resume) else None
    before, now = (position.before.samples_per_step, position.now.samples_per_step) if position else (None, None)
    return f" with {counted(before, 'sample')} a step ({now} now)" if before and now and before != now else ""
