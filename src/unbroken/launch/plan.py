"""The launch decision: a pure function from what was asked and what was found to what will happen, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from unbroken.config import Change, Effect, changes, worst
from unbroken.errors import DamagedFile, Incompatible, NewerFormat, Refused, RunHeld
from unbroken.launch.job import Job
from unbroken.launch.verdicts import FineTune, Finished, Fresh, Plan, Refuse, Rejected, Resume
from unbroken.run import Candidate, Survey

GATED = (Effect.SHAPE, Effect.MEANING)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found: the run's own folder, the files the job names, and copies of this run elsewhere."""

    survey: Survey
    exact: Candidate | None = None
    origin: Candidate | None = None
    weights: Candidate | None = None
    elsewhere: tuple[Survey, ...] = ()
    near: tuple[str, ...] = ()  # notes about runs that look like the one that was meant


def decide(job: Job, facts: Facts) -> Plan:
    """Decide what this launch does; golden-tested, touches nothing."""
    plan = _verdict(job, facts)
    rejected = tuple(item for item in _rejected(facts) if not _is_source(plan, item.path))
    return replace(plan, rejected=rejected, notes=(*plan.notes, *_notes(job, facts, plan)))


def _verdict(job: Job, facts: Facts) -> Plan:
    survey = facts.survey
    newer = next((item for item in survey.candidates if item.state == "newer"), None)
    if survey.held:
        return _refuse(RunHeld.exit_code, f"the run is held by {survey.holder or 'another process'}")
    if job.start.fresh:
        return _fresh_over(survey)
    if facts.exact is not None:
        return _resume_exactly(job, facts, facts.exact)
    if newer is not None:
        return _refuse_newer(newer)
    if survey.newest_good is not None:
        return _resume_own(job, survey, survey.newest_good)
    if (copy := _furthest(facts.elsewhere)) is not None:
        return _resume_copy(job, facts, *copy)
    if survey.has_history:
        return _refuse_lost(job, survey)
    return _begin(job, facts)


def _begin(job: Job, facts: Facts) -> Plan:
    """A run without history: from a named file, or from nothing."""
    if facts.origin is not None:
        reason = f"the config names {facts.origin.path} as the start of this run"
        return _resume_named(job, facts.origin, reason=reason)
    if facts.weights is not None:
        return _fine_tune(facts.weights)
    sessions = len(facts.survey.sessions)
    if not sessions:
        return Fresh(reasons=("nothing was trained here before",))
    word = "session ended" if sessions == 1 else "sessions ended"
    return Fresh(reasons=(f"{sessions} earlier {word} before the first save, so there is nothing to lose",))


def _fresh_over(survey: Survey) -> Plan:
    if survey.exists and (survey.has_history or survey.sessions):
        return Fresh(archive=True, reasons=("--fresh: what is here moves into archive/, nothing is deleted",))
    return Fresh(reasons=("--fresh was asked for, and nothing was trained here before",))


def _resume_own(job: Job, survey: Survey, source: Candidate) -> Plan:
    finished = survey.finished_at
    total = job.total_steps
    if finished is not None and finished <= source.step and (total is None or total <= source.step):
        return Finished(source=source, reasons=(f"the run was completed at step {finished}",))
    if total is not None and source.step > total:
        reason = f"step {source.step} is past the {total} steps asked for"
        return Finished(source=source, reasons=(reason,))
    reason = f"{source.name} has the furthest recorded step of this run ({source.step}), {source.reason}"
    return _through_gate(job, Resume(source=source, reasons=(reason, *_interruptions(survey))))


def _resume_exactly(job: Job, facts: Facts, source: Candidate) -> Plan:
    later = tuple(item.path for item in facts.survey.candidates if item.resumable and item.step > source.step)
    reasons = [f"--ckpt names {source.path} (step {source.step}), {source.reason or source.state}"]
    if later:
        reasons.append(f"{len(later)} checkpoints of later steps are superseded and move into archive/")
    plan = _resume_named(job, source, reason=reasons[0])
    if isinstance(plan, Resume):
        return replace(plan, superseded=later, reasons=tuple(reasons))
    return plan


def _resume_named(job: Job, source: Candidate, *, reason: str) -> Plan:
    """Resume from a file the user named, if it holds a training state and is whole."""
    if source.state == "newer":
        return _refuse_newer(source)
    if source.state == "damaged":
        ways = ("take an older iter_*.pth", f"fine-tune from a best_* file: {_fine_tune_words(job)}")
        return _refuse(DamagedFile.exit_code, f"{source.path} is damaged: {source.reason}", ways_out=ways)
    if not source.resumable:
        return _refuse(
            Refused.exit_code,
            f"{source.path} holds weights only ({source.format_name}): it has no optimizer state, so training "
            "cannot continue from it as if it had never stopped",
            ways_out=(
                f"fine-tune from it: {_fine_tune_words(job)}",
                "name a full checkpoint (iter_*.pth)",
            ),
        )
    return _through_gate(job, Resume(source=source, reasons=(reason,)))


def _resume_copy(job: Job, facts: Facts, found: Survey, source: Candidate) -> Plan:
    reason = f"nothing usable is here yet, and {found.directory} holds this run at step {source.step}, {source.reason}"
    others = [item for item in facts.elsewhere if item is not found and item.newest_good]
    notes = tuple(
        f"{item.directory} holds it too, at step {item.newest_good.step}" for item in others if item.newest_good
    )
    return _through_gate(job, Resume(source=source, copy_from=found.directory, reasons=(reason,), notes=notes))


