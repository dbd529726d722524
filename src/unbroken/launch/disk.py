"""Whether the disk will hold what a training saves: bytes of a save x how many are kept, against the room left. Pure.

A *save* is a checkpoint under a name of its own, or under the rolling name, where each replaces the one before. While
one is written, what it will replace is still there: that moment decides whether it fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from unbroken.checkpoint.retention import NEVER_FEWER_THAN
from unbroken.launch.job import Job

MOST_SAVES = 200_000  # that are counted one by one; who saves more often than that has no use for a forecast


@dataclass(frozen=True, kw_only=True)
class SavePolicy:
    """When a training saves, and how many checkpoints stay; None for a reason that does not apply, or to keep all."""

    steps: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    steps_per_epoch: int | None = None
    keep_last: int | None = None
    rolling: bool = False  # whether saves inside an epoch share one name


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes of a checkpoint, of best weights (0: none are kept), and of all other files by step; who says so."""

    save: int
    best: int = 0
    per_step: float = 0.0
    pictures_per_step: float = 0.0  # of predictions, of which only the best and the last stay
    pictures_most: int = 0
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What lies in the run's folder already: checkpoints with a name of their own, the rolling one, best weights."""

    named: int = 0
    rolling: bool = False
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Room:
    """Bytes that can still be written; `source` says where the number comes from."""

    left: int
    source: str = "free"


@dataclass(frozen=True, kw_only=True)
class DiskForecast:
    """How much more a training will have written at its end, and whether there is room for it.

    `full_at` is the step whose save, or whose records, will find no room. `fits` is the most checkpoints that can be
    kept instead; None where nothing needs to change or no number helps, which `least` tells: what the fewest need.
    """

    policy: SavePolicy
    sizes: Sizes
    room: Room
    until: int | None  # the last step; None where the length is not known
    more: int | None = None
    peak: int | None = None
    full_at: int | None = None
    fits: int | None = None
    fits_more: int | None = None
    least: int = 0
    saves_that_fit: int | None = None  # where the length is not known
    paced: bool = True  # False where saves by the clock could not be counted: the pace is not known

    def as_data(self) -> dict[str, Any]:
        """JSON-able data."""
        return asdict(self)


def policy_of(job: Job) -> SavePolicy:
    """When a recipe's job saves."""
    asked = job.options
    return policy(job, asked.get("save_every"), asked.get("save_every_epochs"), asked.get("save_every_s"))


def policy(job: Job, steps: int | None, epochs: int | None, seconds: float | None) -> SavePolicy:
    """The same from its numbers."""
    return SavePolicy(
        steps=steps,
        epochs=epochs,
        seconds=seconds,
        steps_per_epoch=job.steps_per_epoch,
        keep_last=job.keep_last,
        rolling=bool(job.layout.rolling_name),
    )


def forecast_disk(
    policy: SavePolicy,
    sizes: Sizes,
    stored: Stored,
    room: Room,
    *,
    done: int,
    total: int | None,
    step_s: float | None,
) -> DiskForecast:
    """Count the saves from step `done` to `total` at a pace of `step_s`."""
    paced = policy.seconds is None or policy.rolling or step_s is not None
    found = DiskForecast(policy=policy, sizes=sizes, room=room, until=total, paced=paced)
    if total is None:
        return replace(found, saves_that_fit=max(room.left // max(sizes.save, 1), 0))
    course = list(_course(policy, sizes, stored, done=done, total=total, step_s=step_s))
    if not course:  # it is complete
        return replace(found, more=0, peak=0)
    more, peak = course[-1][2], max(at_once for _, at_once, _ in course)
    full_at = _first_beyond(course, room.left, done, sizes.per_step)
    found = replace(found, more=more, peak=peak, full_at=full_at)
    return found if full_at is None else _with_way_out(found, stored, done=done, total=total, step_s=step_s)


def _with_way_out(found: DiskForecast, stored: Stored, *, done: int, total: int, step_s: float | None) -> DiskForecast:
    """The most checkpoints that can be kept so that it fits; by halving, because fewer never take more."""

    def with_kept(keep: int) -> tuple[int, int]:
        kept = replace(found.policy, keep_last=keep)
        course = list(_course(kept, found.sizes, stored, done=done, total=total, step_s=step_s))
        return max(at_once for _, at_once, _ in course), course[-1][2]

    least = with_kept(NEVER_FEWER_THAN)[0]
    if least > found.room.left:
        return replace(found, least=least)
    low, high = NEVER_FEWER_THAN, found.policy.keep_last or found.room.left // max(found.sizes.save, 1) + 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if with_kept(middle)[0] <= found.room.left else (low, middle - 1)
    return replace(found, fits=low, fits_more=with_kept(low)[1], least=least)


def _course(
    policy: SavePolicy, sizes: Sizes, stored: Stored, *, done: int, total: int, step_s: float | None
) -> Iterator[tuple[int, int, int]]:
    """At each save: its step, the bytes that are new in the moment of writing, and those that stay."""
    named, rolling, kept = stored.named, stored.rolling, max(policy.keep_last or 0, NEVER_FEWER_THAN)
    best = 0
    for step, milestone in _saves(policy, done=done, total=total, step_s=step_s):
        pictures = min((step - done) * sizes.pictures_per_step, sizes.pictures_most)
        others = round((step - done) * sizes.per_step + pictures)

        def bytes_of(files: int, *, rolling: bool = rolling, best: int = best, others: int = others) -> int:
            return (files - stored.named + rolling - stored.rolling) * sizes.save + best + others

        at_once = bytes_of(named + 1)  # before what it replaces, or what retention removes, is gone
        if milestone:
            named = min(named + 1, kept) if policy.keep_last is not None else named + 1
        else:
            rolling = True
        best = 0 if stored.best else sizes.best
        yield step, at_once, bytes_of(named, rolling=rolling, best=best)


def _saves(policy: SavePolicy, *, done: int, total: int, step_s: float | None) -> Iterator[tuple[int, bool]]:
    """The steps of the saves to come, and whether each keeps a name of its own; the last step is always one."""
    per_epoch = policy.steps_per_epoch or 0
    by_clock = None
    if policy.seconds is not None and step_s:
        by_clock = max(-(-policy.seconds // step_s), 1)
    step, saves = done, 0
    while step < total and saves < MOST_SAVES:
        coming = [total]
        if policy.steps:
            coming.append((step // policy.steps + 1) * policy.steps)
        if policy.epochs and per_epoch:
            span = policy.epochs * per_epoch
            coming.append((step // span + 1) * span)
        if by_clock is not None:
            coming.append(step + int(by_clock))
        step, saves = min(coming), saves + 1
        ends_epoch = bool(per_epoch) and step % per_epoch == 0
        counted = not policy.epochs or (bool(per_epoch) and step % (policy.epochs * per_epoch) == 0)
        yield step, not policy.rolling or step == total or (ends_epoch and counted)
    if saves == MOST_SAVES:
        yield total, True


def _first_beyond(course: list[tuple[int, int, int]], left: int, done: int, per_step: float) -> int | None:
    """The first step at which there is no room: that of a save, or one between two, where records fill the rest."""
    step_before, stays = done, 0
    for step, at_once, after in course:
        records = stays + (step - step_before) * per_step
        if records > left and per_step > 0:
            return min(step, step_before + max(int((left - stays) / per_step), 0) + 1)
        if at_once > left:
            return step
        step_before, stays = step, after
    return None
