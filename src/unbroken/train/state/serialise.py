"""Writing and reading checkpoint files: the format of `torch.save` out, by a writer and in by a reader of our own.

What is read was looked at first: `checkpoint.structure` opens the pickle without executing it, and tensors are built
from the bytes of their storages. So a stranger's file is as safe to load as one of ours, and there is one way to load.
"""

from __future__ import annotations

import io
import pickle
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from unbroken.checkpoint.kept import KeptFile
from unbroken.checkpoint.rebuild import STORAGE_DTYPES
from unbroken.checkpoint.sharded import ShardedRef
from unbroken.checkpoint.structure import StorageReader, Structure, read_structure, tensors
from unbroken.checkpoint.tree import TensorRef
from unbroken.checkpoint.zip_layout import ALIGNMENT, BLOCK_BYTES, beginning_of, directory_of, header_of, sealed
from unbroken.errors import DamagedFile
from unbroken.storage import WritableFile
from unbroken.train.state.snapshot import Slot, Snapshot, distinct, groups_of, laid_out, views_of
from unbroken.train.state.tree import leaves, map_leaves

STORAGES = {dtype: name for name, dtype in STORAGE_DTYPES.items() if name != "UntypedStorage"}


def write_tree(file: WritableFile, tree: Mapping[str, Any], snapshot: Snapshot | None = None) -> None:
    """Write a plain tree as an ordinary `torch.save` file, its tensors on the CPU.

    Those of the snapshot lie in memory as they will lie in the file, which is written out of it in large blocks. Others
    are copied in blocks on their way, or, large ones on the CPU, written where they are.
    """
    snapshot = snapshot or Snapshot()
    slots = {id(view): slot for view, slot in zip(snapshot.views, snapshot.slots)}
    others = [tensor for tensor in leaves(tree, torch.Tensor) if id(tensor) not in slots]
    own, which = distinct(others)
    others, all_others = [others[at] for at in own], others
    more = laid_out(others, place=snapshot.end, number=len(snapshot.slots))
    slots.update((id(tensor), more[at]) for tensor, at in zip(all_others, which))
    front, entries, crcs = beginning_of(_pickled(tree, slots))
    entries += [slot.entry for slot in (*snapshot.slots, *more)]

    file.write(front)
    snapshot.wait()
    blocks = sealed((slot.entry for slot in snapshot.slots), _bytes_of(snapshot.memory), 0, crcs)
    groups = (([others[at] for at in group], [more[at] for at in group]) for group in groups_of(more))
    for block in chain(blocks, *(_blocks_of(*group, crcs) for group in groups)):
        file.write(block)
    file.write(directory_of(entries, crcs, len(front)))


def _blocks_of(tensors: Sequence[torch.Tensor], slots: Sequence[Slot], crcs: list[int]) -> Iterator[bytes | memoryview]:
    """The part of the file that has these tensors; a large one is not copied where its numbers lie in their order."""
    first, last = slots[0].entry, slots[-1].entry
    if len(slots) == 1 and (whole := tensors[0]).device.type == "cpu" and whole.is_contiguous() and not whole.is_conj():
        memory = _bytes_of(whole.detach().reshape(-1).view(torch.uint8))
        crcs.append(zlib.crc32(memory))
        yield header_of(first, crcs[-1])
        yield from (memory[at : at + BLOCK_BYTES] for at in range(0, len(memory), BLOCK_BYTES))
        return
    begun = first.header // ALIGNMENT * ALIGNMENT
    block = torch.empty(last.end - begun, dtype=torch.uint8)
    with torch.no_grad():
        for view, tensor in zip(views_of(slots, block, first=begun), tensors):
            view.copy_(tensor)
    yield from sealed((slot.entry for slot in slots), _bytes_of(block), begun, crcs)


def _bytes_of(memory: torch.Tensor) -> memoryview:
    return memoryview(memory.numpy().data)


