"""What was written under a checkpoint's name: the facts that make it verifiable and quick to list."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from unbroken.checkpoint.sharded import ShardFile
from unbroken.fields import file_digest, one_of, typed
from unbroken.ids import is_name
from unbroken.storage import Disk, read_json, write_json
from unbroken.storage.ordinary import readable


@dataclass(frozen=True, kw_only=True)
class SaveFacts:
    """What is known about a file before it is written."""

    file: str
    kind: Annotated[str, one_of(("checkpoint", "weights"))]
    run: str
    save: str
    session: str
    step: int
    epoch: int
    time: str
    metric: str | None = None
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest(SaveFacts):
    """The facts of a file that was written; `size_bytes` and `digest` are of the whole file.

    Of a folder `size_bytes` counts all files, `digest` is of its head, and each of the others stands in `shard_files`.
    """

    format: int
    size_bytes: int
    digest: Annotated[str, file_digest]
    shard_files: tuple[ShardFile, ...] = ()


def manifest_path(folder: Path, file_name: str) -> Path:
    """Where the manifest of a checkpoint lies."""
    return folder / f"{file_name}.json"


def write_manifest(disk: Disk, folder: Path, manifest: Manifest) -> None:
    """Write the manifest durably."""
    facts = asdict(manifest)
    if not manifest.shard_files:
        del facts["shard_files"]  # as it is of one file
    write_json(disk, manifest_path(folder, manifest.file), facts)


def load_manifest(path: Path) -> Manifest:
    """The manifest in a file; OSError where it cannot be read, ValueError where it is damaged.

    Before 0.2 it had a `sha256` in place of the digest: that is read for good.
    """
    data = read_json(path)
    if isinstance(data, dict) and "digest" not in data and isinstance(data.get("sha256"), str):
        data = {**data, "digest": f"sha256:{data['sha256']}"}
    return typed(Manifest, data)


def read_manifest(folder: Path, file_name: str) -> Manifest | None:
    """The manifest of a file; None when there is none that can be read (the file is then judged by itself).

    One that was written for a file of another name is none: what it says is never done to the file that it names.
    """
    found = readable(lambda: load_manifest(manifest_path(folder, file_name))) if is_name(file_name) else None
    return found if found is not None and found.file == file_name else None
