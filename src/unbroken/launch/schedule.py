"""Which schedule counts: the config's own, or that of a finished run that is made longer; and its rates step by step.

Steps that would train at a learning rate of 0, which changes nothing, are found and said before they are done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from unbroken.fields import number_of
from unbroken.journal import read_steps
from unbroken.launch.extension import POLICIES, USUAL, Extension, Policy, cycle_of, warmup_of
from unbroken.launch.job import Job
from unbroken.launch.refusals import refuse_zero_rate
from unbroken.launch.spelling import option
from unbroken.launch.verdicts import Curve, FineTune, Finished, Fresh, Plan, Refuse, Resume, step_now
from unbroken.quantities import counted
from unbroken.run import Candidate
from unbroken.run.layout import own

MOST_POINTS = 4096  # of a curve that is looked at; a longer one is looked at in strides
MOST_LOOKED_AT = 32_768  # steps of a schedule; a longer one is looked at in strides
MOST_SHOWN = 400
Points = tuple[tuple[int, float], ...]  # (step, counted from 1; learning rate)


def with_schedule(job: Job, plan: Resume, step: int) -> Resume | Refuse:
    """The plan with the learning rate of its next step; `step` is how far the run is, in steps of this job."""
    lr_at, total, source = job.lr_at, job.total_steps, plan.source
    if lr_at is None:
        return plan
    if total is None:
        return replace(plan, lr_next=lr_at(step))
    known = Extension.from_plain(source.inside.get("extension"))
    if known is not None and known.total == total and known.seam <= step:
        return _going_on(job, plan, known, lr_at(known.place(step).step), step)
    if step < total and plan.lr_before is not None and _was_complete(source):
        return _extended(job, plan, lr_at, plan.lr_before, seam=step, total=total)
    notes = plan.notes
    if known is not None and known.total > step:
        notes = (
            *notes,
            f"the extension to {known.total} steps by {known.policy} ends here: now the config counts",
        )
    return replace(plan, lr_next=lr_at(step), notes=notes)


def _was_complete(source: Candidate) -> bool:
    """Whether the checkpoint holds the end of a training; the journal may say that it was taken up since."""
    total = source.inside.get("total")
    return isinstance(total, int) and 0 < total <= source.step


def _going_on(job: Job, plan: Resume, extension: Extension, scheduled: float, step: int) -> Resume:
    lr_next = extension.value_at(step, start=extension.lr, scheduled=lambda _step: scheduled)
    notes, asked = plan.notes, job.start.on_extend
    if asked not in ("", extension.policy):
        words = f"this run was extended by {extension.policy} at step {extension.seam}, and goes on so"
        notes = (*notes, f"{option(job, 'on-extend', asked)} changes nothing: {words}")
    return replace(plan, extension=extension, lr_next=lr_next, notes=notes)


def _extended(
    job: Job, plan: Resume, lr_at: Callable[[int], float], lr: float, *, seam: int, total: int
) -> Resume | Refuse:
    policy = job.start.on_extend or USUAL
    learns = any(lr_at(step) > 0 for step in range(seam, total))
    if policy in ("rewarm", "stretch") and lr_at(seam) == lr and learns and (lr > 0 or policy == "stretch"):
        return replace(plan, lr_next=lr)  # the schedule goes on where it was: there is no seam
    cycle, warmup = cycle_of(lr_at, total), warmup_of(total - seam)
    if lr == 0:  # a line from 0 to 0 would stand at 0: it ends where the schedule has not yet come to its end
        warmup = next((steps for steps in range(warmup, -1, -1) if lr_at(seam + steps) > 0), warmup)

    def by(policy: Policy) -> Extension:
        return Extension(
            policy=policy,
            seam=seam,
            total=total,
            warmup_steps=warmup if policy == "rewarm" else 0,
            cycle_steps=cycle,
            lr=lr,
        )

    curves = [curve_of(by(each), lr_at) for each in (policy, *(each for each in POLICIES if each != policy))]
    if not curves[0].learns:
        return refuse_zero_rate(job, seam, total, curves)
    return replace(plan, extension=by(policy), curves=tuple(curves), lr_next=curves[0].lr_first)


def curve_of(extension: Extension, lr_at: Callable[[int], float]) -> Curve:
    """The learning rates of the added steps in a few numbers."""
    seam, last = extension.seam, extension.total - 1
    stride = max(1, (last - seam) // MOST_POINTS)
    steps = sorted({*range(seam, last, stride), min(seam + extension.warmup_steps, last), last})
    rates = {step: extension.value_at(step, start=extension.lr, scheduled=lr_at) for step in steps}
    peak = max(steps, key=lambda step: rates[step])
    return Curve(
        policy=extension.policy, lr_first=rates[seam], lr_peak=rates[peak], peak_step=peak + 1, lr_end=rates[last]
    )


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
            reach = f"let it reach step {total + shift} (its last phase must end there)"
            if begin > first or not first:
                warnings.append(f"{words}: the schedule ends at step {begin + 1 + shift}; {reach}, or train {shorter}")
            else:  # it may have ended long before the step that is resumed
                warnings.append(f"{words}: the schedule has ended before; {reach}")
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
    stride = max(1, (last - first) // MOST_SHOWN)
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
    stride = max(1, len(points) // MOST_SHOWN)
    return (*points[:-1:stride], *points[-1:])
