"""The launch decision: a pure function from what was asked and what was found to what will happen, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unbroken.config import Effect, changes, keys_of
from unbroken.errors import DamagedFile, UsageError
from unbroken.launch.choice import (
    choose_copy,
    further_copy,
    is_replaced,
    missing_words,
    newer_file,
    of_this_run,
    rejected,
    why_this_one,
)
from unbroken.launch.job import SCRIPT, Job, WrittenUnder
from unbroken.launch.refusals import (
    refuse,
    refuse_changed,
    refuse_code,
    refuse_foreign,
    refuse_half_restored,
    refuse_held,
    refuse_lost,
    refuse_mixed,
    refuse_newer,
    refuse_other_recipe,
    refuse_others,
    refuse_shut,
    refuse_unknown_keys,
    refuse_unreachable,
    refuse_weights,
    runs,
)
from unbroken.launch.schedule import with_schedule, zero_rate_words
from unbroken.launch.spelling import (
    again_with,
    fine_tune_words,
    length,
    option,
    pattern,
    tag_for_changes,
    telling_tag,
    tells_nothing,
)
from unbroken.launch.verdicts import FineTune, Finished, Fit, Fresh, Plan, Refuse, Resume, position_of, step_now
from unbroken.quantities import counted
from unbroken.run import Candidate, Survey
from unbroken.run.survey import damage_in_words

GATED = (Effect.SHAPE, Effect.MEANING)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found: the run's own folder, the files the job names, and copies of this run elsewhere."""

    survey: Survey
    exact: Candidate | None = None
    origin: Candidate | None = None
    weights: Candidate | None = None
    elsewhere: tuple[Survey, ...] = ()
    missing: tuple[Path, ...] = ()  # folders to search that are not there
    shut: tuple[Path, ...] = ()  # those that may not be read
    searched: tuple[Path, ...] = ()  # folders that were searched, and hold nothing of this run
    near: tuple[str, ...] = ()  # notes about runs that look like the one that was meant
    taken: frozenset[str] = frozenset()  # names that runs beside this one have
    fit: Fit | None = None  # of the file to be used, where shapes were compared
    stamps: Mapping[Path, tuple[int, ...]] = field(
        default_factory=dict, compare=False
    )  # of what they hang on elsewhere

    def history_of(self, plan: Plan) -> Survey:
        """The history that a plan goes on with: what is here, or where its records are taken from."""
        origin = (plan.records_from or plan.copy_from) if isinstance(plan, Resume) else None
        return next((found for found in self.elsewhere if found.directory == origin), self.survey)


def decide(job: Job, facts: Facts) -> Plan:
    """Decide what this launch does; golden-tested, touches nothing."""
    plan = _verdict(job, facts)
    plan = replace(plan, rejected=rejected(job, facts.survey, of_this_run(facts.survey, facts.elsewhere), plan))
    idle = zero_rate_words(job, plan)
    notes = (*plan.notes, *idle.notes, *_notes(job, facts, plan))
    return replace(plan, warnings=(*_missing(job, facts, plan), *idle.warnings), notes=notes)


def _verdict(job: Job, facts: Facts) -> Plan:
    survey = facts.survey
    if survey.held:
        return refuse_held(job, survey)
    if survey.restoring is not None:
        return refuse_half_restored(job, survey.restoring)
    if survey.unreachable:
        return refuse_unreachable(survey)
    if job.start.fresh:
        return _start_over(job, facts)
    if facts.exact is not None:
        return _resume_exactly(job, facts, facts.exact)
    if survey.archiving:
        return _go_on_archiving(facts)
    if (newer := newer_file(survey)) is not None:
        return refuse_newer(newer)
    if survey.record is None and len(runs(survey)) > 1:
        return refuse_mixed(job, survey)
    if survey.shut is not None:
        return refuse_shut(job, survey.shut)
    if survey.newest_good is not None:
        return _resume_own(job, facts, survey.newest_good)
    if (plan := _from_elsewhere(job, facts)) is not None:
        return plan
    if survey.has_history:
        return refuse_lost(job, survey)
    return _begin(job, facts)


def wants_shapes(plan: Plan) -> bool:
    """Whether the plan hangs on a claim about tensors that only the real ones can settle.

    Of the state of another program, and of weights to begin with, no record says that they are of this model.
    """
    match plan:
        case Resume():
            return is_foreign(plan) or any(change.effect is Effect.SHAPE for change in plan.accepted)
        case FineTune():
            return True
    return False


def is_foreign(plan: Plan) -> bool:
    """Whether the state of another program is taken over."""
    return isinstance(plan, Resume) and plan.source.kind == "foreign checkpoint"


# -- a run without history -------------------------------------------------------------------------------------------