def _pickled(tree: Mapping[str, Any], slots: Mapping[int, Slot]) -> bytes:
    """The tree with references to the entries of its tensors, as `torch.save` spells them."""
    written = io.BytesIO()
    _Pickler(written, slots).dump(tree)
    return written.getvalue()


class _Storage(NamedTuple):
    """The entry that holds a tensor's numbers: the class that torch has for them, its name, how many they are."""

    kind: type
    key: str
    numel: int


class _Pickler(pickle.Pickler):
    """Writes what `torch.save` writes of a plain tree, each tensor with the slot of its numbers."""

    def __init__(self, file: IO[bytes], slots: Mapping[int, Slot]) -> None:
        super().__init__(file, protocol=2)
        self._slots = slots

    def persistent_id(self, value: Any) -> Any:
        """What stands for an entry."""
        return ("storage", value.kind, value.key, "cpu", value.numel) if type(value) is _Storage else None

    def reducer_override(self, value: Any) -> Any:
        """What a tensor is made from; all else is pickled as it is."""
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        entry, dtype, shape, stride = self._slots[id(value)]
        key, name = entry.name.rpartition("/")[2], STORAGES.get(str(dtype).removeprefix("torch."))
        hooks: OrderedDict[str, Any] = OrderedDict()
        looks = (0, shape, stride, False, hooks)
        if name is None:  # of a newer kind of numbers, for which there is no class: the tensor says its own
            storage = _Storage(torch.UntypedStorage, key, entry.size_bytes)
            return torch._utils._rebuild_tensor_v3, (storage, *looks, dtype)
        storage = _Storage(getattr(torch, name), key, entry.size_bytes // dtype.itemsize)
        return torch._utils._rebuild_tensor_v2, (storage, *looks)


def read_tree(path: Path) -> Any:
    """Read a checkpoint file, executing nothing of it.

    Args:
        path: A file of `torch.save`, ours or another program's.
    Returns:
        What it holds: dicts, lists and plain values, with tensors on the CPU; those that share memory in the file get
        copies of their own.
    Raises:
        UsageError: The file is not there.
        DamagedFile: It is torn, or has a tensor that cannot be loaded by itself.
    """
    return load_tree(read_structure(path))


def load_tree(structure: Structure, mesh: Any = None, *, verified: KeptFile | None = None) -> Any:
    """Fill a structure's tensors from the file, or from what is kept of it since it was verified.

    Tensors that share a storage there get copies of their own.

    Those that lie in shards come as this process of a `mesh` has them, or whole where there is none.
    """
    sharded = {ref.name: ref for _, ref in tensors(structure) if isinstance(ref, ShardedRef)}
    if sharded:
        from unbroken.train.state.shards import read_shards  # half a second that whole files do not need

        found = read_shards(structure, sharded.values(), mesh)
    with StorageReader(structure, verified.memory if verified is not None else None) as reader:
        blocks: dict[str, torch.Tensor] = {}

        def build(ref: TensorRef) -> torch.Tensor:
            if isinstance(ref, ShardedRef):
                return found[ref.name]
            dtype = getattr(torch, ref.dtype, None)
            if dtype is None or ref.dtype.startswith("q"):  # quantised numbers mean nothing without their scale
                raise DamagedFile(structure.path, f"it has a tensor of {ref.dtype}, which cannot be loaded by itself")
            if ref.storage_key not in blocks:
                blocks[ref.storage_key] = _bytes_tensor(reader.storage(ref.storage_key))
            return _view(blocks[ref.storage_key], ref, dtype)

        return map_leaves(structure.tree, TensorRef, build)


def _bytes_tensor(raw: bytearray | memoryview) -> torch.Tensor:
    return torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)


def _view(block: torch.Tensor, ref: TensorRef, dtype: torch.dtype) -> torch.Tensor:
    if ref.numel == 0:
        return torch.empty(ref.shape, dtype=dtype)
    whole_items = block[: block.numel() // ref.item_bytes * ref.item_bytes]
    return whole_items.view(dtype).as_strided(ref.shape, ref.stride, ref.offset).clone()
