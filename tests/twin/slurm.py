"""A stand-in for a cluster with Slurm: it really runs batch scripts, warns them, kills them and puts them back.

`sbatch`, `srun` and `scontrol` stand in a folder of PATH; each asks the `Cluster`, which is this process. What it does
is what the manual pages of sbatch, srun, scontrol and slurm.conf say:

- `--signal` reaches every process of the job's steps, or with `B:` the batch shell alone.
- At the limit, and by `scancel`, all of the job gets SIGTERM, the shell too, and the job is over.
- `scontrol requeue` lets the job begin again, unless it was submitted with `--no-requeue`.
- A node that fails takes its processes with it, and the job begins again where it may.
- srun ends with the highest exit code of its tasks, 128 and the number for a signal.

A `python` on the job's PATH is started as all tests start one (`tests/processes.py`): an import of torch is dear.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.processes import PATIENCE_S, Popen, environment

CLIENT = Path(__file__).with_name("slurm_client.py")
COMMANDS = ("sbatch", "srun", "scontrol", "python")
Accident = Literal["", "warning", "limit", "node failure", "cancelled"]


@dataclass
class BatchJob:
    """A job as sbatch took it."""

    number: int
    script: str
    folder: str
    options: dict[str, str]  # of its #SBATCH lines, by name
    environment: dict[str, str]
    restarts: int = 0
    requeued: bool = False
    steps: list[subprocess.Popen[Any]] = field(default_factory=list)  # the processes of its steps, and those below

    @property
    def output(self) -> Path:
        """The file of what it says."""
        return Path(self.folder, self.options.get("--output", f"slurm-{self.number}.out"))

    @property
    def nodes(self) -> list[str]:
        """The names of its machines: all of them this one."""
        return ["localhost"] * int(self.options.get("--nodes", "1"))


class Cluster:
    """Takes jobs and runs them, one session at a time, when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.jobs: list[BatchJob] = []
        self._starting = threading.Lock()  # what runs already is known before anything happens to it
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in COMMANDS:
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{CLIENT}" "$0" "$@"\n')
            program.chmod(0o755)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / "socket"))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more requests."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def environment(self, **extra: str) -> dict[str, str]:
        """What a terminal of the cluster has in its environment."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return environment(PATH=path, STAND_IN=str(self.folder / "socket"), **extra)

    def submit(self, script: str, *, cwd: Path, **extra: str) -> BatchJob:
        """Give a script to sbatch, as a person does."""
        env = self.environment(**extra)
        subprocess.run(["sbatch"], input=script, text=True, check=True, cwd=cwd, env=env, capture_output=True)
        return self.jobs[-1]

    def run(self, job: BatchJob, accident: Accident = "", *, once: Callable[[], bool] = lambda: True) -> int:
        """Run a job's script once; `accident` happens `once` that is so. Returns its exit code; see `requeued`."""
        began = {"SLURM_RESTART_COUNT": str(job.restarts)} if job.restarts else {}
        job.requeued, job.steps = False, []
        spooled = self.folder / f"job{job.number}"
        spooled.write_text(job.script)
        with job.output.open("a" if job.options.get("--open-mode") == "append" else "w") as output:
            shell = subprocess.Popen(
                ["bash", str(spooled)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=job.folder,
                env={**job.environment, **self._told(job), **began},
                start_new_session=True,
            )
            if accident:
                _wait_for(lambda: once() or shell.poll() is not None)
                with self._starting:
                    self._happens(job, shell, accident)
            code = _wait(shell)
        for process in job.steps:
            _wait(process)
        if accident == "node failure" and "--no-requeue" not in job.options:
            job.requeued = True
        job.restarts += job.requeued
        return code

    # -- what happens to a job -------------------------------------------------------------------------------------

    def _happens(self, job: BatchJob, shell: subprocess.Popen[Any], accident: Accident) -> None:
        match accident:
            case "warning":
                wanted, _, _ = job.options["--signal"].partition("@")
                whom, _, name = wanted.rpartition(":")
                for process in [shell] if whom == "B" else job.steps:
                    _send(process, signal.Signals[f"SIG{name}"], group=whom != "B")
            case "limit" | "cancelled" | "node failure":  # the shell first: it would go on once its step has ended
                for process in [shell, *job.steps]:
                    _send(process, signal.SIGKILL if accident == "node failure" else signal.SIGTERM)

    def _told(self, job: BatchJob) -> dict[str, str]:
        each = int(job.options.get("--ntasks-per-node", "1"))
        days, _, clock = job.options["--time"].rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        limit_s = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
        return {
            "SLURM_JOB_ID": str(job.number),
            "SLURM_JOB_NODELIST": f"node[1-{len(job.nodes)}]",
            "SLURM_JOB_END_TIME": str(int(time.time() + limit_s)),
            "SLURM_NNODES": str(len(job.nodes)),
            "SLURM_NTASKS_PER_NODE": str(each),
            "SLURM_NTASKS": str(each * len(job.nodes)),
        }

    # -- what its commands ask -------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
            asked = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
            try:
                told = getattr(self, f"_{asked['command']}")(asked, descriptors)
            except Exception as error:  # noqa: BLE001 - the client is what shows it
                told = {"code": 98, "err": f"stand-in: {error!r}\n"}
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            with suppress(BrokenPipeError):  # it went with its node
                connection.sendall(json.dumps({"code": 0, "out": "", "err": "", **told}).encode())

    def _sbatch(self, asked: Mapping[str, Any], _descriptors: Sequence[int]) -> dict[str, Any]:
        options = dict[str, str]()
        for line in asked["input"].splitlines():
            if line.startswith("#SBATCH"):
                for word in shlex.split(line.removeprefix("#SBATCH"), comments=True):
                    name, _, value = word.partition("=")
                    options[name] = value
            elif line.strip() and not line.startswith("#"):
                break
        if "--time" not in options:
            return {"code": 1, "err": "sbatch: error: no --time\n"}
        self.jobs.append(
            BatchJob(len(self.jobs) + 41, asked["input"], asked["folder"], options, dict(asked["environment"]))
        )
        return {"out": f"Submitted batch job {self.jobs[-1].number}\n"}

    def _scontrol(self, asked: Mapping[str, Any], _descriptors: Sequence[int]) -> dict[str, Any]:
        match asked["words"]:
            case ["show", "hostnames", _]:
                return {"out": "".join(f"{node}\n" for node in self._job(asked).nodes)}
            case ["requeue", number] if "--no-requeue" not in self._job(asked).options:
                assert int(number) == self._job(asked).number
                self._job(asked).requeued = True
                return {}
        return {"code": 1, "err": "Requested operation is presently disabled\n"}

    def _srun(self, asked: Mapping[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        job, words = self._job(asked), list(asked["words"])
        while words[0].startswith("--"):
            assert "=" in words.pop(0)
        each = int(job.options.get("--ntasks-per-node", "1"))
        size = each * len(job.nodes)
        tasks = [
            {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % each), "SLURM_NODEID": str(rank // each)}
            for rank in range(size)
        ]
        common = {"SLURM_STEP_NUM_TASKS": str(size), "SLURM_STEP_ID": "0"}
        return self._run(subprocess.Popen, words, asked, descriptors, [{**common, **told} for told in tasks])

    def _python(self, asked: Mapping[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        return self._run(Popen, [sys.executable, *asked["words"]], asked, descriptors, [{}])

    def _run(
        self,
        start: Callable[..., subprocess.Popen[Any]],
        words: Sequence[str],
        asked: Mapping[str, Any],
        descriptors: Sequence[int],
        told: Sequence[dict[str, str]],
    ) -> dict[str, Any]:
        """Start processes of a step, each told something else; the highest exit code of them all."""
        how = {"cwd": asked["folder"], "stdout": descriptors[0], "stderr": descriptors[1], "start_new_session": True}
        with self._starting:
            started = [start(words, env={**asked["environment"], **each}, **how) for each in told]
            self._job(asked).steps += started
        codes = [_wait(process) for process in started]
        return {"code": max(code if code >= 0 else 128 - code for code in codes)}

    def _job(self, asked: Mapping[str, Any]) -> BatchJob:
        number = int(asked["environment"]["SLURM_JOB_ID"])
        return next(job for job in self.jobs if job.number == number)


def _send(process: subprocess.Popen[Any], number: int, *, group: bool = True) -> None:
    with suppress(ProcessLookupError):
        if process.poll() is None:
            (os.killpg if group else os.kill)(process.pid, number)


def _wait(process: subprocess.Popen[Any]) -> int:
    return process.wait(timeout=PATIENCE_S)


def _wait_for(there: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < give_up
        time.sleep(0.005)
