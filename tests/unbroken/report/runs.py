"""Real runs to be audited, and hands that edit their records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.processes import python, run_command

LOOP = Path(__file__).with_name("loop.py")
KILLED, DONE = -9, 0


def session(folder: Path, *, ends: int = DONE, **arguments: Any) -> Path:
    """One session of the tiny training; returns its run's folder."""
    command = python(LOOP, folder, json.dumps(arguments))
    done = run_command(command)
    assert done.returncode == ends, done.stdout + done.stderr
    return folder / "tiny"


def metrics(run: Path) -> Path:
    return run / "unbroken" / "metrics.jsonl"


def journal(run: Path) -> Path:
    return run / "unbroken" / "journal.jsonl"


def edit(file: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the lines of a record, as a person with an editor would."""
    records = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    change(records)
    file.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
