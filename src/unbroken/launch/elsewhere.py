"""Which copy of a run is continued, of all that were found: a pure choice, and a refusal where it would be a guess.

Of one run, the furthest sound checkpoint wins. Two runs that share a name, and two sessions that went on from the same
save without knowing of each other and reached the same step, are never chosen between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unbroken.clock import shown_time
from unbroken.errors import Refused
from unbroken.launch.job import Job
from unbroken.launch.refusals import refuse
from unbroken.launch.spelling import option
from unbroken.launch.verdicts import Refuse
from unbroken.run import Candidate, Survey
from unbroken.run.history import seconds_of


@dataclass(frozen=True, kw_only=True)
class Found:
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

    def knows(self, other: Found) -> bool:
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


def good_ones(copies: Sequence[Survey]) -> list[Found]:
    """The copies that can be continued, each from its furthest sound checkpoint."""
    return [Found(copy=item, source=item.newest_good) for item in copies if item.newest_good is not None]


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


def furthest(job: Job, good: Sequence[Found]) -> Found | Refuse | None:
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


def weights_along(found: Found) -> tuple[Path, ...]:
    """The weights files that come along: of the same run, and not known to be damaged."""
    run = run_of(found.copy)
    return tuple(
        item.path
        for item in found.copy.candidates
        if item.kind == "weights" and item.state != "damaged" and item.run == run
    )


def records_for(found: Found, copies: Sequence[Survey]) -> Path | None:
    """The folder whose records come along: the copy's own, else those of another copy of the run, the longest."""
    if found.copy.record is not None or found.copy.events:
        return found.copy.directory
    recorded = [item for item in copies if item.record is not None and run_of(item) == run_of(found.copy)]
    longest = max(recorded, key=lambda item: len(item.events), default=None)
    return longest.directory if longest is not None else None


def others_in_words(found: Found, good: Sequence[Found]) -> tuple[str, ...]:
    """The copies that are not used, and whether they hold something that the chosen one does not."""
    return tuple(
        f"{item.copy.directory} holds it too, at step {item.source.step}{_apart(found, item)}"
        for item in good
        if item.copy is not found.copy
    )


def _apart(found: Found, other: Found) -> str:
    if other.save == found.save or found.knows(other) or other.knows(found) or not other.session:
        return ""
    return f", by a session that the used one does not know of ({other.session}): what it did is left behind"
