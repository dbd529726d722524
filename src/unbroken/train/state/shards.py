"""Reading the shards of a checkpoint: by any number of processes, each its part, or by one that has whole tensors.

Where the parts of a tensor lie is read from the head, and not from the directory beside them, which is a pickle;
torch.distributed.checkpoint finds out what of them is whose, and opens them as weights only.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.tensor import Replicate, Shard, empty

from unbroken.checkpoint.sharded import ShardedRef
from unbroken.checkpoint.structure import Structure, read_structure
from unbroken.errors import DamagedFile
from unbroken.storage import open_ordinary

UNREADABLE = (ValueError, TypeError, KeyError, IndexError, RuntimeError, AssertionError, EOFError, OSError)


def read_shards(structure: Structure, references: Iterable[ShardedRef], mesh: Any) -> dict[str, torch.Tensor]:
    """The sharded tensors of a checked head by name: of each the part that belongs to this process of a `mesh`, or all.

    Raises DamagedFile where the shards do not hold what the head says.
    """
    tensors = {each.name: _empty(each, mesh) for each in references}
    try:
        reader, planner = _ShardReader(structure), DefaultLoadPlanner()
        metadata = reader.metadata(tensors)
        planner.set_up_planner(tensors, metadata, is_coordinator=True)
        reader.set_up_storage_reader(metadata, is_coordinator=True)
        plan = planner.finish_plan(reader.prepare_local_plan(planner.create_local_plan()))
        reader.read_data(plan, planner).wait()
    except UNREADABLE as error:
        what = "its shards do not hold the tensors that its head names"
        raise DamagedFile(structure.path, what, found=f"{type(error).__name__}: {error}"[:300]) from error
    return tensors


def _empty(reference: ShardedRef, mesh: Any) -> torch.Tensor:
    dtype = getattr(torch, reference.dtype)
    if mesh is None:
        return torch.empty(reference.shape, dtype=dtype)
    placed = Replicate() if reference.dim < 0 else Shard(reference.dim)
    return empty(*reference.shape, dtype=dtype, device_mesh=mesh, placements=[placed])


class _ShardReader(FileSystemReader):
    """Reads shards by what the head says of them, and not by the directory beside them, which is a pickle."""

    def __init__(self, structure: Structure) -> None:
        super().__init__(structure.path)
        self.fs = _OrdinaryFiles()
        stamp = read_structure(structure.path).stamp  # where only a part of the tree is to be read, it is not in that
        self._chunks: Mapping[str, Any] = stamp.get("chunks", {})
        known = stamp.get("shard_files", {})
        folders = {name.rsplit("/", 1)[0] for name in known}
        self._folder = next(iter(folders), "")
        self._files = {name.rsplit("/", 1)[1] for name in known}

    def metadata(self, tensors: Mapping[str, torch.Tensor]) -> Metadata:
        """Of these tensors: their parts, and where each of them lies."""
        stored: dict[str, Any] = {}
        lies: dict[Any, Any] = {}
        for name, tensor in tensors.items():
            chunks = []
            for number, (file, start, length, offsets, sizes) in enumerate(self._chunks[name]):
                if file not in self._files:
                    raise KeyError(f"{file} is none of its shards")
                chunks.append(ChunkStorageMetadata(offsets=torch.Size(offsets), sizes=torch.Size(sizes)))
                index = MetadataIndex(fqn=name, offset=torch.Size(offsets), index=number)
                lies[index] = _StorageInfo(f"{self._folder}/{file}", start, length)
            properties = TensorProperties(dtype=tensor.dtype)
            stored[name] = TensorStorageMetadata(properties=properties, size=tensor.size(), chunks=chunks)
        return Metadata(state_dict_metadata=stored, storage_data=lies)


class _OrdinaryFiles(FileSystem):
    """What torch reads shards with."""

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.IOBase]:  # noqa: ARG002 - as torch asks
        """Open a file for reading."""
        with open_ordinary(path) as file:
            yield file
