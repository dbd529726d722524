"""A plan explained: what a person reads before training starts, what a refusal says, and the same as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unbroken.config import Effect
from unbroken.errors import (
    DamagedFile,
    Incompatible,
    NewerFormat,
    Refused,
    RunHeld,
    UnbrokenError,
    UsageError,
)
from unbroken.fields import count_of
from unbroken.launch.choice import EARLIER
from unbroken.launch.job import Job
from unbroken.launch.spelling import option
from unbroken.launch.verdicts import (
    Curve,
    FineTune,
    Finished,
    Fresh,
    Plan,
    Position,
    Refuse,
    Rejected,
    Resume,
    step_now,
    total_now,
)
from unbroken.quantities import counted
from unbroken.run import Candidate

REFUSALS = (Refused, RunHeld, DamagedFile, Incompatible, NewerFormat, UsageError)
MOST_REJECTED = 6


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A plan for a person, as `lines`, and the same for a program, as JSON-able `data`."""

    lines: tuple[str, ...]
    data: Mapping[str, Any]

    def for_journal(self) -> dict[str, Any]:
        """The data without the files that are merely not used.

        Each session would list all of them again, and the journal, which is read by all, grow with the square of
        sessions.
        """
        kept = [item for item in self.data["rejected"] if item["damaged"] or item["set_aside"]]
        return {**self.data, "rejected": kept}


def explain(job: Job, plan: Plan) -> Explanation:
    """The plan in words and as data: verdict first, then why, what is peculiar to it, and what was passed over."""
    lines = [f"plan: {_headline(job, plan)}", *(f"  because {reason}" for reason in plan.reasons)]
    lines += _shared(job, plan)
    data: dict[str, Any] = {
        "verdict": plan.name,
        "reasons": list(plan.reasons),
        "warnings": list(plan.warnings),
        "notes": list(plan.notes),
        "processes": job.processes,
        "rejected": [
            {
                "file": str(item.path),
                "step": item.step,
                "reason": item.reason,
                "damaged": item.damaged,
                "set_aside": item.set_aside,
            }
            for item in plan.rejected
        ],
    }
    match plan:
        case Fresh():
            data |= {"archive": plan.archive, "next_step": 1}
        case Resume():
            lines += [f"  changed: {change}" for change in plan.changes]
            lines += [f"  accepted: {change.key}, which is recorded in the run for ever" for change in plan.accepted]
            lines += [*_in_data(job, plan), *_extended(job, plan), *_next_rate(plan)]
            data |= _source(plan.source) | {
                "changes": [item.as_data() for item in plan.changes],
                "accepted": [item.key for item in plan.accepted],
                "position": plan.position.as_data() if plan.position else None,
                "lr_before": plan.lr_before,
                "lr_next": plan.lr_next,
                "extension": plan.extension.as_plain() if plan.extension else None,
                "curves": [curve.as_data() for curve in plan.curves],
                "keep_copy": plan.keep_copy,
                "superseded": [str(path) for path in plan.superseded],
                "copied_from": str(plan.copy_from) if plan.copy_from else None,
            }
            if (before := _processes_before(job, plan)) != job.processes:
                data["processes_before"] = before
        case FineTune():
            data |= _source(plan.source) | {"archive": plan.archive, "next_step": 1}
            if plan.fit is not None:
                lines += [f"  shapes: {plan.fit.as_words()}", *(f"  unfit: {words}" for words in plan.fit.examples())]
                lines += [f"  {remark}" for remark in plan.fit.remarks]
                data["fit"] = plan.fit.as_data()
        case Finished():
            data |= _source(plan.source)
        case Refuse():
            lines += [f"  changed: {change}" for change in plan.changes]
            lines += [f"  unfit: {words}" for words in plan.fit.examples()] if plan.fit else []
            lines += [f"  way out: {way}" for way in plan.ways_out]
            data |= {
                "exit_code": plan.exit_code,
                "changes": [item.as_data() for item in plan.changes],
                "ways_out": list(plan.ways_out),
                **({"fit": plan.fit.as_data()} if plan.fit is not None else {}),
            }
    lines += [f"  warning: {warning}" for warning in plan.warnings]
    lines += _passed_over(job, plan.rejected)
    lines += [f"  note: {note}" for note in plan.notes]
    lines += [f"  ignored: {', '.join(job.ignored)}"] if job.ignored else []
    lines += [f"  nothing was changed in {job.directory}"] if isinstance(plan, Refuse) else []
    return Explanation(lines=tuple(lines), data=data)


