"""Starting the tests' processes: real ones, most of them forked from a process that has done the imports already.

`Popen` is that of `subprocess`, `run_command` its `run`. What they start is forked from this worker's zygote
(`tests/zygote.py`) where the outcome cannot differ from that of a new interpreter; else, and for the first of each kind
of command, a new interpreter is started: its own start is tested too, and not paid for a thousand times. Tests of what
is imported use `subprocess` itself.
"""

from __future__ import annotations

import atexit
import inspect
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.zygote import Forked

DEVNULL, PIPE, STDOUT = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
PATIENCE_S = 240.0

# What an interpreter, the loader or a library reads only once, while it starts: the zygote has read it already.
_READ_AT_START = re.compile(
    "(PYTHON|LD_|LC_|LANG|GLIBC_|MALLOC_|[A-Z]*OMP_|MKL_|OPENBLAS|OPENCV|NUMEXPR_|NPY_|TORCH|PYTORCH|ATEN_|CUDA|CUBLAS|"
    "NVIDIA_|DNNL_|ONEDNN_|TF_|MPL|MATPLOTLIB|XDG_|HOME$|TMP|TEMP|TZ$)"
)
STARTS_OTHERS = "--restarts"  # a training that is supervised
# What OpenCV and torch put into the environment of whoever imports them: no user's shell has it. conftest.py imports
# this file before anything could.
_BY_LIBRARIES = {name: os.environ.get(name) for name in ("LD_LIBRARY_PATH", "TORCHINDUCTOR_CACHE_DIR")}


def environment(**extra: str) -> dict[str, str]:
    """One compute thread, so that tests share a machine; nothing else of the caller's training settings.

    Where a test asks for more threads, they sleep while they wait for each other. Nor is there what the libraries that
    this process imported have set: whether it did would decide what a zygote may serve.
    """
    now = {key: value for key, value in os.environ.items() if not key.startswith(("UNBROKEN", "OMP_"))}
    kept = {key: value for key, value in {**now, **_BY_LIBRARIES}.items() if value is not None}
    return {**kept, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1", **extra}


def python(*arguments: object) -> list[str]:
    """A command line for this interpreter."""
    return [sys.executable, *map(str, arguments)]


class Popen(Forked):
    """A process of its own, in `environment()` if none is named. `fresh`: a new interpreter, whatever the command."""

    def __init__(self, command: Sequence[str], *, fresh: bool = False, **how: Any) -> None:
        self._fresh = fresh
        super().__init__(command, **{"env": environment(), **how})

    def _execute_child(self, *arguments: Any) -> None:
        """Start the process with the descriptors that are made by now."""
        how = inspect.signature(super()._execute_child).bind(*arguments).arguments  # type: ignore[misc]
        command, env = [os.fsdecode(word) for word in how["args"]], how["env"]
        plain = not any(how[name] for name in ("preexec_fn", "pass_fds", "shell", "executable"))
        plain = plain and how["close_fds"] and how["restore_signals"] and how["umask"] == -1
        plain = plain and how["process_group"] == -1 and (how["cwd"] is None or Path(how["cwd"]).is_dir())
        zygote = None if self._fresh or not plain else zygote_for(command, env, how["cwd"])
        if zygote is None:
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        with zygote as asked:
            self.forked(asked, how, starts_others=STARTS_OTHERS in command)


def run_command(
    command: Sequence[str], *, timeout: float = PATIENCE_S, fresh: bool = False, check: bool = False, **how: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end and keep what it printed, in `stdout` and `stderr`."""
    how = {"stdout": PIPE, "stderr": PIPE, "text": True, **how}
    with Popen(command, fresh=fresh, **how) as process:
        try:
            said, complained = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, said, complained)
    if check:
        done.check_returncode()
    return done


@contextmanager
def started_here_alike() -> Iterator[None]:
    """What the code under test itself starts by `subprocess`, in this process, is started as by `Popen`."""
    with pytest.MonkeyPatch.context() as patched:
        now = environment()
        for name in os.environ.keys() - now.keys():
            patched.delenv(name)
        for name, value in now.items():
            patched.setenv(name, value)
        patched.setattr(subprocess, "Popen", Popen)
        yield


class _Zygote:
    """The process that forks, and the socket to it."""

    def __init__(self) -> None:
        self.environment = environment()
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            python(Path(__file__).with_name("zygote.py"), theirs.fileno()),
            env=self.environment,
            cwd=Path(__file__).parents[1],
            stdin=DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._ready = False
        atexit.register(self._end)

    def __enter__(self) -> socket.socket:
        self._lock.acquire()
        if not self._ready:
            assert self._socket.recv(16) == b"ready", "the process that forks could not be started"
            self._ready = True
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()


_zygote: _Zygote | None = None
_kinds: set[tuple[str, ...]] = set()
kinds_of_all: Path | None = None  # a folder in which each test process of this run notes those that it was the first of


def zygote_for(
    command: Sequence[str], env: Mapping[str, str] | None, cwd: str | os.PathLike[str] | None = None
) -> _Zygote | None:
    """The zygote if it may serve a command that is typed in `cwd`, None if that needs an interpreter of its own."""
    global _zygote
    kind = _kind_of(command, Path(os.fsdecode(cwd or "")))
    if sys.platform != "linux" or kind is None or env is None:
        return None
    if _is_first(kind):
        return None
    _zygote = _zygote or _Zygote()
    known = _zygote.environment
    differ = {key for key in env.keys() | known.keys() if env.get(key) != known.get(key)}
    return None if any(_READ_AT_START.match(os.fsdecode(key)) for key in differ) else _zygote


def _is_first(kind: tuple[str, ...]) -> bool:
    if kind in _kinds:
        return False
    _kinds.add(kind)
    if kinds_of_all is not None:
        try:
            (kinds_of_all / sha256("\0".join(kind).encode()).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            return False
    return True


def _kind_of(command: Sequence[str], cwd: Path) -> tuple[str, ...] | None:
    """What is typed, without what differs from test to test; None for what a zygote cannot be."""
    if command[0] != sys.executable:
        return None
    match command[1:]:
        case ["-m", module, *words]:
            return ("-m", module, *words[:1], *({STARTS_OTHERS} & set(words)))
        case ["-c", _, *_]:
            return ("-c",)
        case [script, *_] if not script.startswith("-") and (cwd / script).is_file():
            return (Path(script).name,)
    return None
