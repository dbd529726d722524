"""A disk forecast in words, with the setting that would fit as this front door spells it."""

from __future__ import annotations

from unbroken.launch.disk import DiskForecast, SavePolicy
from unbroken.launch.job import Job
from unbroken.launch.verdicts import FineTune, Fresh, Plan
from unbroken.quantities import size_text

UNKNOWN = "disk: how much a save takes is known once the model is built; `unbroken why --shapes` builds it"


def planned_disk_lines(job: Job, plan: Plan, found: DiskForecast | None) -> list[str]:
    """The same of a plan, also where it is not known yet."""
    if found is not None:
        return disk_lines(job, found)
    return [UNKNOWN] if isinstance(plan, Fresh | FineTune) and job.blueprint else []


def disk_lines(job: Job, found: DiskForecast) -> list[str]:
    """What a person is told before the first step."""
    save = f"disk: {size_text(found.sizes.save)} a save{_source(found)}, {_rhythm(found.policy)}, {_kept(found.policy)}"
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


def _source(found: DiskForecast) -> str:
    return f" ({found.sizes.source})" if found.sizes.source else ""


def _rhythm(policy: SavePolicy) -> str:
    words = []
    if policy.steps:
        words.append("every step" if policy.steps == 1 else f"every {policy.steps} steps")
    if policy.epochs:
        words.append("every epoch" if policy.epochs == 1 else f"every {policy.epochs} epochs")
    if policy.seconds is not None:
        words.append(f"every {policy.seconds:g} s")
    return " and ".join(words) or "at the end"


def _kept(policy: SavePolicy) -> str:
    if policy.keep_last is None:
        return "all kept"
    return f"the last {policy.keep_last} kept"
