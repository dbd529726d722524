"""What is no ordinary file, or far too large, under a name that a command opens: it answers, soon, in little memory.

Each case is tried in a forked child whose memory and processor time are limited; a child that waits is ended by a
signal. Only a file of 10 GB that is a hole is not copied anywhere: a backup of it is its owner's wish.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unbroken.cli.test_hostile_names import FAMILY, RECIPE, commands
from unbroken.cli import main

MEMORY_BYTES = 1 << 30  # more than the process has already
CPU_S = 20  # of all commands of a case
PATIENCE_S = 20  # for a machine that is busy; a command that waits for a pipe would wait for ever
HOLE_BYTES = 10 << 30


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def channel(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may have 100 characters
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HOLE_BYTES)


def circle(path: Path) -> None:
    path.symlink_to(path.name)


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": pipe,
    "endless": endless,
    "folder": folder,
    "socket": channel,
    "hole": hole,
    "circle": circle,
}
FILES = (
    "run/unbroken/run.json",
    "run/unbroken/journal.jsonl",
    "run/unbroken/metrics.jsonl",
    "run/unbroken/manifests/iter_8.pth.json",
    "run/unbroken/holder.json",
    "run/unbroken/lock",
    "run/unbroken/stop.json",
    "run/unbroken/pins.json",
    "run/unbroken/restoring.json",
    "run/unbroken/backup.json",
    "run/unbroken/packed.json",
    "run/unbroken/logged.jsonl",
    "run/unbroken/configs/29990101_000000.json",
    "run/iter_8.pth",
    "run/iter_8.pth.partial",
    "run/vis_data/scalars.json",
    "run/tensorboard/events.out.tfevents.1.host.20000101_000000",
    "run/29990101_000000/vis_data/scalars.json",
    "foreign/ckpt/checkpoint_epoch_3.pth",
    "foreign/tensorboard/events.out.tfevents.1.host",
    "foreign/config.py",
    "experiments_log.txt",
    "given.zip",
    "given.yaml",
    "given.py",
    "given.pth",
)
GIVEN = {
    "given.zip": [("unpack", "given.zip", "unpacked")],
    "given.yaml": [("why", "focalsst", "--cfg_file", "given.yaml"), ("why", "mapsage", "based.py")],
    "given.py": [("why", "mapsage", "given.py"), ("why", "mapsage", "based.py")],
    "given.pth": [("inspect", "given.pth"), ("verify", "given.pth"), ("show", "given.pth")],
}
COPIES = {"backup", "pack"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of ours, and one that another program left."""
    root = tmp_path_factory.mktemp("ordinary")
    for name in ("run", "run_epochs"):
        assert main(["train", RECIPE, str(root / name), "8"]) == 0
    for name in ("ckpt", "tensorboard"):
        shutil.copytree(root / "run_epochs" / name, root / "foreign" / name)
    (root / "based.py").write_text('_base_ = ["given.py"]\n')
    (root / "based.yaml").write_text("_BASE_CONFIG_: given.yaml\n")
    return root


def tried(typed: Sequence[tuple[str, ...]], told: Path) -> None:
    """In the child: type the commands, and write down what each ended with."""
    with (told / "out").open("w") as out, (told / "err").open("w+") as err:
        sys.stdout, sys.stderr = out, err
        for words in typed:
            at = err.tell()
            with (told / "answers").open("a") as answers:
                answers.write(json.dumps([words]) + "\n")
            code = main(list(words))
            err.flush()
            err.seek(at)
            with (told / "answers").open("a") as answers:
                answers.write(json.dumps([words, code, err.read()[-2000:]]) + "\n")


def answered(typed: Sequence[tuple[str, ...]], told: Path) -> None:
    """Type commands in a child with limits; each has to end with a code of the family and no trace."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PATIENCE_S)
            tried(typed, told)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    answers = [json.loads(line) for line in (told / "answers").read_text().splitlines()]
    assert status == 0, (os.waitstatus_to_exitcode(status), answers[-1], (told / "err").read_text()[-1500:])
    for words, code, said in (answer for answer in answers if len(answer) > 1):
        assert code in FAMILY and "Traceback" not in said, (words, code, said)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("file", FILES)
def test_every_command_answers_whatever_has_the_name_of_a_file(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    for number, (kind, make) in enumerate(KINDS.items(), start=FILES.index(file)):
        here, told = tmp_path / kind / "here", tmp_path / kind / "told"
        shutil.copytree(made, here, symlinks=True)
        told.mkdir()
        path = here / file
        if path.is_symlink() or path.exists():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(here)
        make(path)
        run = "foreign" if file.startswith("foreign") else "run"
        every = commands(run)
        names = [name for name in list(every)[number % 6 :: 6] if not (kind == "hole" and name in COPIES)]
        answered(GIVEN.get(file, [every[name] for name in names]), told)
        shutil.rmtree(here)
