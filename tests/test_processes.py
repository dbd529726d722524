"""What is forked from the zygote is what a new interpreter would be: seen from outside, and by its own program."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.processes import DEVNULL, PIPE, STARTS_OTHERS, STDOUT, Popen, environment, python, run_command, zygote_for

FACTS = """
import json, os, random, signal, sys, threading
import __main__

LIBRARY_S_OWN = 0b11 << 31  # two signals with which the C library's threads speak to each other

def code(name):
    return open(f"/proc/self/{name}").read()

def status(name):
    return next(line.split()[1] for line in code("status").splitlines() if line.startswith(name + ":"))

def main():
    print(json.dumps({
        "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "executable": sys.executable,
        "cwd": os.getcwd(), "environment": dict(os.environ), "flags": str(sys.flags), "warnings": sys.warnoptions,
        "parent": os.getppid(), "group": os.getpgid(0), "is_leader": os.getsid(0) == os.getpid(),
        "handlers": {str(one): str(signal.getsignal(one)) for one in signal.valid_signals()},
        "masks": [hex(int(status(name), 16) & ~LIBRARY_S_OWN) for name in ("SigBlk", "SigIgn", "SigCgt")],
        "threads": [thread.name for thread in threading.enumerate()],
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "main": {
            "same": sys.modules["__main__"] is __main__ and __main__.__dict__ is globals(),
            "file": getattr(__main__, "__file__", None), "name": __name__, "package": __package__, "doc": __doc__,
            "cached": globals().get("__cached__"), "loader": type(__loader__).__name__,
            "spec": getattr(__spec__, "name", None), "names": sorted(globals()),
        },
        "streams": [[s.fileno(), s.encoding, s.errors, s.line_buffering, s.write_through, s.name,
                     type(s.buffer).__name__, s.mode, s.seekable(), s.isatty(),
                     s.newlines] for s in (sys.stdin, sys.stdout, sys.stderr)],
        "excepthook": sys.excepthook is sys.__excepthook__,
    }))

if __name__ == "__main__":
    main()
