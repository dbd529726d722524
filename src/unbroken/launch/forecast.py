"""How far a session will get, how many more it takes, and how often a save pays: from what earlier sessions recorded.

How often by itself (`auto`): the time between two saves by which the least is lost, to saves and to kills, by J. W.
Young (Comm. ACM 17, 1974) in the form of J. T. Daly (Future Generation Computer Systems 22, 2006), for what a save was
measured to cost here and the kills that this run has met; and never so often that saves take more than 1 % of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from unbroken.clock import shown_time
from unbroken.journal import Event
from unbroken.journal.events import Failed, SessionBegan, Stopped, Timing, TrainingFinished
from unbroken.launch.decide import Facts
from unbroken.launch.job import AUTO, Job, Limit
from unbroken.launch.verdicts import FineTune, Fresh, Plan, Resume, total_now
from unbroken.quantities import counted, duration_text

TIMING = "timing"  # the journal's event
MOST_STOLEN = 0.01  # of the time, by saves
SUPPOSED_S = 12 * 3_600.0  # of training between two kills, while there is nothing to go by
LEAST_S = 1.0  # between two saves, however little they cost
FIRST_S = 60.0  # from the beginning to the first save, while nobody knows what one costs


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


def start_line(phases: Mapping[str, Any]) -> str:
    """How long a start took, phase by phase; "" where nothing is known of that."""
    known = {name: seconds for name, seconds in phases.items() if isinstance(seconds, int | float)}
    listed = ", ".join(f"{name} {duration_text(seconds)}" for name, seconds in known.items())
    return f"{duration_text(sum(known.values()))}: {listed}" if known else ""


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


@dataclass(frozen=True, kw_only=True)
class Kills:
    """How long a run was trained, and how often a session of it ended with no word, as one that is killed does."""

    trained_s: float = 0.0
    count: int = 0

    @property
    def between_s(self) -> float:
        """The time between two of them: one in `SUPPOSED_S` is supposed besides what was seen."""
        return (self.trained_s + SUPPOSED_S) / (self.count + 1)


def kills_in(events: Iterable[Event]) -> Kills:
    """What a journal tells of kills; its last session is over by now."""
    trained_s, count, pace_s, open_ended = 0.0, 0, 0.0, False
    for event in events:
        match event:
            case SessionBegan():
                trained_s, count, pace_s, open_ended = trained_s + pace_s, count + open_ended, 0.0, True
            case Timing():
                pace_s = event.seconds or 0.0
            case Stopped() | Failed() | TrainingFinished():
                open_ended = False
    return Kills(trained_s=trained_s + pace_s, count=count + open_ended)


def best_interval_s(cost_s: float, between_s: float) -> float:
    """The seconds between two saves by which the least time is lost (Daly 2006, equation 37).

    Args:
        cost_s: What a save takes from the training, in seconds.
        between_s: The mean time between two kills, in seconds.
    """
    if cost_s >= 2 * between_s:
        return between_s
    share = cost_s / (2 * between_s)
    return math.sqrt(2 * cost_s * between_s) * (1 + math.sqrt(share) / 3 + share / 9) - cost_s


def save_interval_s(cost_s: float | None, kills: Kills) -> float:
    """The same, and never so often that saves take more than their share; `FIRST_S` while no cost is known."""
    if cost_s is None:
        return FIRST_S
    return max(best_interval_s(cost_s, kills.between_s), cost_s / MOST_STOLEN, LEAST_S)


def cost_in(timing: Mapping[str, Any]) -> float | None:
    """What a save cost the last session, as it recorded; None where none did."""
    cost_s = timing.get("save_cost_s")
    return cost_s if isinstance(cost_s, float) and cost_s > 0 else None


def interval_line(timing: Mapping[str, Any], kills: Kills) -> str:
    """How often a training with `auto` saves, and why."""
    cost_s = cost_in(timing)
    if cost_s is None:
        first = f"the first after {duration_text(FIRST_S)}"
        return f"saves: {first}, then by what one costs and how often the run is killed"
    every, seen = duration_text(save_interval_s(cost_s, kills)), counted(kills.count, "kill")
    met = f"{seen} in {duration_text(kills.trained_s)} so far, one in {duration_text(kills.between_s)} expected"
    return f"saves: about every {every} (one costs {cost_s:.2g} s; {met})"


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


def forecast_lines(job: Job, plan: Plan, timing: Mapping[str, Any], kills: Kills, now: datetime) -> list[str]:
    """What a person is told of this session's time, before it begins."""
    if not isinstance(plan, Fresh | FineTune | Resume):
        return []
    saves = [interval_line(timing, kills)] if job.options.save_every_s == AUTO else []
    return [*_session_lines(job, plan, timing, now), *saves]


def _session_lines(job: Job, plan: Fresh | FineTune | Resume, timing: Mapping[str, Any], now: datetime) -> list[str]:
    """How long it may be, and how far it gets."""
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
