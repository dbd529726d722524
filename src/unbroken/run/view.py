"""A run on disk as one look finds it: each of its files is read when it is first asked for, and once.

A view never changes. A training that saves and removes checkpoints meanwhile is seen as it was when the view first
looked there; what cannot be told any more raises Moved, and who looks begins again with a new view (`looked_at`).
Whether somebody holds the run is asked before its journal is read: what a session wrote before it let go is then seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from unbroken.checkpoint.manifest import Manifest, load_manifest
from unbroken.checkpoint.sharded import SUFFIX, is_sharded
from unbroken.fields import typed
from unbroken.ids import is_name
from unbroken.journal import Event, JournalContents, read_events_backwards, read_journal, read_steps
from unbroken.journal.events import SessionBegan
from unbroken.run.candidates import Candidate, furthest_first, glance_with, step_in_name
from unbroken.run.folder import checkpoint_files, entries, unreachable, walk
from unbroken.run.history import History, history_of
from unbroken.run.layout import Layout, manifests, own
from unbroken.run.record import (
    PINS,
    RECORD,
    RESTORING,
    Pin,
    Restoring,
    RunRecord,
    layout_in,
    load_pins,
    require_layout,
    require_pins,
)
from unbroken.storage import read_json
from unbroken.storage.lock import HOLDER, Holder, held_without_locks, is_held
from unbroken.storage.moved import looked_again
from unbroken.storage.ordinary import ReadResult, load_typed, read_result

JOURNAL, METRICS = "journal.jsonl", "metrics.jsonl"
UNKNOWN = 1 << 63  # a file that the journal does not know may be the furthest
Found = TypeVar("Found")
Kind = TypeVar("Kind")


class RunView:
    """One run, ours or one that another program left; nothing that is missing or garbled in it is an error.

    `layout` names its files where the caller knows that better than the folder. Of a copy nobody's lock is tried.
    """

    def __init__(self, directory: Path, layout: Layout | None = None, *, is_copy: bool = False) -> None:
        self.directory, self.own, self.is_copy = directory, own(directory), is_copy
        self._layout = layout
        self._readings: dict[str, ReadResult[Any]] = {}
        self._manifests: dict[str, Manifest | None] = {}
        self._glances: dict[Path, Candidate] = {}

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.directory.name or self.directory.absolute().name

    # -- its records -------------------------------------------------------------------------------------------------

    @cached_property
    def stated(self) -> Mapping[str, Any]:
        """What stands in `run.json`, whatever it is: for a listing, which shows as much as there is."""
        found = self._run_json.value
        return found if isinstance(found, Mapping) else {}

    def stated_text(self, key: str) -> str:
        """What stands there as text; "" for anything else."""
        value = self.stated.get(key)
        return value if isinstance(value, str) else ""

    @property
    def record(self) -> RunRecord | None:
        """Which run it is; None without a sound record."""
        return self.record_reading.value

    @cached_property
    def record_reading(self) -> ReadResult[RunRecord]:
        """The same, or why there is none."""
        return read_result(lambda: typed(RunRecord, self._run_json.require()))

    @cached_property
    def _run_json(self) -> ReadResult[Any]:
        return read_result(lambda: read_json(self.own / RECORD))

    @property
    def layout(self) -> Layout:
        """The names of its files."""
        return self._layout or self.recorded_layout[0]

    @cached_property
    def recorded_layout(self) -> tuple[Layout, str]:
        """The same as the record or else the files say, and what of the record cannot be followed."""
        return layout_in(self.directory, self.record)

    def require_layout(self) -> Layout:
        """The same; DamagedFile where the record names something that does not lie inside the folder."""
        return require_layout(self.directory, *self.recorded_layout)

    @cached_property
    def held(self) -> bool:
        """Whether a live process holds it."""
        return not self.is_copy and is_held(self.own)

    @property
    def held_without_locks(self) -> str:
        """What stands in for the lock of a run that is held, where the file system has none."""
        return held_without_locks(self.own) if self.held else ""

    @property
    def holder(self) -> Holder | None:
        """Who holds or held it."""
        return self.own_record(HOLDER, Holder).value

    @property
    def restoring(self) -> Restoring | None:
        """The restore that was cut off, if one was."""
        found = self.own_record(RESTORING, Restoring)
        return None if found.absent else found.value or Restoring(name="", aside="", moved_aside=False)

    @cached_property
    def pins_reading(self) -> ReadResult[dict[str, Pin]]:
        """What is pinned, or why that cannot be known."""
        return read_result(lambda: load_pins(self.directory))

    @property
    def pins(self) -> dict[str, Pin]:
        """What is pinned, by file name; DamagedFile where that cannot be known."""
        return require_pins(self.own / PINS, self.pins_reading)

    def own_record(self, name: str, kind: type[Kind]) -> ReadResult[Kind]:
        """A record of one JSON file in the run's own folder."""
        if name not in self._readings:
            self._readings[name] = read_result(lambda: load_typed(self.own / name, kind))
        return self._readings[name]

    # -- its history -------------------------------------------------------------------------------------------------

    @cached_property
    def told(self) -> JournalContents:
        """All of its journal."""
        _ = self.held  # before the journal, as said above
        return read_journal(self.own / JOURNAL)

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened, oldest first."""
        return self.told.events

    @cached_property
    def history(self) -> History:
        """What the events add up to; nothing where the journal cannot be read."""
        with suppress(OSError):
            return history_of(self.events)
        return History()

    @cached_property
    def steps(self) -> tuple[Mapping[str, Any], ...]:
        """The records of its steps and evaluations, oldest first, those of steps that were done again too."""
        return tuple(read_steps(self.own / METRICS))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The config of the last session, or what another program kept of its config; empty where there is none."""
        for session in self._sessions_newest_first():
            found = self.config_reading(f"{session}.json").value
            if isinstance(found, Mapping):
                return found
        from unbroken.run.foreign import foreign_config

        return foreign_config(self.directory)

    def config_reading(self, name: str) -> ReadResult[Any]:
        """What one file of the configs holds."""
        key = f"configs/{name}"
        if key not in self._readings:
            self._readings[key] = read_result(lambda: read_json(self.own / key))
        return self._readings[key]

    @cached_property
    def config_names(self) -> tuple[str, ...]:
        """The files with a config, one for each session, the oldest first."""
        return _json_names(self.own / "configs")

    def _sessions_newest_first(self) -> Iterator[str]:
        told = reversed(self.events) if "told" in vars(self) else read_events_backwards(self.own / JOURNAL)
        with suppress(OSError):
            yield from (event.session for event in told if isinstance(event, SessionBegan) and is_name(event.session))
        yield from (name.removesuffix(".json") for name in reversed(self.config_names))

    # -- its files ---------------------------------------------------------------------------------------------------

    @property
    def unreachable(self) -> str:
        """Which of its folders cannot be looked into and why, as a sentence; "" where each can."""
        return unreachable(self.directory, self.layout)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.layout.checkpoints(self.directory)

    @cached_property
    def manifest_names(self) -> tuple[str, ...]:
        """The checkpoints that have a manifest, by name."""
        return tuple(name.removesuffix(".json") for name in _json_names(manifests(self.directory)))

    def manifest(self, name: str) -> Manifest | None:
        """The manifest of a checkpoint; None where there is none that can be believed."""
        if name not in self._manifests:
            found = self.manifest_reading(name).value if name in self.manifest_names and is_name(name) else None
            self._manifests[name] = found if found is not None and found.file == name else None
        return self._manifests[name]

    def manifest_reading(self, name: str) -> ReadResult[Manifest]:
        """What the manifest of a checkpoint holds, or why it cannot be used."""
        if (record := f"manifests/{name}.json") not in self._readings:
            self._readings[record] = read_result(lambda: load_manifest(self.own / record))
        return self._readings[record]

    @cached_property
    def _walked(self) -> tuple[int, dict[str, int]]:
        """The bytes of all files, and of each checkpoint in their folder."""
        part, total, sizes = self.layout.checkpoint_folder, 0, dict[str, int]()
        for folder, name, facts in walk(str(self.directory), (part,)):
            total += facts.st_size
            if folder == part and name.endswith(".pth"):
                sizes[name] = facts.st_size
            elif (whole := _folder_of_shards(folder, part)) and is_sharded(self.directory / part / whole):
                sizes[whole] = sizes.get(whole, 0) + facts.st_size
        return total, sizes

    @property
    def size_bytes(self) -> int:
        """How much room it takes."""
        return self._walked[0]

    @property
    def checkpoint_sizes(self) -> Mapping[str, int]:
        """The files that may be checkpoints, with their sizes."""
        return self._walked[1]

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every checkpoint, the furthest first, each judged by its manifest or, without one, by what it says."""
        files = checkpoint_files(self.checkpoints, self.directory)
        return tuple(sorted(map(self.glance, files), key=furthest_first))

    def glance(self, path: Path) -> Candidate:
        """One file, judged as those; raises Moved where it is removed or replaced in this moment."""
        if path not in self._glances:
            self._glances[path] = glance_with(path, self.manifest(path.name))
        return self._glances[path]

    @property
    def furthest(self) -> Candidate | None:
        """The furthest checkpoint that can be continued from, by a glance: it is not verified."""
        return self._furthest[0]

    @property
    def is_lost(self) -> bool:
        """Whether something was saved, and nothing is here that could be continued from."""
        return self._furthest[1]

    @cached_property
    def _furthest(self) -> tuple[Candidate | None, bool]:
        """Tried in the order of the journal, so that of many checkpoints few are looked at."""
        saved, run = self.history.saved, self.stated_text("id")
        best: Candidate | None = None
        lost = bool(saved)
        names = self.checkpoint_sizes
        told = {name: UNKNOWN if (step := saved.get(name)) is None else step for name in names}
        for name in sorted(names, key=lambda name: (told[name], step_in_name(Path(name))), reverse=True):
            if best is not None and told[name] <= best.step:
                break
            if best is not None and not run and name not in self.manifest_names:
                continue  # of a stranger's files, which must be opened, the furthest name that is sound will do
            try:
                item = self.glance(self.checkpoints / name)
            except OSError:  # removed in this moment
                continue
            belongs = not run or item.run == run or (item.kind == "foreign checkpoint" and not saved)
            lost = lost or (item.resumable and (belongs or (item.state == "damaged" and not item.run)))
            if item.resumable and belongs and item.state == "unchecked" and (best is None or item.step > best.step):
                best = item
        return best, lost and best is None


def looked_at(
    directory: Path, find: Callable[[RunView], Found], layout: Layout | None = None, *, is_copy: bool = False
) -> Found:
    """What `find` finds in a view of a run, once nothing it needed was moved while it looked."""
    return looked_again(directory, lambda: find(RunView(directory, layout, is_copy=is_copy)))


def view_of(run: Path | RunView) -> RunView:
    """A view of the run in a folder; the one that there is already, where there is one."""
    return run if isinstance(run, RunView) else RunView(run)


def _folder_of_shards(folder: str, part: str) -> str:
    """The name of the checkpoint that a folder below the run's is, or lies in; "" where it does not."""
    inside = f"{part}/" if part else ""
    name = folder.removeprefix(inside).split("/")[0]
    return name if folder.startswith(inside) and name.endswith(SUFFIX) else ""


def _json_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in entries(str(folder)) if entry.name.endswith(".json")))
