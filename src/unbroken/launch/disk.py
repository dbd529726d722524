"""Whether the disk will hold what a training saves: bytes of a save x how many are kept, against the room left.

A *save* is a checkpoint under a name of its own, or under the rolling name, where each replaces the one before. While
one is written, what it will replace is still there: that moment decides whether it fits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unbroken.checkpoint import NEVER_FEWER_THAN
from unbroken.checkpoint.manifest import Manifest
from unbroken.checkpoint.sharded import head_of
from unbroken.config import Effect, changes
from unbroken.launch.decide import Facts
from unbroken.launch.facts import MOST_SIBLINGS
from unbroken.launch.forecast import cost_in, kills_in, save_interval_s
from unbroken.launch.job import AUTO, Job, Quota, SaveEvery
from unbroken.launch.verdicts import FineTune, Fresh, Plan, Resume, total_now
from unbroken.quantities import size_text
from unbroken.run import RunView
from unbroken.run.folder import entries, walk
from unbroken.run.layout import ARCHIVE_FOLDER
from unbroken.run.predictions import LAST_EVALUATIONS, evaluations_in
from unbroken.storage import is_ordinary
from unbroken.text import shown

MOST_SAVES = 200_000  # that are counted one by one; who saves more often than that has no use for a forecast
GROWING = (".jsonl", ".log", ".txt", "scalars.json")  # records: a little with every step
GARBLED = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)  # of records that were edited
MANIFEST_BYTES = 500  # beside each save
UNKNOWN = "disk: how much a save takes is known once the model is built; `unbroken why --shapes` builds it"


@dataclass(frozen=True, kw_only=True)
class SavePolicy:
    """When a training saves, and how many checkpoints stay; None for a reason that does not apply, or to keep all."""

    steps: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    auto: bool = False  # `seconds` are found by what saves cost, and by how often the run is killed
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
class DiskUse:
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
    return policy(job, asked.save_every, asked.save_every_epochs, asked.save_every_s)


def policy(job: Job, steps: int | None, epochs: int | None, seconds: SaveEvery) -> SavePolicy:
    """The same from its numbers."""
    return SavePolicy(
        steps=steps,
        epochs=epochs,
        seconds=None if isinstance(seconds, str) else seconds,
        auto=seconds == AUTO,
        steps_per_epoch=job.steps_per_epoch,
        keep_last=job.keep_last,
        rolling=bool(job.layout.rolling_name),
    )


def forecast_disk(
    policy: SavePolicy,
    sizes: Sizes,
    stored: DiskUse,
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


def _with_way_out(found: DiskForecast, stored: DiskUse, *, done: int, total: int, step_s: float | None) -> DiskForecast:
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
    policy: SavePolicy, sizes: Sizes, stored: DiskUse, *, done: int, total: int, step_s: float | None
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


def planned_disk(
    job: Job,
    plan: Plan,
    facts: Facts,
    timing: Mapping[str, Any],
    known: Sizes | None = None,
    *,
    asked: SavePolicy | None = None,
) -> DiskForecast | None:
    """The forecast of a launch; None where nothing is trained, or where nobody knows how much a save takes."""
    if not isinstance(plan, Fresh | FineTune | Resume):
        return None
    try:
        done, total = 0, job.total_steps
        if isinstance(plan, Resume):
            here = facts.survey.view or RunView(job.directory, job.layout)
            done = plan.source.step
            total = total_now(job, plan.source) if total is not None else _recorded_total(timing, done)
            copy = next((found.view for found in facts.elsewhere if found.directory == plan.copy_from), None)
            sizes = known or sizes_in(copy or (here if plan.copy_from is None else RunView(plan.copy_from)))
            stored = stored_in(here)
        else:
            sizes, stored = known or _sizes_beside(job), DiskUse()
        if sizes is None:
            return None
        steps, seconds = timing.get("steps"), timing.get("seconds")
        step_s = float(seconds) / int(steps) if steps and seconds else None
        room = room_for(job.directory, job.quota)
        saves = asked or policy_of(job)
        if saves.auto:
            kills = kills_in(facts.history_of(plan).events)
            saves = replace(saves, seconds=round(save_interval_s(cost_in(timing), kills), 1))
        return forecast_disk(saves, sizes, stored, room, done=done, total=total, step_s=step_s)
    except (OSError, *GARBLED):  # what cannot be looked at is not forecast
        return None


def sizes_in(view: RunView, *, anew: bool = False) -> Sizes | None:
    """How much the newest save of a run takes, its best weights, and its records by step; None without a save.

    With `anew` for a run that has none of them yet.
    """
    run, here = view.directory, list(_saved(view))
    checkpoints = [item for item in here if item.kind == "checkpoint"]
    if not checkpoints:
        return None
    newest = max(checkpoints, key=lambda item: item.step)
    pictures = [_bytes_below(place) for place in evaluations_in(run / view.layout.predictions).values()]
    average = sum(pictures) / len(pictures) if pictures else 0.0
    best = max((item for item in here if item.kind == "weights"), key=lambda item: item.step, default=None)
    return Sizes(
        save=newest.size_bytes + MANIFEST_BYTES,
        best=best.size_bytes + MANIFEST_BYTES if best is not None else 0,
        per_step=_records_bytes(run) / newest.step if newest.step else 0.0,
        pictures_per_step=sum(pictures) / newest.step if newest.step else 0.0,
        pictures_most=round(average * max(LAST_EVALUATIONS + 1 - (0 if anew else len(pictures)), 0)),
    )


def stored_in(view: RunView) -> DiskUse:
    """Which saves lie in a run's folder."""
    here, rolling = list(_saved(view)), view.layout.rolling_name
    named = [item for item in here if item.kind == "checkpoint" and item.file != rolling]
    return DiskUse(
        named=len(named),
        rolling=any(item.file == rolling for item in here),
        best=any(item.kind == "weights" for item in here),
    )


