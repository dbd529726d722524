"""What the surroundings say: read here once, passed on as a value."""

from __future__ import annotations

import os
import platform
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unbroken.cli.limits import host_limit, up_s
from unbroken.values import SystemClock

KAGGLE_INPUTS = Path("/kaggle/input")


def surroundings(typed: Sequence[str]) -> Mapping[str, Any]:
    """The command that goes on with the run, where copies of runs may lie, and facts for the journal."""
    now = SystemClock().now()
    search = os.environ.get("UNBROKEN_SEARCH_PATH", "")
    if KAGGLE_INPUTS.is_dir():
        search = os.pathsep.join(part for part in (search, str(KAGGLE_INPUTS)) if part)
    return {
        "command": shlex.join(continuing(typed)),
        "typed": shlex.join(typed),
        "UNBROKEN_SEARCH_PATH": search,
        "session_limit": asdict(limit) if (limit := host_limit(os.environ, now, up_s=up_s())) else None,
        "today": now.strftime("%Y%m%d"),
        "host": socket.gethostname(),
        "user_folder": str(Path.cwd()),
        "python": platform.python_version(),
    }


def in_notebook() -> bool:
    """Whether a notebook keeps what is printed: its cells pretend to be terminals, and store every redrawn bar."""
    return any(name in os.environ for name in ("JPY_PARENT_PID", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG"))


def continuing(typed: Sequence[str]) -> list[str]:
    """The command that goes on with what this one did: starting over, or from an old file, is meant once."""
    kept: list[str] = []
    words = list(typed)
    while words:
        word = words.pop(0)
        takes_file = word in ("--ckpt", "--resume") and words[:1] != [] and words[0].endswith(".pth")
        if takes_file:
            words.pop(0)
        elif word != "--fresh" and not word.startswith(("--ckpt=", "--resume=")):
            kept.append(word)
    return kept
