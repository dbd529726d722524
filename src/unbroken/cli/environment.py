"""What the surroundings say: read here once, passed on as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbroken.clock import SystemClock

if TYPE_CHECKING:  # `ls` asks here for its cache, and is quick because it loads no more
    from unbroken.launch.job import Quota


def surroundings(typed: Sequence[str]) -> Mapping[str, Any]:
    """The command that goes on with the run, where copies of runs may lie, and facts for the journal."""
    import platform
    import socket
    from dataclasses import asdict

    from unbroken.launch.host import SEARCH_PATH, host, started_together
    from unbroken.launch.rerun import joined, this_process, under_launcher

    now = SystemClock().now()
    said = host(now)
    command = joined(continuing(typed))
    return {
        "command": command,
        "again": under_launcher(this_process(), command),
        "typed": joined(typed),
        "started_together": started_together(),
        SEARCH_PATH: os.pathsep.join(map(str, said.search)),
        "session_limit": asdict(said.limit) if said.limit else None,
        "disk_quota": _plain_quota(said.quota),
        "today": now.strftime("%Y%m%d"),
        "host": socket.gethostname(),
        "user_folder": str(Path.cwd()),
        "python": platform.python_version(),
    }


def _plain_quota(quota: Quota | None) -> dict[str, Any] | None:
    """As data: the environment of a job stands in its journal."""
    from dataclasses import asdict

    return None if quota is None else {**asdict(quota), "folder": str(quota.folder)}


def cache_folder() -> Path | None:
    """Where what can be made again is kept: UNBROKEN_CACHE (empty: nowhere), or a folder among the user's caches."""
    if (chosen := os.environ.get("UNBROKEN_CACHE")) is not None:
        return Path(chosen).absolute() if chosen else None
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        if (place := Path(os.environ.get(name, ""))).is_absolute():
            return place / "unbroken"
    try:
        return Path.home() / ".cache" / "unbroken"
    except RuntimeError:  # a user without a home
        return None


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
