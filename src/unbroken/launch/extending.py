"""Which schedule counts after a resume: the config's own, or that of a finished run that is made longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from unbroken.launch.extension import POLICIES, USUAL, Extension, Policy, cycle_of, warmup_of
from unbroken.launch.job import Job
from unbroken.launch.refusals import refuse_zero_rate
from unbroken.launch.spelling import option
from unbroken.launch.verdicts import Curve, Refuse, Resume
from unbroken.run import Candidate

MOST_POINTS = 4096  # of a curve that is looked at; a longer one is looked at in strides


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
