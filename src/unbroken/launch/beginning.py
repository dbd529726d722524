"""Under which seed and numerical conditions a run began: they hold for all its sessions, wherever it moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unbroken.launch.job import Job
from unbroken.launch.verdicts import FineTune, Finished, Fresh, Resume
from unbroken.run import read_record


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The seed and the conditions of a run's first launch; no conditions when that is this one."""

    seed: int
    conditions: Mapping[str, Any]


def beginning_of(job: Job, plan: Fresh | Resume | FineTune | Finished) -> Beginning:
    """From the checkpoint that is continued, else from the run's record, else from this launch."""
    if isinstance(plan, Resume | Finished):
        run, conditions = plan.source.inside.get("run"), plan.source.inside.get("conditions")
        if isinstance(run, Mapping) and isinstance(run.get("seed"), int):
            return Beginning(seed=run["seed"], conditions=conditions if isinstance(conditions, Mapping) else {})
    starts_over = isinstance(plan, Fresh | FineTune) and plan.archive
    record = None if starts_over else read_record(job.directory)
    if record is not None:
        return Beginning(seed=record.seed, conditions=record.conditions)
    return Beginning(seed=job.seed, conditions={})