def _begin(job: Job, facts: Facts) -> Plan:
    """From a named file, or from nothing."""
    if facts.origin is not None:
        what = f"step {facts.origin.step}, {facts.origin.format_name}"
        reason = f"the config names {facts.origin.path} ({what}) as the start of this run, {facts.origin.reason}"
        return _resume_named(job, facts, facts.origin, reasons=(reason,))
    if facts.weights is not None:
        return _fine_tune(facts, facts.weights)
    if others := [item for item in facts.survey.candidates if item.resumable]:
        return refuse_others(job, others)
    sessions = len(facts.survey.sessions)
    if not sessions:
        return Fresh(reasons=("nothing was trained here before",))
    ended = counted(sessions, "earlier session ended", "earlier sessions ended")
    return Fresh(reasons=(f"{ended} before the first save: there is nothing to lose",))


def _start_over(job: Job, facts: Facts) -> Plan:
    survey, fresh = facts.survey, option(job, "fresh")
    if job.start.exact is not None:
        return refuse(
            UsageError.exit_code,
            f"{fresh} and {option(job, 'ckpt')} contradict each other: one starts over, the other continues",
            ways_out=("give one of the two",),
        )
    archive = survey.exists and bool(survey.candidates or survey.sessions)
    reason = (
        f"{fresh}: what is here moves into archive/, nothing is deleted"
        if archive
        else f"{fresh} was asked for, and nothing was trained here before"
    )
    if facts.weights is None:
        return Fresh(archive=archive, reasons=(reason,))
    plan = _fine_tune(facts, facts.weights)
    return replace(plan, archive=archive, reasons=(reason, *plan.reasons)) if isinstance(plan, FineTune) else plan


def _go_on_archiving(facts: Facts) -> Plan:
    """A kill fell into the move of a --fresh: part of the old history is in the archive, what is left follows it."""
    plan = _fine_tune(facts, facts.weights) if facts.weights is not None else Fresh(reasons=())
    if isinstance(plan, Refuse):
        return plan
    reason = (
        "the last launch started over and was cut off while it moved the old history into archive/: the rest follows"
    )
    return replace(plan, archive=True, reasons=(reason, *plan.reasons))


def _fine_tune(facts: Facts, source: Candidate) -> FineTune | Refuse:
    if source.state == "newer":
        return refuse_newer(source)
    if source.state == "damaged":
        return refuse(
            DamagedFile.exit_code,
            f"{source.path} is damaged: {source.reason}",
            ways_out=("download or copy it again, or name another file",),
        )
    if source.state == "foreign":
        return refuse_foreign(source)
    step = f", step {source.recorded_step}" if source.recorded_step is not None else ""
    what = f"weights are taken from {source.path} ({source.format_name}{step})"
    return FineTune(source=source, fit=facts.fit, reasons=(f"{what}; optimizer, step and schedule are new",))


# -- a run with history ----------------------------------------------------------------------------------------------


def _resume_own(job: Job, facts: Facts, source: Candidate) -> Plan:
    survey, reasons = facts.survey, why_this_one(facts.survey, source)
    further = further_copy(job, survey, source, facts.elsewhere)
    if isinstance(further, Refuse):
        return further
    if further is not None:
        where = f"{further.copy.directory} holds this run at step {further.source.step}, {further.source.reason}"
        source, reasons = further.source, (f"{where}; what is here ends at step {source.step}",)
    plan = _through_gate(job, facts, Resume(source=source, reasons=reasons))
    if isinstance(plan, Refuse):
        return plan
    finished, total, step = survey.finished_at, job.total_steps, step_now(job, source)
    if total is not None and step > total:
        reason = f"{source.name} is at {_place(job, source)}, past the {length(job)} asked for"
        return Finished(source=source, reasons=(reason,), notes=_unused_changes(job, plan, facts.taken))
    if finished is None or finished > source.step:
        return plan
    if survey.finished_early and not plan.changes:
        reason = f"its loop ended the run at step {finished} ({survey.finished_early}); {source.name}, {source.reason}"
        return Finished(source=source, early=True, reasons=(reason,))
    if total is not None and total <= step:
        reason = f"the run was completed at step {finished}; {source.name} holds its final state, {source.reason}"
        return Finished(source=source, reasons=(reason,), notes=_unused_changes(job, plan, facts.taken))
    if total is None and not plan.changes:
        reason = f"the run was completed at step {finished} with this config; {source.name}, {source.reason}"
        return Finished(source=source, reasons=(reason,))
    more = f"{length(job)} are asked for" if total is not None else "the config changed since"
    return replace(plan, reasons=(*plan.reasons, f"the run was completed at step {finished}, and now {more}"))


