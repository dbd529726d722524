"""A process that has imported what a training imports, and becomes one of the tests' processes when it is asked.

Three seconds of each training that a test starts are imports. They are paid once: this process imports, never computes,
and forks. What it forks is a process like any other: an id of its own, its own descriptors, folder, environment and
command line, a `__main__` that is the program, fresh random states, and the asking test's process for a parent, which
waits for it and kills it itself (`tests/processes.py`).

A process that starts others itself (a supervised training) gets a zygote of its own, forked before it becomes anything.

Started as `python zygote.py DESCRIPTOR`, a socket over which requests come in and process ids go out. It ends when the
other side does.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib.util
import inspect
import io
import json
import os
import pkgutil
import random
import signal
import socket
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

LARGEST_REQUEST = 200_000
_PR_SET_CHILD_SUBREAPER = 36
_ABOVE_ALL = 200  # no process of a test has so many files open
# What torch and the library load only when they first need it.
ALSO = ("torch._dynamo", "torch._inductor", "torch.utils.tensorboard", "tensorboard.compat.proto", "cProfile", "pstats")


def load() -> None:
    """Import the library, the applications and what they use. Nothing is computed: a thread would not live on."""
    import PIL.Image

    import focalsst
    import mapsage
    import unbroken

    for package in (unbroken, mapsage, focalsst):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    for name in ALSO:
        importlib.import_module(name)
    PIL.Image.preinit()
    for each in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        each.atexit = False  # torch would take its own operators back, one by one
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: only the one that forks would live on"
    gc.collect()
    gc.freeze()  # the collector touches every object it looks at, and what is touched is copied


def serve(asked: socket.socket) -> Mapping[str, Any]:
    """Answer requests until the other side is gone. Returns only in a new process, with what it is to do."""
    asked.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, LARGEST_REQUEST, 8)
        if not message:
            os._exit(0)
        request = json.loads(message)
        reading, writing = os.pipe()
        # The test's process adopts what has lost its parent, so there is one between that ends at once.
        between = os.fork()
        if between == 0:
            between = os.getpid()
            child = os.fork()
            if child:
                os.write(writing, str(child).encode())
                os._exit(0)
            asked.close()
            os.close(reading)
            os.close(writing)
            above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE_ALL) for descriptor in descriptors]
            for descriptor in descriptors:
                os.close(descriptor)
            for descriptor, number in zip(above, request["numbers"], strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
            while os.getppid() == between:
                os.sched_yield()
            return request
        os.close(writing)
        child = int(os.read(reading, 32))
        os.close(reading)
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(between, 0)
        asked.send(str(child).encode())


def ask(zygote: socket.socket, how: Mapping[str, Any], **request: Any) -> int:
    """Have a zygote fork what a `Popen` is about to start, and adopt it; returns its id."""
    env = os.environ if how["env"] is None else how["env"]
    ends = {0: how["p2cread"], 1: how["c2pwrite"], 2: how["errwrite"]}
    files = {number: number if end == -1 else end for number, end in ends.items()}
    files.update((number, number) for number in how["pass_fds"])
    request |= {
        "command": [os.fsdecode(word) for word in how["args"]],
        "env": {os.fsdecode(key): os.fsdecode(value) for key, value in env.items()},
        "cwd": os.path.join(os.getcwd(), os.fsdecode(how["cwd"] or "")),
        "start_new_session": how["start_new_session"],
        "numbers": list(files),
    }
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        socket.send_fds(zygote, [json.dumps(request).encode()], list(files.values()))
        return int(zygote.recv(32))
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Forked(subprocess.Popen):  # type: ignore[type-arg]
    """A process that a zygote may fork."""

    def forked(self, zygote: socket.socket, how: Mapping[str, Any], *, starts_others: bool) -> None:
        """Do what `_execute_child` does, by a fork."""
        self.pid = ask(zygote, how, starts_others=starts_others)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(how[name] for name in pipes))  # type: ignore[attr-defined]


class PopenHere(Forked):
    """`subprocess.Popen` where a process has a zygote: a module that this interpreter is to run is forked."""

    zygote: ClassVar[socket.socket]

    def _execute_child(self, *arguments: Any) -> None:
        how = inspect.signature(super()._execute_child).bind(*arguments).arguments  # type: ignore[misc]
        plain = how["env"] is None and not any(how[name] for name in ("preexec_fn", "shell", "executable"))
        if plain and list(how["args"][:2]) == [sys.executable, "-m"]:
            self.forked(self.zygote, how, starts_others=False)
        else:
            super()._execute_child(*arguments)  # type: ignore[misc]


def with_zygote(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fork a zygote for this process, which is nothing yet; what that one forks returns from here as well."""
    PopenHere.zygote, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote = os.fork()
    if zygote == 0:
        PopenHere.zygote.close()
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.close(nothing)
        return serve(theirs)
    theirs.close()
    PopenHere.zygote.recv(16)
    subprocess.Popen = PopenHere  # type: ignore[misc]
    atexit.register(lambda: (PopenHere.zygote.close(), os.waitpid(zygote, 0)))
    return request