def refusal(job: Job, plan: Refuse) -> UnbrokenError:
    """The error that a refused launch ends with; its text is the whole plan."""
    kind = next(kind for kind in REFUSALS if kind.exit_code == plan.exit_code)
    return kind("", "\n".join(explain(job, plan).lines))


def _source(source: Candidate) -> dict[str, Any]:
    return {
        "file": str(source.path),
        "step": source.step,
        "next_step": source.step + 1,
        "epoch": source.epoch,
        "check": source.reason,
        "written_by": source.format_name,
    }


def _processes_before(job: Job, plan: Plan) -> int:
    """How many processes wrote what is continued; as many as now where nothing is, or the file does not say."""
    return (count_of(plan.source.inside.get("processes")) if isinstance(plan, Resume) else None) or job.processes


def _shared(job: Job, plan: Plan) -> list[str]:
    """How several processes share what a step computes, and what another number of them than before means.

    Nothing where one computes all, as before.
    """
    if isinstance(plan, Finished | Refuse):
        return []
    inside = plan.source.inside if isinstance(plan, Resume) else {}
    now, before = job.processes, _processes_before(job, plan)
    shards = count_of(inside.get("shards")) or job.options.processes.shards
    if now == before == 1 and not shards:
        return []
    words = f"{before} -> {now}" if before != now else f"{now}"
    if samples := job.samples_per_step:
        least, more = (count * job.micro_batches for count in divmod(samples // job.micro_batches, now))
        each = f"{least} to {least + job.micro_batches}" if more else str(least)
        words += f", of the {samples} samples of a step {each} for each" if now > 1 else ""
        words += f", in {job.micro_batches} micro-batches" if now > 1 and job.micro_batches > 1 else ""
    if shards:
        words += (
            f"; in {counted(shards, 'shard')}, {shards // now} for each, the same bits with any number of processes"
        )
    elif before != now:
        words += "; the same samples in the same order, other last bits"
    return [f"  processes: {words}"]


def _headline(job: Job, plan: Plan) -> str:
    total = f" of {job.total_steps}" if job.total_steps is not None else ""
    match plan:
        case Fresh():
            return f"FRESH - train {job.directory} from step 1{total}"
        case Resume() if _is_done(job, plan):
            return f"RESUME - all {job.total_steps} steps of {job.directory} are done, what comes after them is not"
        case Resume():
            lr = f", learning rate {plan.lr_next:.6g}" if plan.lr_next is not None else ""
            return f"RESUME - continue {job.directory} at {_next_step(job, plan)}{lr}"
        case FineTune():
            return f"FINE-TUNE - train {job.directory} from step 1{total}, with the weights of another run"
        case Finished():
            return f"FINISHED - {job.directory} is complete, nothing to do"
        case Refuse():
            return f"REFUSE (exit {plan.exit_code}, {_meaning(plan.exit_code)}) - {job.directory} is not trained now"


def _next_step(job: Job, plan: Resume) -> str:
    """`step 61 of 180`, and in a training by epochs the epoch that this step is of."""
    total = f" of {total_now(job, plan.source)}" if job.total_steps is not None else ""
    words = f"step {plan.source.step + 1}{total}"
    if job.epochs is None or not job.steps_per_epoch:
        return words
    return f"{words} (epoch {step_now(job, plan.source) // job.steps_per_epoch + 1} of {job.epochs})"


def _is_done(job: Job, plan: Resume) -> bool:
    return job.total_steps is not None and step_now(job, plan.source) >= job.total_steps


def _in_data(job: Job, plan: Resume) -> list[str]:
    """Where in the data it goes on, and how the steps through it change."""
    position = plan.position
    if position is None or _is_done(job, plan):
        return []
    order = plan.source.inside.get("order", {})
    lines = [f"  data: {_place(position, drawn='drawn' in order)}"]
    before, now = position.before, position.now
    numbers = {
        "samples of a step": (before.samples_per_step, now.samples_per_step),
        "steps of an epoch": (before.steps_per_epoch, now.steps_per_epoch),
        "steps in all": (before.total_steps, now.total_steps),
    }
    changed = [f"{what} {old} -> {new}" for what, (old, new) in numbers.items() if old and new and old != new]
    if position.schedule_step != plan.source.step:
        changed.append(f"the schedule is where {counted(position.schedule_step, 'step')} of the present size lead to")
    return [*lines, *([f"  steps: {', '.join(changed)}"] if changed else [])]


def _place(position: Position, *, drawn: bool) -> str:
    """`drawn` where a sampler gave the order: samples may come twice in it, its places do not."""
    epoch = position.epochs + 1
    if position.size != position.size_before:
        return (
            f"the data set had {counted(position.size_before, 'sample')} and now has {position.size}: what was begun "
            f"is not continued, epoch {epoch} begins"
        )
    if not position.used:
        done = f"{counted(position.epochs, 'whole epoch')} of {counted(position.size, 'sample')}"
        return f"{done} {'is' if position.epochs == 1 else 'are'} done, epoch {epoch} begins"
    all_of_it = f"its {counted(position.size, 'sample')}"
    if drawn:
        all_of_it = f"the {counted(position.size, 'place')} that its sampler drew"
    return (
        f"epoch {epoch} goes on: {position.used} of {all_of_it} are used, the other {position.left} follow, none twice"
    )


def _extended(job: Job, plan: Resume) -> list[str]:
    """How the schedule of a finished run goes on, and how else it could."""
    if plan.extension is None:
        return []
    extension = plan.extension
    lines = [f"  extended from {extension.seam} to {extension.total} steps by {extension.policy}"]
    if not plan.curves:
        return [f"{lines[0]}, at an earlier launch"]
    lines[0] += f": learning rate {extension.lr:.4g} at the seam{_course(plan.curves[0], extension.seam)}"
    return lines + [f"  or {option(job, 'on-extend', curve.policy)}: {_otherwise(curve)}" for curve in plan.curves[1:]]


def _next_rate(plan: Resume) -> list[str]:
    """The jump that a changed schedule makes, where no extension says it already."""
    scheduled = any(change.effect is Effect.SCHEDULE for change in plan.changes)
    if not scheduled or plan.curves or plan.lr_before is None or plan.lr_next in (None, plan.lr_before):
        return []
    return [f"  learning rate: {plan.lr_before:.6g} now -> {plan.lr_next:.6g} in the next step"]


def _course(curve: Curve, seam: int) -> str:
    if curve.policy == "hold":
        return " and to the end"
    at_once = curve.peak_step == seam + 1
    jump = f" -> {curve.lr_first:.4g} in the next step" if at_once or curve.policy != "rewarm" else ""
    peak = "" if at_once else f" -> {curve.lr_peak:.4g} at step {curve.peak_step}"
    return f"{jump}{peak} (peak) -> {curve.lr_end:.4g} at the end"


def _otherwise(curve: Curve) -> str:
    match curve.policy:
        case _ if not curve.learns:
            return "nothing would be learned, the learning rate would be 0"
        case "hold":
            return f"{curve.lr_first:.4g} to the end"
        case "stretch":
            return f"jump to {curve.lr_first:.4g} in the next step, then along the longer schedule"
        case "restart":
            peak = f" to {curve.lr_peak:.4g} at step {curve.peak_step}" if curve.lr_peak > curve.lr_first else ""
            return f"the whole schedule again, from {curve.lr_first:.4g}{peak}"
        case "rewarm":
            return f"a short warm-up to {curve.lr_peak:.4g} at step {curve.peak_step}, then along the longer schedule"


def _meaning(exit_code: int) -> str:
    kind = next(kind for kind in REFUSALS if kind.exit_code == exit_code)
    return kind.meaning.partition(":")[0]


def _passed_over(job: Job, rejected: tuple[Rejected, ...]) -> list[str]:
    def named(item: Rejected) -> str:  # with its folder where it lies elsewhere than in the run
        return item.path.name if item.path.is_relative_to(job.directory) else str(item.path)

    damaged = [f"  damaged: {named(item)} - {item.reason}" for item in rejected if item.damaged]
    earlier = [item for item in rejected if not item.damaged and item.reason == EARLIER]
    others = [item for item in rejected if not item.damaged and item.reason != EARLIER]
    lines = [f"  not used: {named(item)} (step {item.step}) - {item.reason}" for item in others[:MOST_REJECTED]]
    if len(others) > MOST_REJECTED:
        lines.append(f"  not used: {len(others) - MOST_REJECTED} more files")
    if len(earlier) == 1:
        lines.append(f"  not used: {named(earlier[0])} (step {earlier[0].step}) - {EARLIER}")
    elif earlier:
        steps = sorted(item.step for item in earlier)
        lines.append(f"  not used: {len(earlier)} checkpoints of earlier steps ({steps[0]} to {steps[-1]})")
    return damaged + lines
