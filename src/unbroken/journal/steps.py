"""One line per optimizer step and per evaluation: the fingerprints and the curves of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unbroken.journal.lines import LineFile, finite, read_lines, read_lines_backwards
from unbroken.storage import Disk


class StepLog:
    """The open step file of one session."""

    def __init__(self, disk: Disk, path: Path, *, session: str) -> None:
        self._session = session
        self._lines = LineFile(disk, path)

    def write_step(self, step: int, *, epoch: int, samples: list[int], values: Mapping[str, float]) -> None:
        """Record a finished step; `samples` are dataset indices in the order they were used."""
        record = {
            "step": step,
            "session": self._session,
            "epoch": epoch,
            **finite(dict(values)),
            "samples": samples,
        }
        self._lines.append(record, durable=False)

    def write_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Record the evaluation of the weights after `step`."""
        record = {"step": step, "session": self._session, "evaluation": finite(dict(values))}
        self._lines.append(record, durable=False)

    @property
    def lines(self) -> LineFile:
        """The file behind it."""
        return self._lines

    def sync(self) -> None:
        """Wait until all lines are on the medium: a checkpoint is only as good as the record of the way to it."""
        self._lines.sync()

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def read_steps(path: Path) -> Iterator[dict[str, Any]]:
    """All lines, oldest first, also those of steps that were lost in a kill and done again."""
    return read_lines(path)


def steps_after(path: Path, step: int) -> dict[int, dict[str, Any]]:
    """The newest record of every step later than `step`, as an interrupted session left them."""
    found: dict[int, dict[str, Any]] = {}
    for record in read_lines_backwards(path):
        number = record.get("step")
        if not isinstance(number, int) or number <= step:
            break
        if "evaluation" not in record:
            found.setdefault(number, record)
    return found
