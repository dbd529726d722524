"""What the host says in its environment: where copies of runs may lie, when the session ends, how much may be saved.

The one place that reads it, for the command line and for anyone's own loop; docs/sessions.md has the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from unbroken.errors import UsageError
from unbroken.launch.job import Limit, Quota
from unbroken.values.quantities import asked, size_bytes

SEARCH_PATH = "UNBROKEN_SEARCH_PATH"
KAGGLE_INPUTS = Path("/kaggle/input")
KAGGLE_S = {"TPU": 9 * 3600.0, "": 12 * 3600.0}  # https://www.kaggle.com/docs/notebooks
KAGGLE_RESERVE_S = 600.0  # the guide's: saving a version takes its time
KAGGLE_WORKING, KAGGLE_BYTES = Path("/kaggle/working"), 20 * 10**9  # what a saved version may hold
BATCH_RESERVE_S = 60.0
TICKS_PER_S = 100.0  # of /proc, whatever the kernel's own


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a launch takes from its host where the user says nothing else."""

    search: tuple[Path, ...]
    limit: Limit | None
    quota: Quota | None


def host(now: datetime, environment: Mapping[str, str] | None = None) -> Host:
    """What the host of this process says at this moment."""
    said = os.environ if environment is None else environment
    return Host(
        search=search_folders(said),
        limit=host_limit(said, now, up_s=up_s()),
        quota=host_quota(said, Path.cwd()),
    )


def search_folders(environment: Mapping[str, str], *, inputs: Path = KAGGLE_INPUTS) -> tuple[Path, ...]:
    """The folders that may hold copies of runs: those that the environment names, and what a notebook host mounts."""
    named = [Path(folder) for folder in environment.get(SEARCH_PATH, "").split(os.pathsep) if folder]
    return (*named, *([inputs] if inputs.is_dir() else []))


def host_limit(environment: Mapping[str, str], now: datetime, *, up_s: float | None = None) -> Limit | None:
    """The limit that the environment names; None if it names none. `up_s` is how long this machine has been up."""
    if said := environment.get("UNBROKEN_SESSION_END", ""):
        if (end := _moment(said)) is None:
            raise UsageError(
                "UNBROKEN_SESSION_END",
                "this is no moment",
                expected="a date and time like 2026-11-22T18:00+08:00, or seconds since 1970",
                found=repr(said[:60]),
                do="For how long a session may be, there is --session 12h.",
            )
        return Limit(left_s=end - now.timestamp(), reserve_s=0.0, source="UNBROKEN_SESSION_END")
    if (end := _moment(environment.get("SLURM_JOB_END_TIME", ""))) is not None:
        left_s = end - now.timestamp()
        return Limit(left_s=left_s, reserve_s=BATCH_RESERVE_S, source="Slurm, SLURM_JOB_END_TIME")
    if environment.get("KAGGLE_KERNEL_RUN_TYPE"):
        kind = "TPU" if environment.get("TPU_WORKER_ID") or environment.get("TPU_NAME") else ""
        left_s = KAGGLE_S[kind] - (up_s or 0.0)
        return Limit(left_s=left_s, reserve_s=KAGGLE_RESERVE_S, source="Kaggle, KAGGLE_KERNEL_RUN_TYPE")
    return None


def host_quota(environment: Mapping[str, str], here: Path) -> Quota | None:
    """The room that the environment names; None if it names none."""
    if said := environment.get("UNBROKEN_QUOTA", ""):
        return Quota(size_bytes=asked("UNBROKEN_QUOTA", size_bytes, said), folder=here, source="UNBROKEN_QUOTA")
    if environment.get("KAGGLE_KERNEL_RUN_TYPE") and KAGGLE_WORKING in (here, *here.parents):
        return Quota(size_bytes=KAGGLE_BYTES, folder=KAGGLE_WORKING, source=f"Kaggle, {KAGGLE_WORKING}")
    return None


def up_s(of_processes: Path = Path("/proc")) -> float | None:
    """How long the first process of this machine or container has been running; None where that cannot be seen."""
    return _age_s(of_processes, "1")


def process_age_s(of_processes: Path = Path("/proc")) -> float:
    """How long this process has been running: its session began then; 0 where that cannot be seen."""
    return max(_age_s(of_processes, "self") or 0.0, 0.0)


def _age_s(of_processes: Path, process: str) -> float | None:
    """From the 22nd field of `stat`, which counts ticks since the boot (proc(5))."""
    try:
        ticks = float((of_processes / process / "stat").read_text("utf-8").rpartition(")")[2].split()[19])
        return float((of_processes / "uptime").read_text("ascii").split()[0]) - ticks / TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return None


def _moment(text: str) -> float | None:
    """Seconds since 1970, written so or as a date and time."""
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
