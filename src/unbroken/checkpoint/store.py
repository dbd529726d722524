"""The order of a save, in its one place: file, manifest, journal, pointer, and only then retention."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unbroken.checkpoint import FORMAT, NEVER_FEWER_THAN
from unbroken.checkpoint.manifest import Manifest, SaveFacts, read_manifest, write_manifest
from unbroken.checkpoint.removal import Record, finish_removal, leftovers, let_go, remove_all
from unbroken.checkpoint.retention import Policy, StoredFile, retain
from unbroken.checkpoint.sharded import (
    HEAD,
    SUFFIX,
    ShardFile,
    are_shards,
    files_in,
    head_of,
    is_sharded,
    shards_of_others,
)
from unbroken.checkpoint.stamp import read_stamp
from unbroken.checkpoint.verify import verify_file
from unbroken.errors import UnbrokenError
from unbroken.storage import PARTIAL_SUFFIX, Disk, WritableFile, durable_write, explained, point_to
from unbroken.storage.digest import DigestingFile

Stamp = tuple[int, ...]  # what the system says of a file, all of which stays only while its bytes do


class CheckpointStore:
    """The checkpoints of one run, open for writing; `pinned` is asked anew at each retention."""

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        manifests: Path,
        record: Record,
        pointer: str,
        keep_last: int | None,
        rolling: str = "",
        pinned: Callable[[], Collection[str]] = tuple,
        writes: Callable[[str], bool] = lambda _name: False,  # whether a name is one that this run gives
        require_held: Callable[[], None] = lambda: None,  # raises where the folder is another session's by now
    ) -> None:
        self._disk, self._folder, self._manifests = disk, folder, manifests
        self._record, self._pointer, self._keep_last, self._rolling = record, pointer, keep_last, rolling
        self._pinned, self._writes, self._pins_unknown = pinned, writes, False
        self._require_held = require_held
        self._sound: dict[str, Stamp | None] = {}  # name -> what the system said of it when its bytes were last known
        self._read: dict[Path, tuple[Stamp | None, Manifest | None]] = {}  # manifests, and what was said of their files
        self._newest_bytes = 0  # of the last checkpoint that was saved here

    def save(
        self,
        facts: SaveFacts,
        fill: Callable[[WritableFile], None],
        write_shards: Callable[[Path], Sequence[ShardFile]] | None = None,
    ) -> Manifest:
        """Write one checkpoint in the order that leaves every instant recoverable; Refused when the disk is full.

        Of a folder `write_shards` is given the place of this save's shards, and `fill` then fills the head.
        """
        path, digests, shards = self._folder / facts.file, list[DigestingFile](), list[ShardFile]()

        def fill_and_hash(file: WritableFile) -> None:
            digests.append(DigestingFile(file))
            fill(digests[0])

        self._require_held()
        with explained(self._disk, path, f"the {facts.kind} of step {facts.step} could not be written"):
            # All shards are on the medium before the head that names them: without a head a folder is no checkpoint.
            if write_shards is not None:
                shards += self._written(path / facts.save, write_shards)
            # Under a partial name, hashed on its way, flushed, then named: under its name a file is whole or absent.
            # Writing takes long, so the folder is looked at once more before the file takes its name.
            durable_write(self._disk, head_of(path), fill_and_hash, check=lambda _partial: self._require_held())
        stamp, written = _stamp_of(path), digests[0]
        manifest = Manifest(
            **asdict(facts),
            format=FORMAT,
            size_bytes=written.size_bytes + sum(shard.size_bytes for shard in shards),
            digest=written.digest,
            shard_files=tuple(shards),
        )
        with explained(self._disk, path, "the file was written, but not all of its records"):
            # The manifest before the journal: what the journal says was saved can be verified.
            write_manifest(self._disk, self._manifests, manifest)
            # What was just written is known: it is read again only where it has changed since.
            self._sound[facts.file] = stamp
            self._record("saved", file=facts.file, step=facts.step, kind=facts.kind, digest=manifest.digest)
            # From here on it counts. The pointer serves other tools: no launch of ours follows it.
            if facts.kind == "checkpoint":
                self._newest_bytes = manifest.size_bytes
                if self._pointer:
                    point_to(self._disk, self._folder / self._pointer, facts.file)
            # What it makes superfluous goes last: whatever fails before leaves one state too many, never too few.
            if shards:
                self._let_go_of_other_shards(path)
            if self._keep_last is not None:
                self._retire(self._keep_last)
        return manifest

    def _written(self, folder: Path, write_shards: Callable[[Path], Sequence[ShardFile]]) -> Sequence[ShardFile]:
        """Let the shards of a save be written; where the disk refuses, and may be full, what is there of them goes."""
        try:
            return write_shards(folder)
        except OSError:
            with suppress(OSError):
                remove_all(self._disk, folder)
                self._disk.remove_folder(folder.parent)  # unless it holds another save
            raise

    @property
    def newest_bytes(self) -> int:
        """The size of the newest checkpoint; 0 if there is none."""
        if not self._newest_bytes and (checkpoints := self._checkpoints()):
            self._newest_bytes = max(checkpoints, key=lambda item: item.step).size_bytes
        return self._newest_bytes

    @property
    def free_bytes(self) -> int:
        """How much can still be written beside the checkpoints."""
        return self._disk.free_bytes(self._folder)

    def make_room(self) -> list[str]:
        """Remove now what retention would remove later, down to two verified ones; the names of what went.

        Where all are to be kept, nothing is removed. A disk that refuses even that changes nothing.
        """
        if self._keep_last is None:
            return []
        with suppress(OSError, UnbrokenError):
            return self._retire(min(self._keep_last, NEVER_FEWER_THAN))
        return []

    def save_best(self, facts: SaveFacts, fill: Callable[[WritableFile], None], *, larger: bool) -> bool:
        """Keep the best weights: never over a better file, and the old best goes only after the new is safe."""
        if facts.metric is None or facts.value is None:
            raise ValueError("best weights are best by a metric and its value")
        weights = (item for item in self._manifests_here() if item.kind == "weights" and item.metric == facts.metric)
        rivals = [item for item in weights if item.file != facts.file]
        better = next((item for item in rivals if _beats(item.value, facts.value, larger=larger)), None)
        if better is not None:
            self._record("best kept", file=better.file, value=better.value, not_replaced_by=facts.value)
            return False
        self.save(facts, fill)
        pinned = self._pinned_now()
        for rival in rivals if pinned is not None else ():
            if rival.file not in (pinned or ()) and not self._is_link(rival):
                self._remove(rival.file, reason=f"{facts.file} is better: {facts.value} against {rival.value}")
        return True

    def finish_removals(self) -> None:
        """End what a kill cut off: replacements, and, once two sound states are here, removals: these can be undone."""
        for path in filter(is_sharded, self._folder.glob(f"*{SUFFIX}")):
            self._let_go_of_other_shards(path)
        left = leftovers(self._folder, self._writes)
        if left and len(self._sound_ones(self._checkpoints(), NEVER_FEWER_THAN + 1)) >= NEVER_FEWER_THAN:
            for name in left:
                finish_removal(self._disk, self._folder, name, manifests=self._manifests, record=self._record)

    def _let_go_of_other_shards(self, path: Path) -> None:
        """Remove what a save left in a folder that was cut off there, or replaced: what its head does not name."""
        said: Any = read_stamp(path).get("shard_files")
        if not are_shards(said) or not self._writes(path.name):
            return
        for other in (*shards_of_others(path, said), *path.glob(f"{HEAD}{PARTIAL_SUFFIX}")):
            remove_all(self._disk, other)

    def _retire(self, keep_last: int) -> list[str]:
        self.finish_removals()
        pinned = self._pinned_now()
        if pinned is None:
            return []
        manifests = self._checkpoints()
        sound = self._sound_ones(manifests, max(NEVER_FEWER_THAN, keep_last) + 1)
        stored = [
            StoredFile(
                name=item.file,
                step=item.step,
                verified=item.file in sound,
                save=item.save,
                rolling=item.file == self._rolling,
            )
            for item in manifests
        ]
        decisions = retain(stored, Policy(keep_last=keep_last), pinned=pinned)
        going = [decision for decision in decisions if not decision.keep]
        for decision in reversed(going):  # the oldest first
            self._remove(decision.name, reason=decision.reason)
        return [decision.name for decision in reversed(going)]

    def _checkpoints(self) -> list[Manifest]:
        return [item for item in self._manifests_here() if item.kind == "checkpoint" and not self._is_link(item)]

    def _sound_ones(self, manifests: Iterable[Manifest], count: int) -> set[str]:
        """Of the newest so many, those whose every byte is as it was written."""
        newest = sorted(manifests, key=lambda item: item.step, reverse=True)[:count]
        return {item.file for item in newest if self._is_sound(item)}

    def _pinned_now(self) -> Collection[str] | None:
        """The names that are pinned at this moment; None while that cannot be known, when nothing may go."""
        try:
            return self._pinned()
        except UnbrokenError as error:
            if not self._pins_unknown:
                self._record("nothing removed", reason=str(error))
            self._pins_unknown = True
            return None

    def _is_sound(self, manifest: Manifest) -> bool:
        path = self._folder / manifest.file
        stamp = _stamp_of(path)
        if stamp is None or self._sound.get(manifest.file) == stamp:
            return stamp is not None
        verdict = verify_file(path, expected_digest=manifest.digest, expected_bytes=manifest.size_bytes)
        if verdict.state == "good":
            self._sound[manifest.file] = stamp
        return verdict.state == "good"

    def _remove(self, name: str, *, reason: str) -> None:
        let_go(self._disk, self._folder, name, manifests=self._manifests, record=self._record, reason=reason)

    def _manifests_here(self) -> Iterable[Manifest]:
        before, self._read = self._read, {}
        for path in sorted(self._manifests.glob("*.json")):
            stamp, known = _stamp_of(path), before.get(path)
            manifest = known[1] if known and known[0] == stamp else read_manifest(self._manifests, path.stem)
            self._read[path] = stamp, manifest
            if manifest is not None and (self._folder / manifest.file).exists():
                yield manifest

    def _is_link(self, manifest: Manifest) -> bool:
        """Whether a person put a link in the file's place: no state on this disk, and not for us to remove."""
        return (self._folder / manifest.file).is_symlink()


def _stamp_of(path: Path) -> Stamp | None:
    """What tells whether a checkpoint is as it was, all of its files; None where it is not there."""
    try:
        facts = [each.stat() for each in files_in(path)]
    except OSError:
        return None
    return tuple(said for each in facts for said in (each.st_size, each.st_ino, each.st_mtime_ns, each.st_ctime_ns))


def _beats(value: float | None, other: float, *, larger: bool) -> bool:
    if value is None:
        return False
    return value > other if larger else value < other
