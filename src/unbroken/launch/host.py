"""What the host says in its environment: where copies of runs may lie, when the session ends, how much may be saved.

The one place that reads it, for the command line and for anyone's own loop; docs/sessions.md has the table. Here, too,
is asked who started this process, and whether it is one of several; and what a library takes from there alone is set.

What `unbroken prove` tells the sessions that it starts is a `Trial`: where they train, how far, how they are killed.
It is the same launch in a place of its own: nothing of the user's runs is read or written.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from unbroken.errors import UsageError
from unbroken.fields import BadField, typed
from unbroken.jsonlines import parsed_json
from unbroken.launch.job import SEARCH_PATH, Host, Job, Limit, Quota
from unbroken.quantities import asked, duration_s, size_bytes
from unbroken.storage.cache import Cache, cache_folder
from unbroken.text import as_bytes

KEPT = 2  # checkpoints of a trial: a proof of a large model must fit on the disk
PROVE = "UNBROKEN_PROVE"  # what `unbroken prove` tells the sessions that it starts
KAGGLE_INPUTS = Path("/kaggle/input")
KAGGLE_S = {"TPU": 9 * 3600.0, "": 12 * 3600.0}  # https://www.kaggle.com/docs/notebooks
KAGGLE_RESERVE_S = 600.0  # the guide's: saving a version takes its time
KAGGLE_WORKING, KAGGLE_BYTES = Path("/kaggle/working"), 20 * 10**9  # what a saved version may hold
BATCH_RESERVE_S = 60.0
TICKS_PER_S = 100.0  # of /proc, whatever the kernel's own
MOST_ABOVE = 6  # processes above this one that are looked at
NOTEBOOKS = ("JPY_PARENT_PID", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG")
# What a launcher leaves in the environment of what it starts; the first that is there counts.
LAUNCHERS = {
    "TORCHELASTIC_RUN_ID": "torchrun",
    "ACCELERATE_MIXED_PRECISION": "accelerate launch",
    "SLURM_JOB_ID": "Slurm",
}
# How many processes were started together: for one training, as its launcher says, or perhaps for several.
WORLD_SIZE = "WORLD_SIZE"
RENDEZVOUS = ("RANK", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT, TIMEOUT_S = "UNBROKEN_COLLECTIVE_TIMEOUT", 1800.0  # that of torch.distributed
BY_MULTIPROCESSING = "multiprocessing, from process"
STARTED_TOGETHER = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def host(now: datetime, environment: Mapping[str, str] | None = None) -> Host:
    """What the host of this process says at this moment."""
    said = os.environ if environment is None else environment
    return Host(
        search=search_folders(said),
        limit=host_limit(said, now, up_s=up_s()),
        quota=host_quota(said, Path.cwd()),
    )


def cache(environment: Mapping[str, str] | None = None) -> Cache:
    """What this user's commands keep for each other."""
    return Cache(cache_folder(os.environ if environment is None else environment))


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


def told_to_prove(environment: Mapping[str, str] | None = None) -> str:
    """What `unbroken prove` tells this process, "" for one that trains in earnest."""
    return (os.environ if environment is None else environment).get(PROVE, "")


def inherited() -> Mapping[str, str]:
    """What a process that is started from here is told of its surroundings."""
    return os.environ


def in_notebook(environment: Mapping[str, str] | None = None) -> bool:
    """Whether a notebook keeps what is printed: its cells pretend to be terminals, and store every redrawn bar."""
    said = os.environ if environment is None else environment
    return any(name in said for name in NOTEBOOKS)


