"""A run held open by one session: its lock, its journal, its store, and the names of its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import Manifest, SaveFacts
from unbroken.checkpoint.sharded import ShardFile
from unbroken.checkpoint.store import CheckpointStore
from unbroken.clock import Clock, utc_text
from unbroken.ids import new_id
from unbroken.journal import Journal, StepLog
from unbroken.run.history import SessionProgram
from unbroken.run.layout import Layout, manifests, own
from unbroken.run.record import RunRecord, read_pins
from unbroken.storage import Disk, WritableFile, write_json, write_whole
from unbroken.storage.lock import RunLock
from unbroken.text import as_bytes


@dataclass(frozen=True, kw_only=True)
class SessionFiles:
    """What a session needs to write a run."""

    disk: Disk
    clock: Clock
    directory: Path
    layout: Layout
    session: str
    lock: RunLock
    program: SessionProgram = field(default_factory=SessionProgram)


class OpenRun:
    """One session's hold on a run."""

    def __init__(self, files: SessionFiles, record: RunRecord, *, keep_last: int | None) -> None:
        self.files, self.record = files, record
        self.program = files.program.look()
        self.journal = Journal(
            files.disk, own(files.directory) / "journal.jsonl", clock=files.clock, session=files.session
        )
        self.steps = StepLog(files.disk, own(files.directory) / "metrics.jsonl", session=files.session)
        self.store = CheckpointStore(
            files.disk,
            files.layout.checkpoints(files.directory),
            manifests=manifests(files.directory),
            record=self.journal.write,
            pointer=files.layout.pointer,
            rolling=files.layout.rolling_name,
            keep_last=keep_last,
            pinned=lambda: read_pins(files.directory),
            writes=lambda name: files.layout.part_of(name)[0] != "",
            require_held=lambda: files.lock.require(now=True),
        )

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return self.files.directory

    @property
    def session_folder(self) -> Path:
        """The folder of this session's readable output."""
        return self.files.layout.session(self.directory, self.files.session)

    @property
    def log_path(self) -> Path:
        """The text log of this session."""
        return self.files.layout.log(self.directory, self.files.session)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Keep the config this session runs under."""
        write_json(self.files.disk, own(self.directory) / "configs" / f"{self.files.session}.json", config)

    def note_loaded(self) -> None:
        """Record what the program has loaded since it was looked at last."""
        before, self.program = self.program, self.files.program.look()
        if more := {name: digest for name, digest in self.program.files.items() if name not in before.files}:
            self.journal.write("loaded", files=more)

    def keep_text(self, name: str, text: str) -> None:
        """Write a readable file into this session's folder."""
        path = self.session_folder / name
        self.files.disk.make_folder(path.parent)
        write_whole(self.files.disk, path, as_bytes(text))

    def save_checkpoint(
        self,
        step: int,
        epoch: int,
        fill: Callable[[WritableFile, SaveFacts], None],
        *,
        milestone: bool,
        write_shards: Callable[[Path], Sequence[ShardFile]] | None = None,
    ) -> Manifest:
        """Save the training state after `step`; a milestone keeps a name of its own."""
        self.steps.sync()
        self.note_loaded()
        sharded = write_shards is not None
        name = self.files.layout.checkpoint(step=step, epoch=epoch, milestone=milestone, sharded=sharded)
        facts = self._facts(name, "checkpoint", step, epoch)
        return self.store.save(facts, lambda file: fill(file, facts), write_shards)

    def save_best(
        self,
        step: int,
        epoch: int,
        fill: Callable[[WritableFile, SaveFacts], None],
        *,
        metric: str,
        value: float,
        larger: bool,
    ) -> str | None:
        """Save the best weights so far; the file's name, or None when a better file is already there."""
        name = self.files.layout.weights(metric, step=step, epoch=epoch)
        facts = self._facts(name, "weights", step, epoch, metric=metric, value=value)
        saved = self.store.save_best(facts, lambda file: fill(file, facts), larger=larger)
        return name if saved else None

    def close(self) -> None:
        """End the session's hold, in order."""
        try:
            self.steps.close()
        finally:
            try:
                self.journal.close()
            finally:
                self.files.lock.release()

    def _facts(
        self,
        name: str,
        kind: str,
        step: int,
        epoch: int,
        *,
        metric: str | None = None,
        value: float | None = None,
    ) -> SaveFacts:
        return SaveFacts(
            file=name,
            kind=kind,
            run=self.record.id,
            save=new_id(),
            session=self.files.session,
            step=step,
            epoch=epoch,
            time=utc_text(self.files.clock.now()),
            metric=metric,
            value=value,
        )
