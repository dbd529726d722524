"""Small runs, written by the classes that write real ones, for tests of summaries and listings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import SaveFacts
from unbroken.checkpoint.store import CheckpointStore
from unbroken.journal import Journal, StepLog
from unbroken.run.layout import ITERATIONS, manifests, own
from unbroken.run.record import RunRecord, write_record
from unbroken.storage import Disk, write_json


class SetClock:
    """A clock that stands where the test put it."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return self.moment.timestamp()

    def pause_s(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Writer:
    """Writes one run, session by session."""

    def __init__(self, folder: Path, *, id: str = "", tag: str = "", parent: Mapping[str, Any] | None = None) -> None:
        self.folder, self.disk = folder, Disk()
        self.clock = SetClock(datetime(2026, 11, 1, 8, tzinfo=UTC))
        for place in (own(folder) / "configs", manifests(folder)):
            self.disk.make_folder(place)
        self.id = id or f"{abs(hash(folder.name)) % 2**64:016x}"
        record = RunRecord(
            id=self.id, recipe="mapsage", tag=tag or folder.name, created=self.clock.now().isoformat(), seed=0,
            parent=parent, layout=ITERATIONS.as_plain(),
        )  # fmt: skip
        write_record(self.disk, folder, record)
        self.sessions = 0
        self.journal: Journal | None = None

    def session(self, config: Mapping[str, Any] | None = None, **facts: Any) -> Journal:
        """Begin a session; `facts` go into its event."""
        self.end()
        self.sessions += 1
        name = f"20261101_08000{self.sessions}"
        self.journal = Journal(self.disk, own(self.folder) / "journal.jsonl", clock=self.clock, session=name)
        self.steps = StepLog(self.disk, own(self.folder) / "metrics.jsonl", session=name)
        self.journal.write("session", **{"plan": {"verdict": "Fresh"}, "total": 100, **facts})
        write_json(self.disk, own(self.folder) / "configs" / f"{name}.json", config or {})
        return self.journal

    def save(self, step: int, content: bytes = b"weights") -> None:
        """Save a checkpoint, as a session does; ten minutes go by before."""
        assert self.journal is not None
        self.clock.pause_s(600)
        store = CheckpointStore(
            self.disk, self.folder, manifests=manifests(self.folder), record=self.journal.write, pointer="",
            keep_last=None,
        )  # fmt: skip
        facts = SaveFacts(
            file=f"iter_{step}.pth", kind="checkpoint", run=self.id, save=f"{step:016x}", session="x", step=step,
            epoch=0, time=self.clock.now().isoformat(),
        )  # fmt: skip

        def fill(file: Any) -> None:
            file.write(content)

        store.save(facts, fill)

    def evaluate(self, step: int, *, best: bool = True, **metrics: float) -> None:
        """Record an evaluation."""
        assert self.journal is not None
        self.steps.write_evaluation(step, metrics)
        self.journal.write("evaluated", step=step, metrics=metrics, metric=next(iter(metrics)), best=best)

    def end(self, event: str = "", **facts: Any) -> None:
        """End the session; without an event, as a kill does."""
        if self.journal is not None:
            if event:
                self.journal.write(event, **facts)
            self.journal.close()
            self.steps.close()
            self.journal = None


def finished(folder: Path, score: float = 40.0, **identity: Any) -> Writer:
    """A finished run of 100 steps with one evaluation."""
    writer = Writer(folder, **identity)
    writer.session({"optimizer": {"lr": 0.01}})
    writer.save(100)
    writer.evaluate(100, mIoU=score, mAcc=score / 2)
    writer.end("finished", step=100)
    return writer


def append(folder: Path, *lines: Any) -> None:
    """Lines that a stranger, or a torn disk, put at the end of a journal."""
    with (own(folder) / "journal.jsonl").open("a", encoding="utf-8") as file:
        for line in lines:
            file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