"""

TRAINING = """
import random, numpy, torch
torch.manual_seed(5)
model = torch.nn.Sequential(torch.nn.Linear(7, 33), torch.nn.Dropout(0.3), torch.nn.GELU(), torch.nn.Linear(33, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for _ in range(20):
    optimizer.zero_grad()
    model(torch.randn(16, 7)).square().mean().backward()
    optimizer.step()
print([value.hex() for one in model.parameters() for value in one.flatten().tolist()])
print(torch.get_num_threads(), torch.initial_seed())
"""


@pytest.fixture(scope="module", autouse=True)
def _kinds_are_known() -> None:
    """The first of each kind is a new interpreter; the tests here are about the others."""
    for _ in range(2):
        run_command(python("-c", "pass"), check=True)


def forked(command: list[str], **how: Any) -> Any:
    assert zygote_for(command, how.get("env", environment()), how.get("cwd")) is not None
    return run_command(command, **how)


def both(command: list[str], **how: Any) -> list[Any]:
    """What is printed by a new interpreter and by a forked process."""
    return [run_command(command, fresh=True, check=True, **how).stdout, forked(command, check=True, **how).stdout]


@pytest.mark.parametrize("way", ["program", "script", "script beside", "module", "package"])
def test_a_program_finds_the_same_about_itself(tmp_path: Path, way: str) -> None:
    (tmp_path / "facts.py").write_text(FACTS, "utf-8")
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").touch()
    (tmp_path / "room" / "__main__.py").write_text(FACTS, "utf-8")
    command = {
        "program": python("-c", FACTS, "one", "two words"),
        "script": python(tmp_path / "facts.py", "one", "-x"),
        "script beside": python("./facts.py", "one"),
        "module": python("-m", "facts", "one"),
        "package": python("-m", "room", "--two", ""),
    }[way]
    run_command(command, cwd=tmp_path)  # the first of its kind
    env = environment(UNBROKEN_SOMETHING="é \n=x")
    fresh, here = (json.loads(said) for said in both(command, cwd=tmp_path, env=env, stdin=DEVNULL))
    assert here == fresh
    assert here["parent"] == os.getpid()
    assert here["main"]["same"]


def test_a_session_of_its_own_is_one(tmp_path: Path) -> None:
    command = python("-c", FACTS)
    fresh, here = (json.loads(said) for said in both(command, cwd=tmp_path, start_new_session=True))
    assert fresh["is_leader"] and here["is_leader"]


STARTS = """
import os, subprocess, sys, tempfile
print(os.getpid(), flush=True)
with tempfile.TemporaryFile() as note:
    command = [sys.executable, "-m", "facts", "one"]
    sys.exit(subprocess.Popen(command, pass_fds=(note.fileno(),), start_new_session=True).wait())
"""


def test_what_a_process_starts_that_starts_others_is_the_same_too(tmp_path: Path) -> None:
    (tmp_path / "facts.py").write_text(
        FACTS + "    print('torch' in sys.modules)\n    os.kill(os.getpid(), signal.SIGKILL)", "utf-8"
    )
    (tmp_path / "starts.py").write_text(STARTS, "utf-8")
    command = python("starts.py", STARTS_OTHERS)
    run_command(command, cwd=tmp_path)  # the first of its kind
    children = []
    for run, knows_torch in ((partial(run_command, fresh=True), "False"), (forked, "True")):
        done = run(command, cwd=tmp_path)
        parent, said, torch = done.stdout.splitlines()
        facts = json.loads(said)
        assert torch == knows_torch
        assert facts.pop("parent") == int(parent) and facts["is_leader"] and facts.pop("group") != int(parent)
        children.append((facts, done.returncode, done.stderr))
    assert children[0] == children[1]


def test_it_computes_the_same_bits() -> None:
    fresh, here = both(python("-c", TRAINING))
    assert here == fresh


def test_random_numbers_that_nobody_seeded_are_others_each_time() -> None:
    program = "import random, numpy, uuid; print(random.random(), numpy.random.rand(), uuid.uuid4())"
    said = [forked(python("-c", program)).stdout.split() for _ in range(3)]
    assert all(len(set(column)) == 3 for column in zip(*said))


@pytest.mark.parametrize(
    "program",
    [
        "pass",
        "raise SystemExit",
        "raise SystemExit(3)",
        "raise SystemExit(259)",
        "raise SystemExit('words')",
        "import os; os._exit(7)",
        "def f(): 1 / 0\nf()",
        "not a program",
        "raise KeyboardInterrupt",
        "import os; os.abort()",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import atexit; atexit.register(print, 'at the end'); print('before', flush=True); raise SystemExit(4)",
        "import threading, time\nthreading.Timer(0.05, print, ['later']).start()\nprint('now')",
        "import sys; sys.stdout.write('no line end'); sys.stderr.write('nor here')",
        "class A:\n def __del__(self): print('let go')\na = A()",
        "import sys; print(sys.stdin.read()[::-1]); print('to the other', file=sys.stderr)",
        "import os; os.write(1, b'raw'); os.write(2, b'bytes')",
        "import sys; sys.stdout.close(); raise SystemExit(2)",
        "import sys; sys.stdout.reconfigure(errors='backslashreplace', encoding='ascii'); print('Währung')",
        "import sys; print(ascii(sys.stdin.readline()), sys.stdin.tell())",
    ],
)
def test_it_ends_and_prints_as_a_new_interpreter_does(tmp_path: Path, program: str) -> None:
    with (tmp_path / "in").open("w+") as typed:
        typed.write("typed")
        ends = []
        for fresh in (True, False):
            typed.seek(0)
            done = run_command(python("-c", program), fresh=fresh, stdin=typed)
            ends.append((done.returncode, done.stdout, done.stderr))
    assert ends[1] == ends[0]


def test_both_streams_can_be_one() -> None:
    program = "import sys; print(1); print(2, file=sys.stderr); print(3)"
    assert forked(python("-c", program), stderr=STDOUT).stdout == "1\n2\n3\n"


@pytest.fixture
def waiting() -> Iterator[Popen]:
    """A process that says that it waits, and waits."""
    command = python("-c", "import signal; print('waiting'); signal.pause()")
    assert zygote_for(command, environment()) is not None
    with Popen(command, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        yield process
        process.kill()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_it_and_its_parent_sees_which(waiting: Popen, sent: signal.Signals) -> None:
    assert waiting.poll() is None
    assert Path(f"/proc/{waiting.pid}").is_dir()
    waiting.send_signal(sent)
    waiting.communicate(timeout=60)
    assert waiting.returncode == -sent
    assert not Path(f"/proc/{waiting.pid}").exists(), "it was waited for, and nothing is left of it"


def test_two_are_two_processes(waiting: Popen) -> None:
    other = forked(python("-c", "import os; print(os.getpid())"))
    assert waiting.pid not in (int(other.stdout), os.getpid())
    assert waiting.poll() is None


def test_what_a_test_does_not_adopt_goes_to_the_system() -> None:
    program = "import os\nif os.fork() == 0:\n print(os.getpid()); import time; time.sleep(0.2); os._exit(0)"
    orphan = int(forked(python("-c", program), stderr=DEVNULL).stdout)
    parent = re.search(r"PPid:\t(\d+)", _status(orphan))
    assert parent is None or int(parent[1]) != os.getpid()


def _status(process: int) -> str:
    try:
        return Path(f"/proc/{process}/status").read_text("utf-8")
    except OSError:
        return ""


@pytest.mark.parametrize(
    "command, extra",
    [
        (python("-X", "importtime", "-c", "pass"), {}),
        (["sleep", "1"], {}),
        (python("no such file.py"), {}),
        (python("-c", "pass"), {"OMP_NUM_THREADS": "2"}),
        (python("-c", "pass"), {"PYTHONPATH": "/somewhere"}),
        (python("-c", "pass"), {"LD_PRELOAD": "/some.so"}),
        (python("-c", "pass"), {"PYTHONUNBUFFERED": ""}),
        (python("-c", "pass"), {"HOME": "/elsewhere"}),
    ],
)
def test_what_only_a_new_interpreter_can_be_is_one(command: list[str], extra: dict[str, str]) -> None:
    assert zygote_for(command, environment(**extra)) is None


def test_what_a_library_sets_while_it_is_imported_keeps_no_command_from_being_forked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "where OpenCV lies")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "where torch compiles")
    assert "TORCHINDUCTOR_CACHE_DIR" not in forked(python("-c", "import os; print(*os.environ)")).stdout


def test_the_first_of_each_kind_of_command_is_a_new_interpreter(tmp_path: Path) -> None:
    script = tmp_path / f"a script of its own {time.monotonic_ns()}.py"
    script.write_text("import sys; print('torch' in sys.modules)", "utf-8")
    assert [run_command(python(script)).stdout for _ in range(3)] == ["False\n", "True\n", "True\n"]
