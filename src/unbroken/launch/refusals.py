"""Every way a launch can be refused: what was found, and what would let it happen."""

from __future__ import annotations

from collections.abc import Sequence

from unbroken.clock import shown_time
from unbroken.config import Change, Effect, keys_of, nearest, worst
from unbroken.errors import DamagedFile, Incompatible, NewerFormat, Refused, RunHeld, UsageError
from unbroken.launch.host import BY_MULTIPROCESSING
from unbroken.launch.job import Job
from unbroken.launch.spelling import (
    again_with,
    fine_tune_words,
    from_nothing_words,
    length,
    option,
    pattern,
    start_over_words,
    tag_for_changes,
    undo,
)
from unbroken.launch.verdicts import Curve, Fit, Refuse
from unbroken.quantities import counted, is_or_are
from unbroken.run import Candidate, Restoring, Survey
from unbroken.run.record import RESTORING


def refuse(exit_code: int, *reasons: str, ways_out: tuple[str, ...] = ()) -> Refuse:
    """A refusal with its reasons."""
    return Refuse(exit_code=exit_code, reasons=reasons, ways_out=ways_out)


def refuse_held(job: Job, survey: Survey) -> Refuse:
    """Another live process works on the run, or this one does already."""
    if survey.held_here and survey.holder is not None:
        return refuse(
            RunHeld.exit_code,
            f"this process has the run open itself, since {shown_time(survey.holder.since)}, and has not closed it",
            ways_out=(
                "close it: call close() on what open_run returned then (the end of a `with` block does it by itself)",
                "in a notebook: or restart the kernel; what was saved is whole",
            ),
        )
    stand_in = (survey.held_without_locks,) if survey.held_without_locks else ()
    stop = f"stop it: unbroken stop {job.directory}  (it saves everything first), then run the same command again"
    ends_by_itself = survey.holder is not None and survey.holder.is_command
    several = job.environment.started_together
    guard = 'open the run in one process alone: what trains stands under `if __name__ == "__main__":`'
    launched = "let all of them train one run: start them by torchrun (docs/many-processes.md)"
    together = f"several processes were started together ({several}), and each trains by itself"
    return refuse(
        RunHeld.exit_code,
        f"the run is held by {survey.holder or 'another process'}, which is still alive",
        *([together] if several else []),
        *stand_in,
        ways_out=(
            *([guard] if several.startswith(BY_MULTIPROCESSING) else [launched] if several else []),
            "wait until it ends",
            *(() if ends_by_itself else (stop,)),
            f"train beside it under another name: {option(job, 'tag', f'{job.tag}_2')}",
        ),
    )


def refuse_unreachable(survey: Survey) -> Refuse:
    """Part of the run lies behind a link that leads to nothing, such as a disk that is not mounted."""
    return refuse(
        DamagedFile.exit_code,
        f"{survey.unreachable}: nothing is begun anew while what was saved may be there",
        ways_out=(
            "make it reachable again (is the disk mounted?), then run the same command again",
            "if what it held is gone for good: move away by hand what has its name now",
        ),
    )


def refuse_shut(job: Job, candidate: Candidate) -> Refuse:
    """The furthest state of the run is there, and this user may not read it."""
    return refuse(
        DamagedFile.exit_code,
        f"{candidate.path} (step {candidate.step}) is the furthest state of this run, and {candidate.reason}: nothing "
        "older is continued while it may be whole",
        ways_out=(
            f"let this user read it (ls -l {candidate.path} says whose it is), then run the same command again",
            f"say which file to continue from: {option(job, 'ckpt', 'FILE')}",
        ),
    )


def refuse_newer(candidate: Candidate) -> Refuse:
    """A file is of a format that this version does not know."""
    reason = f"{candidate.path} was written by a newer version of unbroken ({candidate.reason})"
    return refuse(NewerFormat.exit_code, reason, ways_out=("pip install --upgrade unbroken",))


def refuse_mixed(job: Job, survey: Survey) -> Refuse:
    """Checkpoints of several runs lie in a folder that does not say whose it is."""
    whose = runs(survey)
    files = "; ".join(f"{run}: {name}" for run, name in whose.items())
    return refuse(
        DamagedFile.exit_code,
        f"checkpoints of {len(whose)} different runs lie here, and unbroken/run.json, which says whose folder this "
        f"is, is missing ({files})",
        ways_out=(
            "put unbroken/run.json back, or move the files of the other run away",
            f"say which file to continue from: {option(job, 'ckpt', 'FILE')}",
        ),
    )


