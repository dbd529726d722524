"""Gathering the facts for a launch: the run's folder, the files the job names, copies of the run elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from unbroken.checkpoint.sharded import files_in
from unbroken.config import same
from unbroken.errors import Refused, UsageError
from unbroken.fields import count_of
from unbroken.launch.choice import missing_beyond
from unbroken.launch.decide import Facts
from unbroken.launch.discovery import archives, copies, is_shut, require_file, runs_around, usual_places, without_copies
from unbroken.launch.job import Job, load_attribute
from unbroken.launch.options import require_shares, require_time_left
from unbroken.launch.spelling import continue_there
from unbroken.launch.verdicts import Finished, Plan, Refuse, Resume
from unbroken.run import Candidate, RunView, Survey, look_at
from unbroken.run.candidates import confirm
from unbroken.run.folder import require_inside
from unbroken.run.layout import manifests, own
from unbroken.run.locate import is_backup
from unbroken.run.record import layout_in
from unbroken.run.survey import survey_of
from unbroken.run.view import JOURNAL
from unbroken.storage import require_local
from unbroken.storage.lock import LOCK_FILES
from unbroken.storage.moved import Moved, looked_again, stamp

MOST_SIBLINGS = 200


def gather(job: Job) -> Facts:
    """Look at everything the decision needs; changes nothing."""

    def look() -> Facts:
        facts = _gather(job)
        return replace(facts, stamps={path: stamp(path) for path in _elsewhere_relied_on(facts)})

    with allowed_to_look():
        return looked_again(job.directory, look)


def is_still_so(job: Job, facts: Facts) -> bool:
    """Whether facts about a run that was not there still hold, now that its folder was made and locked; opens nothing.

    Nobody else has left anything in the folder, and what they hang on elsewhere is as it was.
    """
    listed = {path.name for folder in (job.directory, own(job.directory)) for path in folder.iterdir()}
    if facts.survey.exists or not listed <= {own(job.directory).name, *LOCK_FILES}:
        return False
    try:
        return all(stamp(path) == before for path, before in facts.stamps.items())
    except Moved:
        return False


def _elsewhere_relied_on(facts: Facts) -> Iterator[Path]:
    """The files that were named, and of each copy of the run its checkpoints, where they lie, and its journal."""
    for item in (facts.exact, facts.origin, facts.weights):
        yield from (item.path, *files_in(item.path)) if item is not None else ()
    for copy in facts.elsewhere:
        files = [path for item in copy.candidates for path in files_in(item.path)]
        journal = own(copy.directory) / JOURNAL
        yield from (*files, *{file.parent for file in files}, copy.directory, *([journal] if copy.events else []))


@contextmanager
def allowed_to_look() -> Iterator[None]:
    """Refuse what may not be looked at: who cannot see what is there does not begin in its place."""
    try:
        yield
    except PermissionError as error:
        what = f"this cannot be looked at ({error.strerror})"
        raise UsageError(error.filename, what, do="See who may read it, or name another.") from error


def _gather(job: Job) -> Facts:
    for folder in (job.directory, *job.start.search):
        require_local(folder, is_folder=True)
    view = RunView(job.directory, job.layout)
    view.require_layout()  # a record that leads out of the folder is none to go on with
    here = survey_of(view)
    if here.unreachable:
        return Facts(survey=here)
    require_inside(job.directory, job.layout)
    begins = here.newest_good is None or job.start.fresh or here.archiving
    incomplete = here.newest_good is None or bool(missing_beyond(here, here.newest_good))
    wants_copy = incomplete and job.start.exact is None and not (job.start.fresh or here.archiving)
    elsewhere = tuple(copies(job, here)) if wants_copy else ()
    return Facts(
        survey=here,
        exact=_named(job.start.exact, job, here),
        origin=_named(job.start.origin, job, here) if begins else None,
        weights=_named(job.start.weights, job, here) if begins else None,
        elsewhere=elsewhere,
        searched=without_copies(job, elsewhere) if wants_copy else (),
        missing=tuple(root for root in job.start.search if not root.is_dir()) if wants_copy else (),
        shut=tuple(filter(is_shut, job.start.search)) if wants_copy else (),
        near=(*_near_misses(job), *_elsewhere(job), *archives(job)) if not here.has_history else (),
        taken=frozenset(_names_beside(job)) if here.has_history else frozenset(),
    )


def _named(path: Path | None, job: Job, here: Survey) -> Candidate | None:
    if path is None:
        return None
    require_file(path)
    for item in here.candidates:  # however it was spelled, relative or through a link
        if _is_same(item.path, path):
            return confirm(item, layout_in(job.directory, here.record)[0])
    return look_at(path, manifests(job.layout.run_of(path)))


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except FileNotFoundError as error:
        raise Moved(*error.args) from error


def _near_misses(job: Job) -> Iterator[str]:
    """Runs beside this one that have the same config: perhaps the tag was mistyped."""
    parent = job.directory.parent
    if not parent.is_dir():
        return
    for folder in sorted(parent.iterdir())[:MOST_SIBLINGS]:
        view = RunView(folder, job.layout)
        record = view.record if folder != job.directory else None
        if record is None or record.recipe != job.recipe:
            continue
        if same(_last_config(view), job.config):
            where = _reached(view, job)
            yield f"tag `{record.tag}` has this config {where}: {folder}"


def _elsewhere(job: Job) -> Iterator[str]:
    """This run in another folder: where the same command would keep it, or one of the same config nearby.

    What lies beside it, or below a root that is searched for copies, is told of elsewhere.
    """
    seen, told = {job.directory.resolve()}, [root.resolve() for root in job.start.search]
    beside = job.directory.parent.resolve()
    for usual, folder in (
        *((True, path) for path in usual_places(job)),
        *((False, path) for path in runs_around(job.directory)),
    ):
        place = folder.resolve()
        if place in seen or place.parent == beside or any(place.is_relative_to(root) for root in told):
            continue
        seen.add(place)
        view = RunView(folder, job.layout)
        record = view.record
        if record is None or (record.recipe, record.tag) != (job.recipe, job.tag):
            continue
        alike = same(_last_config(view), job.config)
        if usual or alike:
            what = "with this config" if alike else "with another config"
            short = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
            if is_backup(str(folder)):  # trained on in its place, it would be no backup any more
                way = f"to bring it back: unbroken restore {job.directory} --from {short}"
                yield f"{short} is a backup of a run of this name {what}, {_reached(view, job)}; {way}"
            else:
                yield f"{short} is a run of this name {what}, {_reached(view, job)}; {continue_there(job, short)}"


def _names_beside(job: Job) -> Iterator[str]:
    """The tags of the runs beside this one."""
    parent = job.directory.parent
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        if folder != job.directory and own(folder).is_dir():
            yield folder.name


def _reached(view: RunView, job: Job) -> str:
    """How far a run is, by a glance: nothing is verified that is not going to be used."""
    furthest = view.furthest
    if furthest is None:
        return "without a checkpoint"
    return f"at epoch {furthest.epoch}" if job.epochs is not None and furthest.epoch else f"at step {furthest.step}"


def _last_config(view: RunView) -> object:
    return view.config_reading(view.config_names[-1]).value if view.config_names else None


def preflight(job: Job, plan: Plan) -> tuple[str, ...]:
    """What `why` and `train` ask before anything is begun, besides the plan: returns what the recipe warns of.

    Raised is what would end the training before its first step. Asked are the time that is left, how processes share a
    batch, the place of the run, that of its backup, and by the recipe (`Job.preflight`) whatever its data sets and its
    options need. For a plan that trains nothing, only the backup counts.
    """
    if job.backup is not None:
        from unbroken.keep.destination import require_apart

        require_apart(job.directory, job.backup)
    if isinstance(plan, Finished | Refuse):
        return ()
    require_time_left(job)
    require_shares(job, recorded=count_of(plan.source.inside.get("shards")) or 0 if isinstance(plan, Resume) else 0)
    folder = next((place for place in (job.directory, *job.directory.absolute().parents) if place.exists()), None)
    if folder is None or not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        made = "written into" if folder == job.directory else "made"
        why = "" if folder is None else f" ({folder} is {'a file' if not folder.is_dir() else 'read-only'})"
        raise Refused(job.directory, f"the run's folder cannot be {made}{why}", do="Name a folder that can be.")
    return tuple(load_attribute(job.preflight)(job)) if job.preflight else ()