def _through_gate(job: Job, plan: Resume) -> Plan:
    """Compare the config with the one the checkpoint was written under."""
    old = plan.source.inside.get("config")
    found = changes(old, job.config, job.effects) if isinstance(old, dict) else ()
    blocking = tuple(item for item in found if item.effect in GATED and item.key not in job.start.accepted)
    if blocking:
        return _refuse_changed(job, plan.source, blocking)
    lr_before = plan.source.inside.get("lr")
    lr_next = job.lr_at(plan.source.step) if job.lr_at is not None else None
    reasons = plan.reasons
    if any(item.effect is Effect.DATA for item in found):
        reasons = (*reasons, "the data settings changed: bit-exactness starts anew at this step")
    return replace(
        plan,
        changes=found,
        reasons=reasons,
        lr_before=lr_before if isinstance(lr_before, float) else None,
        lr_next=lr_next,
    )


def _fine_tune(source: Candidate) -> Plan:
    if source.state == "newer":
        return _refuse_newer(source)
    if source.state == "damaged":
        return _refuse(DamagedFile.exit_code, f"{source.path} is damaged: {source.reason}")
    return FineTune(
        source=source,
        reasons=(
            f"weights are taken from {source.path} ({source.format_name}, step {source.step}); "
            "optimizer, step and schedule are new",
        ),
    )


def _refuse(exit_code: int, *reasons: str, ways_out: tuple[str, ...] = ()) -> Refuse:
    return Refuse(exit_code=exit_code, reasons=reasons, ways_out=ways_out)


def _refuse_newer(candidate: Candidate) -> Refuse:
    reason = f"{candidate.path} was written by a newer version of unbroken ({candidate.reason})"
    return _refuse(NewerFormat.exit_code, reason, ways_out=("pip install --upgrade unbroken",))


def _refuse_lost(job: Job, survey: Survey) -> Refuse:
    damaged = [item for item in survey.candidates if item.state == "damaged"]
    if damaged:
        reason = f"all {len(damaged)} checkpoints of this run are damaged, nothing was erased"
    else:
        reason = f"this run saved {survey.saves_ever} checkpoints, and none of them is here any more"
    return _refuse(
        DamagedFile.exit_code,
        reason,
        ways_out=(
            "put a good checkpoint back, or name one with --ckpt FILE",
            "--search DIR looks for copies of this run elsewhere",
            f"{job.command} --fresh  starts over; what is here moves into archive/, nothing is deleted",
        ),
    )


def _refuse_changed(job: Job, source: Candidate, blocking: tuple[Change, ...]) -> Refuse:
    worst_effect = worst(blocking)
    what = "the weights no longer fit" if worst_effect is Effect.SHAPE else "the weights would mean something else"
    undo = ", ".join(f"{item.key}={item.old}" for item in blocking[:3])
    return Refuse(
        exit_code=Incompatible.exit_code,
        reasons=(f"the config changed since step {source.step} ({source.name}) so that {what}",),
        changes=blocking,
        ways_out=(
            f"keep both as experiments of their own: --tag {job.tag}_{_suffix(blocking[0])}",
            f"start a new run from these weights: {_fine_tune_words(job)}",
            f"undo the change: {undo}",
        ),
    )


def _fine_tune_words(job: Job) -> str:
    return f"--tag {job.tag}_finetune --pretrained_model FILE"


def _suffix(change: Change) -> str:
    words = change.key.rsplit(".", 1)[-1] + "_" + str(change.new)
    return "".join(char if char.isalnum() else "_" for char in words)[:24].strip("_").lower()


def _furthest(elsewhere: tuple[Survey, ...]) -> tuple[Survey, Candidate] | None:
    found = [(item, item.newest_good) for item in elsewhere]
    good = [(item, source) for item, source in found if source is not None]
    return max(good, key=lambda pair: pair[1].step, default=None)


def _interruptions(survey: Survey) -> tuple[str, ...]:
    words = [f"a save was cut off ({name}); it never counted" for name in survey.partials]
    holder = survey.holder
    if holder is not None and not holder.released:
        words.append(f"the last session ({holder}) ended without a word: its lock is taken over")
    return tuple(words)


def _rejected(facts: Facts) -> list[Rejected]:
    """Every file that could have been meant, and why it is not used."""
    record = facts.survey.record
    found: list[Rejected] = []
    for item in facts.survey.candidates:
        if item.state == "damaged":
            found.append(Rejected(path=item.path, step=item.step, reason=item.reason, damaged=True))
        elif not item.resumable:
            reason = "weights only, no optimizer state" if "weights" in item.kind else "not a checkpoint"
            found.append(Rejected(path=item.path, step=item.step, reason=reason))
        elif record is not None and item.run not in ("", record.id):
            found.append(Rejected(path=item.path, step=item.step, reason=f"belongs to another run ({item.run})"))
        elif item is not facts.survey.newest_good:
            found.append(Rejected(path=item.path, step=item.step, reason="an earlier step"))
    return found


def _notes(job: Job, facts: Facts, plan: Plan) -> list[str]:
    notes = list(facts.near) if isinstance(plan, Fresh) else []
    own = isinstance(plan, Resume) and facts.survey.newest_good is plan.source
    if own and job.start.weights is not None:
        notes.append(
            f"--pretrained_model {job.start.weights} was for the first launch only: this run has its own history"
        )
    if own and job.start.origin is not None:
        notes.append(f"{job.start.origin} was the start of this run; it has gone on since")
    return notes


def _is_source(plan: Plan, path: Path) -> bool:
    return isinstance(plan, Resume | FineTune | Finished) and plan.source.path == path
