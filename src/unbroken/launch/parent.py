"""Where a run's weights came from, for its record: the file as it was named, its bytes, and whose it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unbroken.errors import DamagedFile
from unbroken.launch.job import Job
from unbroken.launch.verdicts import FineTune, Fresh, Resume
from unbroken.run import Candidate
from unbroken.storage.digest import sha256_of


def parent_of(job: Job, plan: Fresh | Resume | FineTune) -> dict[str, Any] | None:
    """The file a run begins from, with the digest of its bytes; reads the whole file. None where there is none."""
    if isinstance(plan, Fresh):
        return None
    source, inside = plan.source, plan.source.inside.get("run")
    try:
        digest, size_bytes = sha256_of(source.path), source.path.stat().st_size
    except OSError as error:
        raise DamagedFile(source.path, f"the file cannot be read ({error.strerror or error})") from error
    return {
        "file": str(_as_typed(job, plan, source)),
        "sha256": digest,
        "size_bytes": size_bytes,
        "written_by": source.format_name,
        "step": source.recorded_step,
        "run": source.run,
        "tag": str(inside.get("tag") or "") if isinstance(inside, dict) else "",
    }


def _as_typed(job: Job, plan: Resume | FineTune, source: Candidate) -> Path:
    """The path in the user's spelling: a survey spells those in the run's own folder its own way."""
    start = job.start
    if isinstance(plan, FineTune):
        return start.weights or source.path
    named = (path for path in (start.exact, start.origin) if path is not None)
    return next((path for path in named if path.is_file() and path.samefile(source.path)), source.path)
