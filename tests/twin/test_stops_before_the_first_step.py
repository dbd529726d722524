"""A stop in the first seconds of several processes: it ends them at once, in one sentence, and nothing was changed."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, environment, python
from tests.twin.together import start
from unbroken.errors import STOPPED

LOOP = Path(__file__).parent / "loops" / "together.py"
ROOT = Path(__file__).resolve().parents[2]
NOTHING = "before the first step: nothing was changed"


def wait_until(there: Callable[[], bool]) -> None:
    """Wait for what other processes do."""
    give_up = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def alone(root: Path, rank: int, port: int) -> Popen:
    """One of two processes; the other one does not come."""
    told = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    env = environment(KIND="no group of its own", **told)
    return Popen(python(LOOP, root), env=env, stdout=PIPE, stderr=STDOUT, text=True)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_waits_for_another_one_to_come_ends_at_once(tmp_path: Path, rank: int, name: str) -> None:
    """It is there once it listens at the port, or has called there."""
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        port = ours.getsockname()[1]
        if rank == 0:
            ours.close()
            process = alone(tmp_path, rank, port)
            wait_until(lambda: listens(port))
        else:
            ours.listen()
            process = alone(tmp_path, rank, port)
            ours.settimeout(PATIENCE_S)
            ours.accept()[0].close()
        process.send_signal(getattr(signal, name))
        said, _ = process.communicate(timeout=30)
    assert process.returncode == STOPPED, said
    assert said.count(f"stopped by {name} {NOTHING}") == (1 if rank == 0 else 0), said
    assert "Traceback" not in said and not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("asked", "said"), [(0, f"stopped by SIGTERM {NOTHING}"), (1, "process 1: stopped by SIGTERM: it has ended")]
)
def test_a_stop_of_one_process_while_another_still_prepares_ends_all_of_them(
    tmp_path: Path, asked: int, said: str
) -> None:
    session = start(python(LOOP, tmp_path), 2, PREPARES="1", UNBROKEN_COLLECTIVE_TIMEOUT="60s")
    wait_until((tmp_path / "prepares").exists)
    session.processes[asked].send_signal(signal.SIGTERM)
    session.processes[asked].wait(timeout=30)
    (tmp_path / "go").touch()
    ends = session.wait()
    assert [each.returncode for each in ends] == [STOPPED] * 2, ends
    assert ends[0].output.count(said) == 1 and "stopped" not in ends[1].output, ends  # torch says what it lost
    assert not any("Traceback" in each.output for each in ends) and not (tmp_path / "t").exists()


def children(process: Popen, words: str) -> list[str]:
    """The processes that it has started, those whose command has these words."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in found if words.encode() in command_of(pid)]


def command_of(pid: str) -> bytes:
    """What was typed; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def application(run: Path, *options: object) -> list[str]:
    """The command of an application."""
    return python("-m", "unbroken", "train", "tests.twin.frail:frail", run, *options)


@pytest.mark.parametrize(("name", "whom"), [("SIGINT", "all, as a terminal does"), ("SIGTERM", "one process")])
def test_a_stop_while_the_processes_of_a_launcher_are_loading_ends_all_of_them(
    tmp_path: Path, name: str, whom: str
) -> None:
    run, number = tmp_path / "run", getattr(signal, name)
    words = application(run, "--processes", 2, "--restarts", 1)
    launcher = Popen(words, cwd=ROOT, stdout=PIPE, stderr=STDOUT, text=True, start_new_session=True)
    wait_until(lambda: len(children(launcher, "spawn_main")) == 2)
    if whom == "one process":
        os.kill(int(children(launcher, "spawn_main")[1]), number)
    else:
        os.killpg(launcher.pid, number)
    said, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == STOPPED, said
    words = rf"(?m)^stopped by {name} (while no session was open|before the first step): nothing was changed"
    assert len(re.findall(words, said)) == 1, said
    assert "Traceback" not in said and not run.exists(), said


@pytest.mark.parametrize(("name", "options"), [("SIGTERM", []), ("SIGINT", ["--processes", 2])])
def test_a_stop_while_torch_is_being_loaded_ends_a_training_at_once(
    tmp_path: Path, name: str, options: list[object]
) -> None:
    run = tmp_path / "run"
    training = Popen(application(run, *options), fresh=True, cwd=ROOT, stdout=PIPE, stderr=STDOUT, text=True)
    wait_until(lambda: "libtorch_cpu" in Path(f"/proc/{training.pid}/maps").read_text())
    training.send_signal(getattr(signal, name))
    said, _ = training.communicate(timeout=60)
    assert training.returncode == STOPPED, said
    assert said == f"stopped by {name} while no session was open: nothing was changed, run the same command again\n"
    assert not run.exists()
