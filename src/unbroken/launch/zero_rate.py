"""Steps ahead that would train at a learning rate of 0, which changes nothing: found and said before they are done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unbroken.launch.job import Job
from unbroken.launch.position import step_now
from unbroken.launch.preview import rate_ahead
from unbroken.launch.verdicts import FineTune, Fresh, Plan, Resume
from unbroken.quantities import counted

MOST_LOOKED_AT = 32_768  # steps of a schedule; a longer one is looked at in strides


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a person has to know of such steps: `warnings` of work that is wasted, `notes` of a schedule's two ends."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def zero_rate_words(job: Job, plan: Plan) -> Said:
    """The steps at rate 0 under a plan, as far as the schedule is known; steps are numbered as the run counts them."""
    if job.lr_at is None or job.total_steps is None or not isinstance(plan, Fresh | FineTune | Resume):
        return Said()
    first = step_now(job, plan.source) if isinstance(plan, Resume) else 0
    shift = plan.source.step - first if isinstance(plan, Resume) else 0
    begins = plan.extension.seam if isinstance(plan, Resume) and plan.extension is not None else 0
    warnings, notes, total = [], [], job.total_steps
    for begin, end in zero_spans(rate_ahead(job.lr_at, plan), first, total):
        what = f"step {begin + 1 + shift}" if end - begin == 1 else f"steps {begin + 1 + shift} to {end + shift}"
        words = f"{what} would train at learning rate 0 (nothing changes)"
        if end - begin == 1 and begin == begins:
            notes.append(f"{words}: the schedule begins there")
        elif end - begin == 1 and end == total:
            notes.append(f"{words}: it is the last one, where the schedule comes to 0")
        elif end == total:
            shorter = counted(begin + 1 + shift, "step")
            reach = f"let it reach step {total + shift} (its last phase must end there), or train {shorter}"
            warnings.append(f"{words}: the schedule ends at step {begin + 1 + shift}; {reach}")
        else:
            warnings.append(f"{words}: the schedule is at 0 there")
    return Said(warnings=tuple(warnings), notes=tuple(notes))


def zero_spans(rate_at: Callable[[int], float], first: int, last: int) -> list[tuple[int, int]]:
    """The ranges [begin, end) of steps within [first, last) whose rate is 0."""
    stride = max(1, (last - first) // MOST_LOOKED_AT)
    spans: list[tuple[int, int]] = []
    for step in sorted({*range(first, last, stride), last - 1}) if first < last else ():
        if rate_at(step) != 0 or (spans and step < spans[-1][1]):
            continue
        begin, end = step, step + 1
        while begin > (spans[-1][1] if spans else first) and rate_at(begin - 1) == 0:
            begin -= 1
        while end < last and rate_at(end) == 0:
            end += 1
        spans.append((begin, end))
    return spans
