"""Typing commands as a user does: in this process where that is enough, in a process of its own where it is not."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.processes import environment, run_command
from unbroken.cli import main

FULL_STEPS = 8


@dataclass(frozen=True)
class Answer:
    """What a command ended with and printed."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Type = Callable[..., Answer]


def typing(capsys: pytest.CaptureFixture[str]) -> Type:
    """A function that types one command and returns the answer."""

    def type_command(*words: object) -> Answer:
        capsys.readouterr()
        torch.set_num_threads(1)
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return type_command


def process(*words: object, **extra: str) -> Answer:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "unbroken", *map(str, words)]
    done = run_command(command, env=environment(**extra), timeout=120)
    return Answer(done.returncode, done.stdout, done.stderr)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with a hash of its bytes, every link with its target, every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            what = f"link to {path.readlink()}"
        elif path.is_dir():
            what = "folder"
        else:
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = what
    return found


def reads_well(answer: Answer) -> bool:
    """A user's mistake is answered on standard error, without a trace, with something to do."""
    return bool(answer.err.strip()) and "Traceback" not in answer.err and "fault of unbroken" not in answer.err
