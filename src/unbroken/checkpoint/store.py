"""The order of a save, in its one place: file, manifest, journal, pointer, and only then retention."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from unbroken.checkpoint import FORMAT
from unbroken.checkpoint.manifest import Manifest, SaveFacts, manifest_path, read_manifest, write_manifest
from unbroken.checkpoint.retention import NEVER_FEWER_THAN, Stored, retain
from unbroken.checkpoint.verify import verify_file
from unbroken.errors import UnbrokenError
from unbroken.storage import Disk, WritableFile, durable_write, explained, point_to
from unbroken.storage.digest import DigestingFile

Record = Callable[..., None]  # Journal.write, taken as a function: the store does not know the journal


class CheckpointStore:
    """The checkpoints of one run, open for writing."""

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
    ) -> None:
        self._disk, self._folder, self._manifests = disk, folder, manifests
        self._record, self._pointer, self._keep_last, self._rolling = record, pointer, keep_last, rolling
        self._sound: dict[str, tuple[int, int]] = {}  # name -> (size, mtime) at which its digest was checked

    def save(self, facts: SaveFacts, fill: Callable[[WritableFile], None]) -> Manifest:
        """Write one file in the order that leaves every instant recoverable; Refused when the disk is full."""
        path = self._folder / facts.file
        with explained(self._disk, path, f"the {facts.kind} of step {facts.step} could not be written"):
            manifest = self._write_file(path, facts, fill)
        with explained(self._disk, path, "the file was written, but not all of its records"):
            write_manifest(self._disk, self._manifests, manifest)
            self._record("saved", file=facts.file, step=facts.step, kind=facts.kind, sha256=manifest.sha256)
            if facts.kind == "checkpoint" and self._pointer:
                point_to(self._disk, self._folder / self._pointer, facts.file)
            if self._keep_last is not None:
                self._retire(self._keep_last)
        return manifest

    @property
    def newest_bytes(self) -> int:
        """The size of the newest checkpoint; 0 if there is none."""
        checkpoints = [item for item in self._manifests_here() if item.kind == "checkpoint"]
        return max(checkpoints, key=lambda item: item.step).size_bytes if checkpoints else 0

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
        assert facts.metric is not None and facts.value is not None
        rivals = [item for item in self._weights(facts.metric) if item.file != facts.file]
        better = next((item for item in rivals if _beats(item.value, facts.value, larger=larger)), None)
        if better is not None:
            self._record("best kept", file=better.file, value=better.value, not_replaced_by=facts.value)
            return False
        self.save(facts, fill)
        for rival in rivals:
            self._remove(rival.file, reason=f"{facts.file} is better: {facts.value} against {rival.value}")
        return True

    def _write_file(self, path: Path, facts: SaveFacts, fill: Callable[[WritableFile], None]) -> Manifest:
        digests: list[DigestingFile] = []

        def fill_and_hash(file: WritableFile) -> None:
            digests.append(DigestingFile(file))
            try:
                fill(digests[0])
            except RuntimeError:  # torch hides what its target raised behind an error of its own
                if digests[0].failure is None:
                    raise
                raise digests[0].failure from None

        durable_write(self._disk, path, fill_and_hash)
        digest = digests[0]
        return Manifest(**asdict(facts), format=FORMAT, size_bytes=digest.size_bytes, sha256=digest.sha256)

    def _retire(self, keep_last: int) -> list[str]:
        manifests = [item for item in self._manifests_here() if item.kind == "checkpoint"]
        newest = sorted(manifests, key=lambda item: item.step, reverse=True)[: max(NEVER_FEWER_THAN, keep_last) + 1]
        sound = {item.file for item in newest if self._is_sound(item)}
        stored = [
            Stored(name=item.file, step=item.step, verified=item.file in sound, rolling=item.file == self._rolling)
            for item in manifests
        ]
        going = [decision for decision in retain(stored, keep_last=keep_last) if not decision.keep]
        for decision in reversed(going):  # the oldest first
            self._remove(decision.name, reason=decision.reason)
        return [decision.name for decision in reversed(going)]

    def _is_sound(self, manifest: Manifest) -> bool:
        path = self._folder / manifest.file
        with suppress(OSError):
            stat = path.stat()
            stamp = (stat.st_size, stat.st_mtime_ns)
            if self._sound.get(manifest.file) == stamp:
                return True
            verdict = verify_file(path, expected_sha256=manifest.sha256, expected_bytes=manifest.size_bytes)
            if verdict.state == "good":
                self._sound[manifest.file] = stamp
                return True
        return False

    def _remove(self, name: str, *, reason: str) -> None:
        """Remove a file, then its manifest: a manifest alone harms nobody, a file alone is still verifiable."""
        with suppress(FileNotFoundError):
            self._disk.remove(self._folder / name)
        with suppress(FileNotFoundError):
            self._disk.remove(manifest_path(self._manifests, name))
        self._record("removed", file=name, reason=reason)

    def _manifests_here(self) -> Iterable[Manifest]:
        for path in sorted(self._manifests.glob("*.json")):
            manifest = read_manifest(self._manifests, path.stem)
            if manifest is not None and (self._folder / manifest.file).exists():
                yield manifest

    def _weights(self, metric: str) -> list[Manifest]:
        return [item for item in self._manifests_here() if item.kind == "weights" and item.metric == metric]


def _beats(value: float | None, other: float, *, larger: bool) -> bool:
    if value is None:
        return False
    return value > other if larger else value < other