def _place(job: Job, source: Candidate) -> str:
    by_epochs = job.epochs is not None and source.epoch is not None
    return f"epoch {source.epoch}" if by_epochs else f"step {source.step}"


def _unused_changes(job: Job, plan: Resume, taken: frozenset[str]) -> tuple[str, ...]:
    """What a changed config would have done, where nothing is left to train."""
    changed = [item for item in plan.changes if item.effect is not Effect.FREE]
    if not changed:
        return ()
    tag = option(job, "tag", tag_for_changes(job, changed, taken))
    return (*(f"without effect, as no step is left: {item}" for item in changed), f"to train with it: {tag}")


def _resume_exactly(job: Job, facts: Facts, source: Candidate) -> Plan:
    later = tuple(item for item in facts.survey.candidates if item.resumable and item.step > source.step)
    reasons = [
        f"{option(job, 'ckpt')} names {source.path} (step {source.step})" + (source.reason and f", {source.reason}")
    ]
    record = facts.survey.record
    if record is not None and source.run not in ("", record.id):
        reasons.append(f"the file is of another run ({source.run}), which this run ({record.id}) continues from here")
    if later:
        what = counted(len(later), "checkpoint of a later step is", "checkpoints of later steps are")
        reasons.append(f"{what} superseded and kept in archive/, nothing is deleted")
    plan = _resume_named(job, facts, source, reasons=tuple(reasons))
    if isinstance(plan, Resume):
        return replace(plan, superseded=tuple(item.path for item in later))
    return plan


def _resume_named(job: Job, facts: Facts, source: Candidate, *, reasons: tuple[str, ...]) -> Plan:
    """Resume from a file the user named, if it holds a training state and is whole."""
    good = facts.survey.newest_good
    if source.state == "newer":
        return refuse_newer(source)
    if source.state == "damaged":
        ways = [f"name an older {pattern(job)}", f"fine-tune from a best_* file: {fine_tune_words(job)}"]
        if good is not None:
            ways.insert(0, f"name none: {good.name} (step {good.step}) is the furthest good one and is then used")
        return refuse(DamagedFile.exit_code, f"{source.path} is damaged: {source.reason}", ways_out=tuple(ways))
    if source.state == "foreign":
        return refuse_foreign(source)
    if not source.resumable:
        return refuse_weights(job, source)
    if source.recipe not in ("", SCRIPT, job.recipe) and not job.is_script:  # an own loop may build what a recipe did
        return refuse_other_recipe(job, source)
    return _through_gate(job, facts, Resume(source=source, reasons=reasons))


def _from_elsewhere(job: Job, facts: Facts) -> Plan | None:
    """The furthest copy of this run in the folders that were searched; None when there is none."""
    plan = choose_copy(job, facts.survey, facts.elsewhere)
    return _through_gate(job, facts, plan) if isinstance(plan, Resume) else plan


def _through_gate(job: Job, facts: Facts, plan: Resume) -> Resume | Refuse:
    """Compare the config with the one the checkpoint was written under, and the tensors where that was asked for."""
    foreign = plan.source.kind == "foreign checkpoint"
    theirs = job.written_under(plan.source.meta) if foreign else None
    old = theirs.config if theirs else plan.source.inside.get("config")
    found = changes(old, job.config, job.effects) if isinstance(old, Mapping) else ()
    if foreign:  # where it lay and how often it saved is of no use here
        found = tuple(item for item in found if item.effect is not Effect.FREE)
    if unknown := sorted(job.start.accepted - {item.key for item in found} - set(keys_of(job.config))):
        return refuse_unknown_keys(job, unknown)
    gated = tuple(item for item in found if item.effect in GATED)
    accepted = tuple(item for item in gated if item.key in job.start.accepted)
    blocking = tuple(item for item in gated if item not in accepted)
    if blocking:
        refused = refuse_changed(job, plan.source, blocking, found, fit=facts.fit, taken=facts.taken)
        return replace(refused, reasons=(*refused.reasons, *(theirs.remarks if theirs else ())))
    if facts.fit is not None and not facts.fit.complete and plan.source.kind == "checkpoint":
        return refuse_code(job, plan.source, facts.fit, accepted, found)
    lr_before = plan.source.inside.get("lr")
    reasons = plan.reasons
    if foreign:
        reasons = (
            *reasons,
            "another program wrote it, without random state and data position: exactness begins here",
            *_words_on_config(theirs),
        )
    if any(item.effect is Effect.DATA for item in found):
        reasons = (*reasons, "the data settings changed: bit-exactness starts anew at this step")
    plan = replace(
        plan,
        changes=found,
        accepted=accepted,
        config_known=theirs is not None or not foreign,
        keep_copy=is_replaced(job, plan.source),
        position=position_of(job, plan.source),
        reasons=reasons,
        lr_before=lr_before if isinstance(lr_before, float) else None,
    )
    return with_schedule(job, plan, step_now(job, plan.source))


