"""What is asked of the data before a training begins, by `why`, `train` and `unbroken check` alike. Loads no torch.

Data that was tried out, and has not changed, is not tried out again: so nothing that reads pictures is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path

from unbroken import Job
from unbroken.storage import loaded_code


def preflight(job: Job) -> list[str]:
    """Everything a training of this job would refuse before its first step is raised; returns what to warn of."""
    if job.options.device not in ("auto", "cpu"):
        from unbroken.train import pick_device  # torch knows what is there

        pick_device(job.options.device, deterministic=False)
    cache = job.environment.cache
    about = __name__, str(Path.cwd()), json.dumps(job.config), job.options.accidents.on_bad
    if (known := cache.get(*about)) is not None:
        return list(known)
    from mapsage.datasets import try_out

    warnings, looked_at = try_out(job)
    if looked_at:
        cache.put(*about, value=warnings, files=[*loaded_code("mapsage", "unbroken"), *looked_at])
    return warnings
