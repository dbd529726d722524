"""The files that a launch looked at and does not use: for each the reason, and whether it has to make room."""

from __future__ import annotations

from unbroken.launch.job import Job
from unbroken.launch.verdicts import FineTune, Finished, Fresh, Plan, Refuse, Rejected, Resume
from unbroken.run import Candidate, Survey

EARLIER = "an earlier step"


def rejected(job: Job, survey: Survey, elsewhere: tuple[Survey, ...], plan: Plan) -> tuple[Rejected, ...]:
    """Every file that could have been meant and is not used: of this folder, and what is damaged in the copies."""
    source = plan.source.path if isinstance(plan, Resume | FineTune | Finished) else None
    chosen = survey.newest_good if isinstance(plan, Refuse) else None
    here = tuple(
        Rejected(
            path=item.path,
            step=item.step,
            reason=_reason(survey, item, plan),
            damaged=item.state == "damaged",
            set_aside=_in_the_way(job, survey, item, plan),
        )
        for item in survey.candidates
        if item.path != source and item is not chosen
    )
    copied = tuple(
        Rejected(path=item.path, step=item.step, reason=item.reason, damaged=True)
        for copy in elsewhere
        if isinstance(plan, Refuse) or (isinstance(plan, Resume) and plan.copy_from is not None)
        for item in copy.candidates
        if item.state == "damaged"
    )
    return here + copied


def _reason(survey: Survey, item: Candidate, plan: Plan) -> str:
    if item.state in ("damaged", "newer"):
        return item.reason
    if not item.resumable:
        return "weights only, no optimizer state" if "weights" in item.kind else "not a checkpoint"
    if not survey.owns(item):
        return f"belongs to another run ({item.run})" if item.run else "of another program; this run has its own saves"
    if isinstance(plan, Fresh | FineTune):
        return "history of before this start"
    reached = plan.source.step if isinstance(plan, Resume | Finished) else _step_of(survey.newest_good)
    if reached is None or item.step < reached:
        return EARLIER
    return "the same step" if item.step == reached else "a later step, superseded"


def _step_of(candidate: Candidate | None) -> int | None:
    return candidate.step if candidate is not None else None


def is_replaced(job: Job, source: Candidate) -> bool:
    """Whether our saves may take the name of another program's file: also at its own step, as it lacks so much."""
    own_place = source.path.absolute().parent == job.layout.checkpoints(job.directory).absolute()
    if source.kind != "foreign checkpoint" or not own_place:
        return False
    return job.layout.writes_after(source.name, step=source.step - 1, epoch=(source.epoch or 0) - 1)


def _in_the_way(job: Job, survey: Survey, item: Candidate, plan: Plan) -> bool:
    """Whether the file has to move so that this session neither meets nor overwrites it."""
    match plan:
        case Refuse() | Finished():
            return False
        case Fresh() | FineTune():
            if plan.archive:
                return False  # everything moves
            step, epoch, run = 0, 0, survey.record.id if survey.record else ""
        case Resume():
            if plan.copy_from is not None:
                return False  # everything moves
            step, epoch = plan.source.step, plan.source.epoch or 0
            run = survey.record.id if survey.record else plan.source.run
    if item.state == "damaged" or item.name == job.layout.pointer:
        return True
    of_this_run = run != "" and item.run == run
    return job.layout.writes_after(item.name, step=step, epoch=epoch) and not of_this_run