def refuse_half_restored(job: Job, restoring: Restoring) -> Refuse:
    """A history was being brought back, and that was cut off: the folder holds half of two."""
    name = restoring.name or "a history"
    damaged = "" if restoring.name else f" (unbroken/{RESTORING} is damaged, so which one is not known)"
    return refuse(
        Refused.exit_code,
        f"bringing {name} back from the archive was cut off{damaged}: it has to be finished first, nothing is lost",
        ways_out=(f"finish it: unbroken restore {job.directory} {restoring.name or 'NAME'}",),
    )


def refuse_lost(job: Job, survey: Survey) -> Refuse:
    """There was a history here, and nothing of it can be continued."""
    damaged = sum(item.state == "damaged" and item.resumable for item in survey.candidates)
    missing = max(0, survey.saves_ever - damaged)
    known = [item for item in survey.missing if item.resumable]
    words = []
    if damaged:
        every = {1: "the only checkpoint here is", 2: "both checkpoints here are"}
        words.append(f"{every.get(damaged, f'all {damaged} checkpoints here are')} damaged")
    if missing:
        words.append(f"{counted(missing, 'checkpoint')} that the journal lists {is_or_are(missing)} not here any more")
    if not words:  # only links, or only manifests, say that there was something
        words.append(f"{counted(len(known), 'checkpoint')} {is_or_are(len(known))} not here any more")
    return refuse(
        DamagedFile.exit_code,
        f"this run has a history, but nothing sound to continue from: {'; '.join(words)}",
        *(str(item) for item in known[:1]),
        ways_out=(
            f"put a good checkpoint back, or name one: {option(job, 'ckpt', 'FILE')}",
            f"look for copies of this run elsewhere: {option(job, 'search', 'DIR')}",
            start_over_words(job),
        ),
    )


def refuse_lost_copies(job: Job, lost: list[Survey]) -> Refuse:
    """There are copies of this run elsewhere, and none of them can be continued."""
    folders = ", ".join(str(item.directory) for item in lost)
    return refuse(
        DamagedFile.exit_code,
        f"this run was saved in {folders}, but no checkpoint there is sound, and none is here",
        ways_out=(
            "copy or download that folder again, then run the same command again",
            f"name a good checkpoint: {option(job, 'ckpt', 'FILE')}",
            f"start from nothing: {again_with(job, 'fresh')}",
        ),
    )


def refuse_others(job: Job, others: list[Candidate]) -> Refuse:
    """The folder holds checkpoints, but of another run."""
    first = others[0]
    whose = f"of another run ({first.run})" if first.run else "of another program"
    names = ", ".join(item.name for item in others[:3]) + (" ..." if len(others) > 3 else "")
    return refuse(
        DamagedFile.exit_code,
        f"this run has saved nothing yet, but checkpoints {whose} lie in its folder: {names}",
        ways_out=(
            f"continue from one of them: {option(job, 'ckpt', str(first.path))}",
            f"take only its weights: {option(job, 'pretrained_model', str(first.path))}",
            start_over_words(job),
        ),
    )


def refuse_other_recipe(job: Job, source: Candidate) -> Refuse:
    """The file that was named is a training state of another application."""
    what = f"{source.path} is a checkpoint of `unbroken train {source.recipe}`, and this is a training of {job.recipe}"
    ways = (f"name a checkpoint of {job.recipe}, or none: the run's own newest is found without it",)
    return refuse(Incompatible.exit_code, what, ways_out=ways)


def refuse_foreign(source: Candidate) -> Refuse:
    """The file that was named is sound, and of a kind that holds neither a training state nor weights by name."""
    ways = ("name a checkpoint, or weights by name: a .pth of torch.save, or .safetensors",)
    return refuse(DamagedFile.exit_code, f"{source.path} is {source.reason}", ways_out=ways)


def refuse_weights(job: Job, source: Candidate) -> Refuse:
    """The file that was named holds no training state."""
    if "weights" in source.kind and not source.why:
        what = f"holds weights only ({source.format_name}): without optimizer state, training cannot continue from it"
    elif source.why:
        what = f"is not a training state, because it is a file of another program ({source.format_name}): {source.why}"
    else:
        what = "is not a checkpoint that training can continue from (neither ours nor of MMEngine or OpenPCDet)"
    return refuse(
        Refused.exit_code,
        f"{source.path} {what}",
        ways_out=(
            f"start a new run with its weights: {fine_tune_words(job, source)}",
            f"name a full checkpoint ({pattern(job)})",
        ),
    )


