"""`demo` and `data`: what applications offer for trying things out, found by entry point."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from shlex import quote
from typing import Any

from unbroken.errors import UsageError


def demo_command(story: str, folder: Path) -> int:
    """Tell an application's story."""
    code = int(_offer("demo", "unbroken.demos", story)(folder, say=_say))
    if hint := where_the_command_is():
        _say(f"\n{hint}")
    return code


def where_the_command_is() -> str:
    """How to make `unbroken` a command of this terminal, where it is none: it lies in an environment of its own."""
    here = Path(sys.executable).parent
    if Path(shutil.which("unbroken") or "").parent == here or not (here / "activate").is_file():
        return ""
    folder = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    activate = f"{folder}\\activate" if os.name == "nt" else f"source {quote(str(folder / 'activate'))}"
    return f"to type `unbroken` in this terminal: {activate}"


def data_command(kind: str, folder: Path) -> None:
    """Write an application's sample data."""
    _offer("data", "unbroken.data", kind)(folder, say=_say)


def _say(line: str) -> None:
    print(line, flush=True)


def _offer(command: str, group: str, name: str) -> Any:
    offers = {point.name: point for point in entry_points(group=group)}
    if name not in offers:
        raise UsageError(
            f"unbroken {command}",
            "no installed application offers this",
            expected=" or ".join(sorted(offers)) or "an application with an entry point for it",
            found=name,
            do=f"See `unbroken {command} --help`.",
        )
    return offers[name].load()
