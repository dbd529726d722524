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

from unbroken.checkpoint.containers import SMALL_BYTES
from unbroken.checkpoint.sharded import ShardedRef, size_of
from unbroken.checkpoint.structure import MOST_UNFOLDED, Structure, read_structure
from unbroken.errors import DamagedFile
from unbroken.storage import open_ordinary

UNREADABLE = (ValueError, TypeError, KeyError, IndexError, RuntimeError, AssertionError, EOFError, OSError)


def read_shards(structure: Structure, references: Iterable[ShardedRef], mesh: Any) -> dict[str, torch.Tensor]:
    """The sharded tensors of a checked head by name: of each the part that belongs to this process of a `mesh`, or all.

    Raises DamagedFile where the shards do not hold what the head says.
    """
    references = [*references]
    claimed, stored = sum(each.size_bytes for each in references), size_of(structure.path)
    if claimed > max(MOST_UNFOLDED * stored, SMALL_BYTES):
        raise DamagedFile(
            structure.path, f"its tensors claim {claimed:,} bytes", expected=f"about the {stored:,} stored"
        )
    try:
        tensors = {each.name: _empty(each, mesh) for each in references}
        reader, planner = _ShardReader(structure), DefaultLoadPlanner()
        metadata = reader.metadata(references)
        planner.set_up_planner(tensors, metadata, is_coordinator=True)
        reader.set_up_storage_reader(metadata, is_coordinator=True)
        plan = planner.finish_plan(reader.prepare_local_plan(planner.create_local_plan()))
        reader.read_data(plan, planner).wait()
    except UNREADABLE as error:
        what = "its shards do not hold the tensors that its head names"
        raise DamagedFile(structure.path, what, found=f"{type(error).__name__}: {error}"[:300]) from error
    return tensors


def _is_covered(reference: ShardedRef, rows: Iterable[Any]) -> bool:
    """Whether parts follow each other from a tensor's beginning to its end: else some of it would come from nowhere."""
    dim, shape = max(reference.dim, 0), [*(reference.shape or (1,))]
    at = 0
    for *_, offsets, sizes in sorted(rows, key=lambda row: row[3]):
        begins = [at if each == dim else 0 for each in range(len(shape))]
        width = sizes[dim] if sizes else 1
        if [*(offsets or (0,))] != begins or [*(sizes or (1,))] != [*shape[:dim], width, *shape[dim + 1 :]]:
            return False
        at += width
    return at == shape[dim]


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

    def metadata(self, references: Iterable[ShardedRef]) -> Metadata:
        """Of these tensors: their parts, and where each of them lies."""
        stored: dict[str, Any] = {}
        lies: dict[Any, Any] = {}
        for reference in references:
            name, chunks = reference.name, []
            rows = self._chunks.get(name, [])
            if not _is_covered(reference, rows):
                raise ValueError(f"the parts of {name} do not make {list(reference.shape)}")
            for number, (file, start, length, offsets, sizes) in enumerate(rows):
                if file not in self._files:
                    raise KeyError(f"{file} is none of its shards")
                chunks.append(ChunkStorageMetadata(offsets=torch.Size(offsets), sizes=torch.Size(sizes)))
                index = MetadataIndex(fqn=name, offset=torch.Size(offsets), index=number)
                lies[index] = _StorageInfo(f"{self._folder}/{file}", start, length)
            properties = TensorProperties(dtype=getattr(torch, reference.dtype))
            stored[name] = TensorStorageMetadata(properties=properties, size=torch.Size(reference.shape), chunks=chunks)
        return Metadata(state_dict_metadata=stored, storage_data=lies)


class _OrdinaryFiles(FileSystem):
    """What torch reads shards with."""

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.IOBase]:  # noqa: ARG002 - as torch asks
        """Open a file for reading."""
        with open_ordinary(path) as file:
            yield file
