"""`demo` and `data`: what applications offer for trying things out, found by entry point."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from unbroken.errors import UsageError


def demo_command(story: str, folder: Path) -> int:
    """Tell an application's story."""
    return int(_offer("demo", "unbroken.demos", story)(folder, say=_say))


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
