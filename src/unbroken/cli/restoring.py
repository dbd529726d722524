"""`restore`: the histories in a run's archive, and one of them brought back."""

from __future__ import annotations

from pathlib import Path

from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import SystemClock
from unbroken.errors import UsageError
from unbroken.launch.restoring import Archived, archived, restore
from unbroken.storage import Disk


def restore_command(run: Path, name: str, *, as_json: bool) -> None:
    """List the archive, or bring one history back."""
    if not run.is_dir():
        raise UsageError(run, "there is no such folder", expected="the folder of a run", do="See `unbroken ls ROOT`.")
    if not name:
        _list(run, as_json=as_json)
        return
    aside = restore(run, name, disk=Disk(), clock=SystemClock())
    if as_json:
        print(as_json_text({"run": str(run), "restored": name, "moved_aside": aside}))
        return
    print(f"{name} is the history of {run} again")
    if aside is not None:
        print(f"what was there is in the archive: unbroken restore {run} {aside}")


def _list(run: Path, *, as_json: bool) -> None:
    found = archived(run)
    if as_json:
        print(as_json_text([{"name": item.name, "step": item.step, "sessions": _sessions(item)} for item in found]))
    elif not found:
        print(f"the archive of {run} holds no history; --fresh puts one there")
    else:
        rows = [(item.name, str(item.step or "none"), str(_sessions(item))) for item in found]
        print(columns([("history", "furthest step", "sessions"), *rows]))
        print(f"to bring one back: unbroken restore {run} {found[0].name}")


def _sessions(item: Archived) -> int:
    """How many sessions worked on it; the one that moved it away did not."""
    return sum(event.get("event") == "session" for event in item.facts.events)