def become(request: Mapping[str, Any]) -> tuple[Callable[[], types.CodeType], dict[str, Any]]:
    """Be the process that was asked for; returns its program and the names that the program finds."""
    import numpy as np

    if request["start_new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    open_streams()
    random.seed()
    np.random.seed()
    importlib.invalidate_caches()

    sys.orig_argv = request["command"]
    how, *words = request["command"][1:]
    main = types.ModuleType("__main__")
    main.__dict__.update(__annotations__={}, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    match how:
        case "-c":
            sys.argv = ["-c", *words[1:]]
            sys.path.insert(0, "")
            main.__loader__ = importlib.machinery.BuiltinImporter
            return lambda: compile(words[0], "<string>", "exec"), main.__dict__
        case "-m":
            sys.argv = ["-m", *words[1:]]
            sys.path.insert(0, os.getcwd())
            spec = _spec_of(words[0])
            assert spec.loader is not None and spec.origin is not None
            sys.argv[0] = main.__file__ = spec.origin
            main.__spec__, main.__loader__, main.__package__ = spec, spec.loader, spec.parent
            main.__cached__ = spec.cached  # type: ignore[attr-defined]
            return lambda: spec.loader.get_code(spec.name), main.__dict__  # type: ignore[attr-defined]
    sys.argv = [how, *words]
    sys.path.insert(0, os.path.dirname(os.path.realpath(how)))
    file = os.path.join(os.getcwd(), how)
    main.__file__, main.__cached__ = file, None  # type: ignore[attr-defined]
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", file)
    return lambda: compile(Path(file).read_bytes(), file, "exec"), main.__dict__


def open_streams() -> None:
    """Make the three streams anew, as an unbuffered interpreter does: those that are there know other files.

    A module that remembers one of them goes on writing to the same descriptor.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before, writes = getattr(sys, name), name != "stdin"
        raw = open(number, "wb" if writes else "rb", 0 if writes else -1, closefd=False)  # noqa: SIM115
        (raw if writes else raw.raw).name = f"<{name}>"
        how = {"newline": "\n" if writes else None, "write_through": True}
        stream = io.TextIOWrapper(raw, before.encoding, before.errors, **how)
        stream.mode = "w" if writes else "r"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        _streams_before.append(before)


_streams_before: list[io.TextIOWrapper] = []


def _spec_of(module: str) -> importlib.machinery.ModuleSpec:
    """Where a module's program is; a package's is its `__main__`."""
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    if spec is None:
        raise SystemExit(f"{sys.executable}: No module named {module}")
    return spec


def run(program: Callable[[], types.CodeType], names: dict[str, Any]) -> NoReturn:
    """Run a program as an interpreter does, and end as one does.

    All that can be seen of an interpreter's end is done: threads are awaited, exit functions called, the program's own
    objects let go, streams flushed. Only the taking apart of a thousand modules is left to the system.
    """
    code, interrupted = 0, False
    try:
        exec(program(), names)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if code and not isinstance(ending.code, int):
            print(ending.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - as an interpreter: it says it and ends
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        code, interrupted = 1, isinstance(error, KeyboardInterrupt)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    names.clear()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader may have gone
            stream.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 255)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, which no other process would have there
    load()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    run(*become(with_zygote(asked) if asked["starts_others"] else asked))
