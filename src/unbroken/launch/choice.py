"""Which copy of a run is continued, of all that were found: a pure choice, and a refusal where it would be a guess.

Of one run, the furthest sound checkpoint wins. Two runs that share a name, and two sessions that went on from the same
save without knowing of each other and reached the same step, are never chosen between. What is not used is told, each
file with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unbroken.clock import shown_time
from unbroken.errors import Refused
from unbroken.launch.job import Job
from unbroken.launch.refusals import refuse, refuse_lost_copies, refuse_newer
from unbroken.launch.spelling import option
from unbroken.launch.verdicts import FineTune, Finished, Fresh, Plan, Refuse, Rejected, Resume
from unbroken.quantities import counted
from unbroken.run import Candidate, MissingFile, Survey
from unbroken.run.history import seconds_of

EARLIER = "an earlier step"


@dataclass(frozen=True, kw_only=True)
class DiscoveredCopy:
    """A copy with a checkpoint to continue from."""

    copy: Survey
    source: Candidate

    @property
    def save(self) -> str:
        """The id of the save that wrote the file; two files with the same one are copies of each other."""
        return str(self.source.inside.get("save", ""))

    @property
    def session(self) -> str:
        """The session that wrote the file."""
        return str(self.source.inside.get("session", ""))

    def knows(self, other: DiscoveredCopy) -> bool:
        """Whether this history goes on from the other one."""
        return other.session in (*self.copy.sessions, self.session)

    @property
    def preference(self) -> tuple[int, float, bool, int]:
        """Among copies of one step that are one history: evaluated, later written, with its records, the longest."""
        evaluated, written = self.source.inside.get("evaluated_step"), self.source.inside.get("time")
        has_records = self.copy.record is not None
        return (
            evaluated if isinstance(evaluated, int) else 0,
            seconds_of(str(written or "")) or 0.0,
            has_records,
            len(self.copy.events),
        )


def run_of(copy: Survey) -> str:
    """The id of the run that a copy is of."""
    if copy.record is not None:
        return copy.record.id
    return next((item.run for item in copy.candidates if item.run), "")


def of_this_run(here: Survey, elsewhere: Sequence[Survey]) -> tuple[Survey, ...]:
    """The copies that matter: those of the run whose record is here, if there are any, else all."""
    known = here.record.id if here.record is not None else None
    return tuple(item for item in elsewhere if run_of(item) == known) or tuple(elsewhere)


def good_ones(copies: Sequence[Survey]) -> list[DiscoveredCopy]:
    """The copies that can be continued, each from its furthest sound checkpoint."""
    return [DiscoveredCopy(copy=item, source=item.newest_good) for item in copies if item.newest_good is not None]


def several_runs(job: Job, copies: Sequence[Survey]) -> Refuse | None:
    """The refusal if copies of more than one run were found; damaged ones may be the one that was meant."""
    with_history = [item for item in copies if item.has_history]
    runs = {run_of(item): None for item in with_history}
    if len(runs) < 2:
        return None
    reason = f"{len(runs)} different runs of this recipe and tag were found, and only you can know which is meant"
    return _refuse(job, reason, [_furthest_of(run, with_history) for run in runs])


def _furthest_of(run: str, copies: Sequence[Survey]) -> tuple[Survey, Candidate | None]:
    """The copy of a run to show for it: the furthest good one, else one that is damaged."""
    ours = [item for item in copies if run_of(item) == run]
    best = max(good_ones(ours), key=lambda item: item.source.step, default=None)
    if best is not None:
        return best.copy, best.source
    return ours[0], next((item for item in ours[0].candidates if item.resumable), None)


def furthest(job: Job, good: Sequence[DiscoveredCopy]) -> DiscoveredCopy | Refuse | None:
    """The furthest copy of one run; a refusal if two histories that parted are equally far."""
    step = max((item.source.step for item in good), default=None)
    if step is None:
        return None
    ends = [item for item in good if item.source.step == step]
    saves = list({item.save: item for item in sorted(ends, key=lambda item: item.preference)}.values())
    latest = [
        item for item in saves if not any(other.knows(item) and not item.knows(other) for other in saves)
    ]  # a history that another one goes on from is not an end
    parted = next((item for item in latest[1:] if not latest[0].knows(item)), None)
    if parted is not None:
        reason = (
            f"this run was continued twice, by sessions that did not know of each other, and both reached step {step}: "
            "only you can know which is meant"
        )
        return _refuse(job, reason, [(item.copy, item.source) for item in latest])
    return max((item for item in ends if item.save in {one.save for one in latest}), key=lambda item: item.preference)


def _refuse(job: Job, reason: str, shown: Sequence[tuple[Survey, Candidate | None]]) -> Refuse:
    folders = [str(copy.directory) for copy, _ in shown]
    ways = [
        f"continue {_told_apart(copy, source, shown)}: {option(job, 'search', str(copy.directory))}"
        for copy, source in shown
        if folders.count(str(copy.directory)) == 1
    ]
    ways += [
        f"continue from this very file: {option(job, 'ckpt', str(source.path))}"
        for _, source in shown
        if source is not None and source.state == "good"
    ]
    another = option(job, "tag", f"{job.tag}_2")
    return refuse(
        Refused.exit_code,
        reason,
        *(_as_words(copy, source) for copy, source in shown),
        ways_out=(*ways, f"continue neither and begin from nothing, under another name: {another}"),
    )


def _told_apart(copy: Survey, source: Candidate | None, shown: Sequence[tuple[Survey, Candidate | None]]) -> str:
    if len({run_of(item) for item, _ in shown}) > 1 or source is None:
        return f"run {run_of(copy)}"
    return f"what session {source.inside.get('session')} did"


def _as_words(copy: Survey, source: Candidate | None) -> str:
    if source is None:
        return f"{copy.directory} is of run {run_of(copy)}, without a checkpoint"
    if source.state != "good":
        return f"{copy.directory} is of run {run_of(copy)}: {source.name}, step {source.step}, {source.state}"
    written = shown_time(source.inside.get("time")) or "at an unknown time"
    return (
        f"{copy.directory} is of run {run_of(copy)}: {source.name}, step {source.step}, written {written} "
        f"by session {source.inside.get('session') or 'unknown'}"
    )


def weights_along(found: DiscoveredCopy) -> tuple[Path, ...]:
    """The weights files that come along: of the same run, and not known to be damaged."""
    run = run_of(found.copy)
    return tuple(
        item.path
        for item in found.copy.candidates
        if item.kind == "weights" and item.state != "damaged" and item.run == run
    )


def records_for(found: DiscoveredCopy, copies: Sequence[Survey]) -> Path | None:
    """The folder whose records come along: the copy's own, else those of another copy of the run, the longest."""
    if found.copy.record is not None or found.copy.events:
        return found.copy.directory
    recorded = [item for item in copies if item.record is not None and run_of(item) == run_of(found.copy)]
    longest = max(recorded, key=lambda item: len(item.events), default=None)
    return longest.directory if longest is not None else None


def others_in_words(found: DiscoveredCopy, good: Sequence[DiscoveredCopy]) -> tuple[str, ...]:
    """The copies that are not used, and whether they hold something that the chosen one does not."""
    return tuple(
        f"{item.copy.directory} holds it too, at step {item.source.step}{_apart(found, item)}"
        for item in good
        if item.copy is not found.copy
    )


def _apart(found: DiscoveredCopy, other: DiscoveredCopy) -> str:
    if other.save == found.save or found.knows(other) or other.knows(found) or not other.session:
        return ""
    return f", by a session that the used one does not know of ({other.session}): what it did is left behind"


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


def further_copy(
    job: Job, here: Survey, source: Candidate, elsewhere: Sequence[Survey]
) -> DiscoveredCopy | Refuse | None:
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


def _resume_copy(here: Survey, found: DiscoveredCopy, copies: Sequence[Survey]) -> Resume:
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
    reached = plan.source if isinstance(plan, Resume | Finished) else survey.newest_good
    if reached is None or item.step < reached.step:
        return EARLIER
    return "the same step" if item.step == reached.step else "a later step, superseded"


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