def _words_on_config(theirs: WrittenUnder | None) -> tuple[str, ...]:
    if theirs is None:
        return ("under which config it was written is not known: changes since then cannot be listed",)
    compared = "it holds the config and the classes that it was written with: they were compared with these"
    return (compared, *theirs.remarks)


# -- what else is to be said -----------------------------------------------------------------------------------------


def _notes(job: Job, facts: Facts, plan: Plan) -> list[str]:
    notes = list(facts.near) if isinstance(plan, Fresh | FineTune) else []
    if isinstance(plan, Fresh | FineTune) and tells_nothing(job.tag):
        better = option(job, "tag", telling_tag(job.traits, job.environment.today))
        notes.append(f"the tag `{job.tag}` will tell nobody what this was; for example: {better}")
    notes += damage_in_words(facts.survey.damage)
    notes += job.remarks
    if isinstance(plan, Resume | FineTune) and plan.source.kind.startswith("foreign"):
        notes += job.remarks_on_foreign
    start, has_own = job.start, facts.survey.newest_good is not None and not job.start.fresh
    if isinstance(plan, Refuse):
        return notes
    holder = facts.survey.holder
    if holder is not None and not holder.released:
        notes.append(f"the last session ({holder}) ended without a word: its lock is taken over")
    notes += [f"a save was cut off ({name}); it never counted" for name in facts.survey.partials]
    if start.exact is None and has_own:
        if start.weights is not None:
            given = option(job, "pretrained_model", str(start.weights))
            notes.append(f"{given} was for the first launch only: this run has its own history")
        if start.origin is not None:
            notes.append(f"{start.origin} was the start of this run; it has gone on since")
    elif start.exact is not None and start.weights is not None:
        notes.append(
            f"{option(job, 'pretrained_model', str(start.weights))} is not used: the file to resume from counts"
        )
    elif start.fresh and start.origin is not None:
        notes.append(f"{start.origin}, which the config names as the start, is not used")
    notes += [f"{folder} was to be searched and is not there" for folder in facts.missing]
    notes += [f"{folder} was to be searched and may not be read: permission denied" for folder in facts.shut]
    notes += [f"{folder} was searched and holds no copy of this run ({job.tag})" for folder in facts.searched]
    if start.on_extend and not (isinstance(plan, Resume) and plan.extension):
        given = option(job, "on-extend", start.on_extend)
        notes.append(f"{given} had nothing to do: it is for a finished run that is asked for more")
    changed = {item.key for item in plan.accepted} if isinstance(plan, Resume) else set()
    notes += [
        f"{option(job, 'accept-change', key)} had nothing to accept: this key did not change, or may change anyway"
        for key in sorted(start.accepted - changed - {item["key"] for item in _accepted_before(plan)})
    ]
    notes += [f"accepted after step {item['step']}: {item['words']}" for item in _accepted_before(plan)]
    if isinstance(plan, Resume) and plan.keep_copy:
        notes.append(f"a copy of {plan.source.name} is kept in archive/: what is saved here takes its name")
    divisions = plan.source.inside.get("divisions") if isinstance(plan, Resume) else None
    if divisions and job.options.accidents.on_oom != "fail":
        least = counted(divisions[-1]["micro_batch"], "sample")
        learned = f"at most {least} at once, learned in step {divisions[-1]['step']}, where memory ran out"
        notes.append(f"{learned}; {option(job, 'on-oom', 'fail')} takes whole micro-batches again")
    aside = [item.path.name for item in plan.rejected if item.set_aside]
    if isinstance(plan, Finished):
        more = option(job, "epochs", "N") if job.epochs is not None else "ask for more steps"
        notes.append(f"to train longer: {more}; to start over: {again_with(job, 'fresh')}")
    if aside:
        notes.append(f"set aside in archive/, nothing is deleted: {', '.join(aside)}")
    return notes


def _missing(job: Job, facts: Facts, plan: Plan) -> tuple[str, ...]:
    """What the records of the folder that is continued know of, and it has not; a named file was wanted as such."""
    if job.start.exact is not None or not isinstance(plan, Resume | Finished):
        return ()
    copied = plan.copy_from if isinstance(plan, Resume) else None
    survey = next((item for item in facts.elsewhere if item.directory == copied), facts.survey)
    return missing_words(job, survey, plan.source)


def _accepted_before(plan: Plan) -> Sequence[Mapping[str, Any]]:
    """What was changed in the life of this run although it changed the meaning of its weights."""
    listed = plan.source.inside.get("accepted") if isinstance(plan, Resume | Finished) else None
    return listed if isinstance(listed, list) else ()
