"""What a launch asks before anything is begun, besides the plan: `why` and `train` ask the same, by one function."""

from __future__ import annotations

import os

from unbroken.errors import Refused
from unbroken.launch.job import Job
from unbroken.launch.options import require_time_left
from unbroken.launch.recipes import load_attribute
from unbroken.launch.verdicts import Finished, Plan, Refuse


def preflight(job: Job, plan: Plan) -> tuple[str, ...]:
    """What the recipe warns of; raises what would end the training before its first step.

    Asked are the time that is left, the place of the run, that of its backup, and by the recipe (`Job.preflight`)
    whatever its data sets and its options need. For a plan that trains nothing, only the backup counts.
    """
    if job.backup is not None:
        from unbroken.keep.destination import require_apart

        require_apart(job.directory, job.backup)
    if isinstance(plan, Finished | Refuse):
        return ()
    require_time_left(job, plan)
    _require_place(job)
    return tuple(load_attribute(job.preflight)(job)) if job.preflight else ()


def _require_place(job: Job) -> None:
    """Raise Refused where the run's folder cannot be made, or nothing can be written into it."""
    folder = next((place for place in (job.directory, *job.directory.absolute().parents) if place.exists()), None)
    if folder is None or not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        made = "written into" if folder == job.directory else "made"
        why = "" if folder is None else f" ({folder} is {'a file' if not folder.is_dir() else 'read-only'})"
        raise Refused(job.directory, f"the run's folder cannot be {made}{why}", do="Name a folder that can be.")
