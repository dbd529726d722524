"""Why a file is the one that is continued, and which file of which copy that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unbroken.launch.elsewhere import (
    Found,
    furthest,
    good_ones,
    of_this_run,
    others_in_words,
    records_for,
    run_of,
    several_runs,
    weights_along,
)
from unbroken.launch.job import Job
from unbroken.launch.refusals import refuse_lost_copies, refuse_newer
from unbroken.launch.spelling import option
from unbroken.launch.verdicts import Refuse, Resume
from unbroken.quantities import counted
from unbroken.run import Candidate, MissingFile, Survey


def newer_file(survey: Survey) -> Candidate | None:
    """A file of this run in a format that this version does not know, if there is one."""
    return next((item for item in survey.candidates if item.state == "newer" and survey.owns(item)), None)


def why_this_one(survey: Survey, source: Candidate) -> tuple[str, ...]:
    """The reasons for a file of this folder, the first of them in general words."""
    damaged = [item for item in survey.candidates if item.state == "damaged" and item.resumable]
    further = max((item for item in damaged if item.step > source.step), key=lambda item: item.step, default=None)
    missing = missing_beyond(survey, source)
    if source.kind == "foreign checkpoint":
        first = f"{source.name} is the furthest checkpoint here (step {source.step}, {source.format_name})"
    elif further is not None or missing:
        first = f"{source.name} is the furthest sound checkpoint of this run here (step {source.step})"
    else:
        first = f"{source.name} has the furthest recorded step of this run ({source.step})"
    words = [f"{first}, {source.reason}"]
    if further is not None:
        again = counted(further.step - source.step, "step")
        words.append(f"{further.name} is damaged: the {again} up to it are done again")
    if survey.record is None and source.run:
        words.append(f"unbroken/run.json is not here: the checkpoint itself says which run it is of ({source.run})")
    return tuple(words)


def missing_beyond(survey: Survey, source: Candidate) -> list[MissingFile]:
    """The states of later steps that the records know of and the folder does not have, the furthest first."""
    return [item for item in survey.missing if item.resumable and (item.step is None or item.step > source.step)]


def missing_words(job: Job, survey: Survey, source: Candidate) -> tuple[str, ...]:
    """What is missing in a folder of which `source` is continued, and which steps are done again for it."""
    is_copy = survey.directory != job.directory
    states, weights = missing_beyond(survey, source), [item for item in survey.losses if not item.resumable]
    words = []
    for item in states[:1]:
        steps = counted(item.step - source.step, "step") if item.step is not None else "steps"
        again = f"the {steps} after {source.step} are done again"
        found = f"{_at(survey, item) if is_copy else item}: {again}"
        words.append(f"{found}; put it back, or say where a copy lies: {option(job, 'search', 'DIR')}")
    words += [f"{_at(survey, item) if is_copy else item} either" for item in states[1:]]
    words += [f"{_at(survey, item) if is_copy else item}: put it back if it is wanted" for item in weights]
    return tuple(words)


def _at(copy: Survey, item: MissingFile) -> MissingFile:
    """A file that a copy lacks, as it is called from here."""
    return replace(item, name=str(copy.directory / item.name), reason=item.reason.replace("not here", "not there"))


def further_copy(job: Job, here: Survey, source: Candidate, elsewhere: Sequence[Survey]) -> Found | Refuse | None:
    """A copy of this very run that is further than what is left of it here; None when there is none."""
    copies = [item for item in elsewhere if here.record is not None and run_of(item) == here.record.id]
    return furthest(job, [item for item in good_ones(copies) if item.source.step > source.step])


def choose_copy(job: Job, here: Survey, elsewhere: Sequence[Survey]) -> Resume | Refuse | None:
    """The furthest copy of this run in the folders that were searched; None when there is none."""
    copies = of_this_run(here, elsewhere)
    if (unclear := several_runs(job, copies)) is not None:
        return unclear
    good = good_ones(copies)
    best = furthest(job, good)
    reached = max((item.source.step for item in good), default=-1)
    newer = [item for copy in copies if (item := newer_file(copy)) is not None]
    if newer and max(item.step for item in newer) > reached:
        return refuse_newer(max(newer, key=lambda item: item.step))
    if isinstance(best, Refuse):
        return best
    if best is not None:
        return _resume_copy(here, best, copies)
    lost = [item for item in copies if item.has_history]
    return refuse_lost_copies(job, lost) if lost else None


def _resume_copy(here: Survey, found: Found, copies: Sequence[Survey]) -> Resume:
    state = "no checkpoint here is good" if here.has_history else "nothing was saved here yet"
    source, records = found.source, records_for(found, copies)
    where = f"{found.copy.directory} holds this run at step {source.step}, {source.reason}"
    reasons = [f"{state}, and {where}; it is copied here"]
    reasons += why_this_one(found.copy, source)[1:]
    reasons += _further_ones(source, [copy for copy in copies if copy is not found.copy])
    if records is None:
        reasons.append("its records were not found: the history of the steps before stays behind")
    elif records != found.copy.directory:
        reasons.append(f"its records come from {records}")
    if here.candidates or here.sessions:
        reasons.append("what is here moves into archive/ before the copy comes in, nothing is deleted")
    return Resume(
        source=source,
        copy_from=found.copy.directory,
        records_from=records,
        weights_along=weights_along(found),
        reasons=tuple(reasons),
        notes=others_in_words(found, good_ones(copies)),
    )


def _further_ones(source: Candidate, copies: Sequence[Survey]) -> list[str]:
    """What other copies held beyond the file that is used, and is damaged there."""
    return [
        f"{item.path} is damaged: the {counted(item.step - source.step, 'step')} up to it are done again"
        for copy in copies
        for item in copy.candidates
        if item.state == "damaged" and item.resumable and item.step > source.step
    ]