def ask_cublas_for_determinism() -> None:
    """Let cuBLAS repeat its bits, unless the user chose a workspace: it looks there once, before its first product.

    https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def launcher_said(environment: Mapping[str, str] | None = None) -> str:
    """The launcher that the environment tells of, "" for none."""
    said = os.environ if environment is None else environment
    return next((launcher for name, launcher in LAUNCHERS.items() if said.get(name)), "")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which of how many processes of one training this is.

    `local_rank` counts those of its machine; `starts` tells the starts of them all apart.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    starts: str = "0"


def processes_said(environment: Mapping[str, str] | None = None) -> Processes:
    """What a launcher (torchrun, or whatever sets the same variables) says; UsageError where it says half of it."""
    said = os.environ if environment is None else environment
    size = _number(said.get(WORLD_SIZE, ""))
    if size <= 1:
        return Processes()
    missing = [name for name in RENDEZVOUS if not said.get(name)]
    rank = _number(said.get("RANK", ""))
    if missing or rank >= size:
        raise UsageError(
            f"{WORLD_SIZE}={size}",
            f"this is one of {size} processes of one training, and which one, or where the others are, is not said",
            expected=f"{WORLD_SIZE}, {', '.join(RENDEZVOUS)} in the environment of each, as torchrun sets them",
            found=f"no {', '.join(missing)}" if missing else f"RANK={said['RANK']}",
            do=f"Start them by torchrun: torchrun --nproc-per-node {size} YOUR_PROGRAM.py",
        )
    # Where they meet is new in each start, unless an agent keeps it; and each agent counts its own starts.
    kept = said.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    starts = said.get("TORCHELASTIC_RESTART_COUNT", "0") if kept else "0"
    return Processes(rank=rank, size=size, local_rank=_number(said.get("LOCAL_RANK", "")), starts=starts)


def leads(environment: Mapping[str, str] | None = None) -> bool:
    """Whether it is this process that speaks, of several; also where what a launcher says makes no sense."""
    try:
        return processes_said(environment).rank == 0
    except UsageError:
        return True


def is_launched(environment: Mapping[str, str] | None = None) -> bool:
    """Whether a launcher told this process its rank, be it the only one."""
    said = os.environ if environment is None else environment
    return bool(said.get("RANK")) and bool(said.get(WORLD_SIZE))


def forget_launcher() -> None:
    """Let what is started again by its own command not be told of the agent that started this process."""
    for name in LAUNCHERS:
        if name.startswith("TORCHELASTIC"):
            os.environ.pop(name, None)


def collective_timeout_s(environment: Mapping[str, str] | None = None) -> float:
    """How long a process waits for the others before it takes one of them for dead or hung."""
    said = (os.environ if environment is None else environment).get(TIMEOUT, "")
    return asked(TIMEOUT, duration_s, said) if said else TIMEOUT_S


def started_together(environment: Mapping[str, str] | None = None) -> str:
    """What says that this is one of several processes: each may be a training of its own.

    A launcher says with how many; a process that multiprocessing started knows which one did.
    """
    said = os.environ if environment is None else environment
    if words := next((f"{name}={said[name]}" for name in STARTED_TOGETHER if _number(said.get(name, "")) > 1), ""):
        return words
    loaded = sys.modules.get("multiprocessing.process") if environment is None else None
    above = loaded.parent_process() if loaded else None
    return f"{BY_MULTIPROCESSING} {above.pid}" if above is not None else ""


def ancestors(of_processes: Path = Path("/proc")) -> tuple[tuple[str, ...], ...]:
    """The command lines of the processes above this one, the nearest first, as far as they can be seen."""
    found, process = list[tuple[str, ...]](), str(os.getppid())
    while len(found) < MOST_ABOVE and process not in ("0", "1"):
        try:
            words = (of_processes / process / "cmdline").read_bytes().split(b"\0")[:-1]
            process = (of_processes / process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1]
        except (OSError, IndexError):  # another user's, or gone by now; or this system has no such files
            break
        found.append(tuple(map(os.fsdecode, words)))
    return tuple(found)


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


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 9 else 0


def _moment(text: str) -> float | None:
    """Seconds since 1970, written so or as a date and time."""
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


# -- a session of `unbroken prove` -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One session of a proof.

    It trains below `place`, saves every `save_every` steps and stops after step `until`. Once `after` steps of the run
    in the folder `run` are done it gets a `signal`, `share` of a step's time later ("": it is left in peace).
    `workers` stand in for those of the loop (None: as the loop says).
    """

    place: str
    until: int
    save_every: int
    workers: int | None = None
    run: str = ""
    after: int = 0
    signal: Literal["", "SIGKILL", "SIGTERM"] = ""
    share: float = 0.0

    def as_text(self) -> str:
        """As it stands in the environment of a session."""
        return json.dumps(asdict(self))


def trial_of(text: str) -> Trial | None:
    """The trial that an environment tells of; None if it tells of none."""
    if not text:
        return None
    try:
        return typed(Trial, parsed_json(as_bytes(text)))
    except (ValueError, BadField) as error:
        raise UsageError(PROVE, f"only `unbroken prove` sets this ({error})", do=f"Unset {PROVE}.") from error


def folder_on_trial(directory: Path) -> str:
    """The folder of a run on trial: its own name, and a mark of where the script would have it."""
    return f"{directory.name}-{zlib.crc32(os.fsencode(directory.absolute())):08x}"


def on_trial(job: Job, trial: Trial) -> Job:
    """The same job in the trial's place: begun there, never copied to another disk, without a limit of time."""
    return replace(
        job,
        directory=Path(trial.place) / folder_on_trial(job.directory),
        usual=(),
        limit=None,
        quota=None,
        backup=None,
        keep_last=job.keep_last or KEPT,
        start=replace(job.start, fresh=False, exact=None, search=()),
        environment=replace(job.environment, on_trial=True),
    )


def environment_of(trial: Trial, inherited: Mapping[str, str], *, hash_seed: str = "") -> dict[str, str]:
    """The environment of a session: as the user's, without what a host or the user says to trainings in earnest."""
    ours = {name: value for name, value in inherited.items() if not name.startswith("UNBROKEN_")}
    fixed = {"PYTHONHASHSEED": hash_seed} if hash_seed else {}
    return {**ours, **fixed, "PYTHONUNBUFFERED": "1", PROVE: trial.as_text()}