def refuse_changed(
    job: Job,
    source: Candidate,
    blocking: tuple[Change, ...],
    found: tuple[Change, ...],
    *,
    fit: Fit | None,
    taken: frozenset[str],
) -> Refuse:
    """The config changed so that the state on disk no longer means what it did: `blocking` of all that was `found`.

    What the schema says of shapes is believed only until the real tensors were compared.
    """
    fits = fit is not None and fit.complete
    worst_effect = Effect.MEANING if fits else worst(blocking)
    what = "the weights no longer fit" if worst_effect is Effect.SHAPE else "the weights would mean something else"
    tag = tag_for_changes(job, blocking, taken)
    ways = [
        f"keep both as experiments of their own: {from_nothing_words(job, tag)}",
        f"start a new run from these weights: {fine_tune_words(job, source, tag=tag)}",
        f"undo the change: {undo(job, blocking)}",
    ]
    if worst_effect is Effect.MEANING and not job.is_script:
        accepted = " ".join(option(job, "accept-change", item.key) for item in blocking)
        ways.append(f"go on all the same, which is recorded in the run for ever: {accepted}")
    reason = f"the config changed since step {source.step} ({source.name}) so that {what}"
    return Refuse(
        exit_code=Incompatible.exit_code,
        reasons=(reason, *([fit.as_words()] if fit else [])),
        changes=found,
        ways_out=tuple(ways),
        source=source,
        fit=fit,
    )


def refuse_code(
    job: Job, source: Candidate, fit: Fit, accepted: tuple[Change, ...], found: tuple[Change, ...]
) -> Refuse:
    """The tensors do not fit, and nothing in the config (but what was accepted) says why: the code is another."""
    why = "although the config changed in nothing that says so: the program that builds the model is another"
    back = "go back to the code that wrote it, and run the same command again"
    if accepted:
        why = f"whatever is accepted ({', '.join(item.key for item in accepted)})"
        back = f"undo the change: {undo(job, accepted)}"
    return Refuse(
        exit_code=Incompatible.exit_code,
        reasons=(f"{source.name} does not fit the model any more, {why}", fit.as_words()),
        changes=found,
        ways_out=(
            back,
            f"start a new run from the weights that fit: {fine_tune_words(job, source)}",
            f"start a new run from nothing: {from_nothing_words(job, f'{job.tag}_2')}",
        ),
        source=source,
        fit=fit,
    )


def refuse_unknown_keys(job: Job, keys: Sequence[str]) -> Refuse:
    """A change is to be accepted of a key that no config has."""
    near = [name for key in keys if (name := nearest(key, keys_of(job.config)))]
    return refuse(
        UsageError.exit_code,
        f"{option(job, 'accept-change', keys[0])}: the config has no such key",
        ways_out=(
            *(option(job, "accept-change", name) for name in near),
            "name keys as the plan writes them (A.B.C), one to each option",
        ),
    )


def refuse_zero_rate(job: Job, step: int, total: int, curves: Sequence[Curve]) -> Refuse:
    """A longer run whose every further step would change nothing; the first curve is what was asked for."""
    asked, others = curves[0], curves[1:]
    why = {
        "hold": "and the learning rate at the seam, which is to be held, is 0",
        "restart": "but the schedule of the config has no learning rate above 0",
    }.get(asked.policy, "but the schedule of the config has ended")
    ways = [
        f"{option(job, 'on-extend', curve.policy)}  (learning rate up to {curve.lr_peak:.6g})"
        for curve in others
        if curve.learns
    ]
    if asked.policy != "hold":
        ways.append("let the schedule reach as far as the steps do (its last phase must end later)")
    return refuse(
        Incompatible.exit_code,
        f"the run was completed at step {step} and {length(job)} are asked for, {why}: "
        f"by {option(job, 'on-extend', asked.policy)}, the learning rate would be 0 from step {step + 1} to {total}",
        ways_out=(*ways, f"start a new run from these weights: {fine_tune_words(job)}"),
    )


def runs(survey: Survey) -> dict[str, str]:
    """The runs that the checkpoints in a folder say they are of, each with its furthest file."""
    found: dict[str, str] = {}
    for item in survey.candidates:
        if item.resumable and item.run:
            found.setdefault(item.run, item.name)
    return found