def room_for(directory: Path, quota: Quota | None) -> Room:
    """The room beside a run: what the file system has free, or less, if a quota leaves less."""
    folder = next((path for path in (directory, *directory.absolute().parents) if path.is_dir()), Path())
    import shutil

    room = Room(left=shutil.disk_usage(folder).free)
    if quota is None:
        return room
    counted = quota.folder if quota.folder.resolve() in directory.resolve().parents else directory.absolute().parent
    left = max(quota.size_bytes - _bytes_below(counted), 0)
    source = f"left of {size_text(quota.size_bytes)} ({quota.source})"
    return Room(left=left, source=source) if left < room.left else room


def _sizes_beside(job: Job) -> Sizes | None:
    """Those of a run beside this one whose model has the same shape; None where there is none."""
    for entry in list(entries(str(job.directory.absolute().parent)))[:MOST_SIBLINGS]:
        view = RunView(Path(entry.path))
        if view.record is None or view.record.recipe != job.recipe or job.is_script:
            continue
        config = view.config
        if not config or any(change.effect is Effect.SHAPE for change in changes(config, job.config, job.effects)):
            continue
        if (found := sizes_in(view, anew=True)) is not None:
            return replace(found, source=f"as of {shown(entry.name)}")
    return None


def _saved(view: RunView) -> Iterator[Manifest]:
    for name in view.manifest_names:
        manifest = view.manifest(name)
        if manifest is not None and is_ordinary(head_of(view.checkpoints / name)):
            yield manifest


def _records_bytes(run: Path) -> int:
    found = 0
    for folder, name, facts in walk(str(run), ()):
        first, *_ = parts = folder.split("/")
        grows = "eval" in parts or name.endswith(GROWING) or "tfevents" in name
        found += facts.st_size if grows and first != ARCHIVE_FOLDER else 0
    return found


def _bytes_below(folder: Path) -> int:
    found = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                found += (Path(place) / name).lstat().st_size
    return found


def _recorded_total(timing: Mapping[str, Any], done: int) -> int | None:
    """How long the last session knew a script's training to be."""
    total = timing.get("total")
    return total if isinstance(total, int) and total > done else None


def planned_disk_lines(job: Job, plan: Plan, found: DiskForecast | None) -> list[str]:
    """The same of a plan, also where it is not known yet."""
    if found is not None:
        return disk_lines(job, found)
    return [UNKNOWN] if isinstance(plan, Fresh | FineTune) and job.blueprint else []


def disk_lines(job: Job, found: DiskForecast) -> list[str]:
    """What a person is told before the first step."""
    source = f" ({found.sizes.source})" if found.sizes.source else ""
    kept = "all kept" if found.policy.keep_last is None else f"the last {found.policy.keep_last} kept"
    save = f"disk: {size_text(found.sizes.save)} a save{source}, {_rhythm(found.policy)}, {kept}"
    room = f"{size_text(found.room.left)} {found.room.source}"
    if found.until is None or found.more is None:
        return [f"{save}; {room}: room for {found.saves_that_fit:,} saves"]
    growth = f"{size_text(abs(found.more))} {'more' if found.more >= 0 else 'less'} until step {found.until}"
    unsure = "" if found.paced else ", and those by the clock, which are counted once steps were timed"
    line = f"{save}: {growth}{unsure}; {room}"
    if found.full_at is None:
        return [line]
    return [f"warning: {line}: full at step {found.full_at}", f"  {_way_out(job, found)}"]


def _way_out(job: Job, found: DiskForecast) -> str:
    if found.fits is None:
        return (
            f"no number of kept checkpoints fits: the fewest need {size_text(found.least)}. Make room, or choose "
            "another disk; a save that finds none is tried again, and the training ends if that does not help"
        )
    more = size_text(max(found.fits_more or 0, 0))
    return f"with {keeping(job, found.fits)} it fits: {more} more until step {found.until}"


def keeping(job: Job, number: int) -> str:
    """How many checkpoints are kept, as it is set at this front door."""
    if job.is_script:
        return f"open_run(..., keep_last={number})"
    setting = job.flags.get("keep_last", "")
    if "." in setting:  # a key of the config
        return job.override.format(key=setting, value=number)
    return f"--{setting or 'keep_last'} {number}"


def _rhythm(policy: SavePolicy) -> str:
    words = []
    if policy.steps:
        words.append("every step" if policy.steps == 1 else f"every {policy.steps} steps")
    if policy.epochs:
        words.append("every epoch" if policy.epochs == 1 else f"every {policy.epochs} epochs")
    if policy.seconds is not None:
        words.append(f"every {policy.seconds:g} s")
    return " and ".join(words) or "at the end"
