"""Writing what is sharded over the processes (FSDP2): each process a file of its own part, hashed and on the medium.

Which part is written by whom, and in which form, is for torch.distributed.checkpoint to say; what its planner wants to
know of the other processes goes over our own messages, so that one that is lost is named.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.tensor import DTensor, Shard

from unbroken.checkpoint.sharded import ShardFile, placeholder
from unbroken.storage import Disk, WritableFile
from unbroken.storage.digest import DigestingFile
from unbroken.train.distributed.world import World


@dataclass(frozen=True, kw_only=True)
class WrittenShards:
    """What the shards of a save are: their files, and where in these each tensor's parts lie."""

    files: tuple[ShardFile, ...]
    chunks: Mapping[str, list[Any]]

    def entries(self) -> dict[str, Any]:
        """As they stand in the head."""
        return {
            "shard_files": {each.name: [each.size_bytes, each.digest] for each in self.files},
            "chunks": self.chunks,
        }


def without_shards(value: Any, name: str, found: dict[str, DTensor]) -> Any:
    """A plain state with something in the place of each sharded tensor, which goes to `found` by its place's name."""
    if isinstance(value, DTensor):
        (placed,) = value.placements
        found[name] = value
        dim = placed.dim if isinstance(placed, Shard) else -1
        dtype = str(value.dtype).removeprefix("torch.")
        return placeholder(name, dtype=dtype, shape=tuple(value.shape), dim=dim)
    if type(value) is dict:
        return {key: without_shards(item, f"{name}.{key}".lstrip("."), found) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(without_shards(item, f"{name}.{place}", found) for place, item in enumerate(value))
    return value


def write_shards(world: World, disk: Disk, folder: Path, shards: Mapping[str, DTensor]) -> WrittenShards:
    """Write the part of these tensors that this process has; every process of the training calls it.

    Returns, and raises OSError, in all of them alike, once the bytes of all are on the medium.
    """
    files = _DurableFiles(disk, folder)
    writer, planner = FileSystemWriter(folder, sync_files=False), DefaultSavePlanner()
    writer.fs = files
    planner.set_up_planner(dict(shards), writer.storage_meta(), world.leads)
    writer.set_up_storage_writer(world.leads)
    local = writer.prepare_local_plan(planner.create_local_plan())
    plans, metadata = planner.create_global_plan(world.gather_values(local))
    plan = planner.finish_plan(writer.prepare_global_plan(plans)[world.rank])
    rows = _all_of(world, files.tried(lambda: writer.write_data(plan, planner).wait()))
    found = [result for row in rows for result in row]
    directory = files.tried(lambda: writer.finish(metadata, rows)) if world.leads else []
    _all_of(world, directory)
    disk.sync_folder(folder)
    written = (each for row in world.gather_values(files.written) for each in row)
    return WrittenShards(files=tuple(written), chunks=_chunks(metadata, found))


def _all_of(world: World, outcome: Any) -> list[Any]:
    """What all processes made of it; OSError, in each of them, where the disk refused it to one."""
    outcomes = world.gather_values(outcome)
    for rank, error in enumerate(outcomes):
        if isinstance(error, OSError):
            of_it = f" (process {rank})" if world.size > 1 else ""
            raise OSError(error.errno, f"{error.strerror or error}{of_it}") from error
    return outcomes


def _chunks(metadata: Metadata, written: list[Any]) -> dict[str, list[Any]]:
    """Of each tensor the parts: file, place and length in it, offsets and sizes in the tensor."""
    chunks: dict[str, list[Any]] = {}
    for result in written:
        name, at, lies = result.index.fqn, result.index.offset, result.storage_data
        stored: Any = metadata.state_dict_metadata[name]
        sizes = next(chunk.sizes for chunk in stored.chunks if chunk.offsets == at)
        chunks.setdefault(name, []).append([lies.relative_path, lies.offset, lies.length, [*at], [*sizes]])
    return chunks


class _DurableFiles(FileSystem):
    """What torch writes shards with: each file is hashed on its way, and on the medium when it is closed."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk, self._folder, self.written = disk, folder, list[ShardFile]()

    def tried(self, write: Callable[[], Any]) -> Any:
        """What `write` returns, or the OSError that it raises, bare."""
        try:
            return write()
        except OSError as error:
            return OSError(error.errno, error.strerror or str(error))

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.IOBase]:  # noqa: ARG002 - as torch asks
        """Open a file for writing."""
        target = Path(path)
        file = self._disk.create(target)
        try:
            stream = _ShardStream(file)
            yield stream
            if stream.failure is not None:
                raise stream.failure
            self._disk.sync(file)
        finally:
            self._disk.close(file)
        name = target.name.removesuffix(".tmp")  # of the directory, which is renamed
        self.written.append(
            ShardFile(name=f"{self._folder.name}/{name}", size_bytes=stream.tell(), digest=stream.digest())
        )

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        """The folder is there: rank 0 has made it."""

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Give the directory its name."""
        self._disk.rename(Path(path), Path(new_path))

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        """Nothing is replaced: the folder is of this save alone."""


class _ShardStream(io.RawIOBase):
    """A file to which torch appends. Of a failure it is not told, which it would hide behind an error of its own."""

    def __init__(self, file: WritableFile) -> None:
        self._file = DigestingFile(file)
        self.failure: OSError | None = None

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Append; what comes after a failure is dropped."""
        try:
            if self.failure is None:
                self._file.write(data)
        except OSError as failure:
            self.failure = failure
        return memoryview(data).nbytes

    def tell(self) -> int:
        """How much was written."""
        return self._file.size_bytes

    def digest(self) -> str:
        """Of everything that was written."""
        return self._file.digest
