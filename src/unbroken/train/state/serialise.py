"""Writing and reading checkpoint files: `torch.save`'s zip format out, our own reader in.

What is read was looked at first: `checkpoint.structure` opens the pickle without executing it, and tensors are built
from the bytes of their storages. So a stranger's file is as safe to load as one of ours, and there is one way to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from unbroken.checkpoint.structure import StorageReader, Structure, read_structure
from unbroken.checkpoint.tree import TensorRef
from unbroken.errors import DamagedFile
from unbroken.storage import WritableFile
from unbroken.train.state.tree import map_leaves


def write_tree(file: WritableFile, tree: Mapping[str, Any]) -> None:
    """Write a plain tree as an ordinary `torch.save` file, its tensors on the CPU."""
    target = _WriteOnly(file)
    torch.save(map_leaves(tree, torch.Tensor, _compact_on_cpu), cast(IO[bytes], target))
    failure, target.failure = target.failure, None
    if failure is not None:
        raise failure


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


def load_tree(structure: Structure) -> Any:
    """Fill a structure's tensors from the file; tensors that share a storage there get copies of their own."""
    with StorageReader(structure) as reader:
        blocks: dict[str, torch.Tensor] = {}

        def build(ref: TensorRef) -> torch.Tensor:
            dtype = getattr(torch, ref.dtype, None)
            if dtype is None or ref.dtype.startswith("q"):  # quantised numbers mean nothing without their scale
                raise DamagedFile(structure.path, f"it has a tensor of {ref.dtype}, which cannot be loaded by itself")
            if ref.storage_key not in blocks:
                blocks[ref.storage_key] = _bytes_tensor(reader.storage(ref.storage_key))
            return _view(blocks[ref.storage_key], ref, dtype)

        return map_leaves(structure.tree, TensorRef, build)


def _bytes_tensor(raw: bytearray) -> torch.Tensor:
    return torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)


def _view(block: torch.Tensor, ref: TensorRef, dtype: torch.dtype) -> torch.Tensor:
    if ref.numel == 0:
        return torch.empty(ref.shape, dtype=dtype)
    whole_items = block[: block.numel() // ref.item_bytes * ref.item_bytes]
    return whole_items.view(dtype).as_strided(ref.shape, ref.stride, ref.offset).clone()


def _compact_on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor alone: a view would drag its whole storage into the file."""
    on_cpu = tensor.detach().to("cpu")
    alone = on_cpu.numel() * on_cpu.element_size() == on_cpu.untyped_storage().nbytes()
    return on_cpu if alone else on_cpu.clone()


class _WriteOnly:
    """What torch.save may do with the file: append. So hashing while writing is sound.

    torch, which would hide a failure behind an error of its own, is not told of it, and what follows is dropped. The
    file must not keep the failure: that knows what torch wrote with, which knows the file where no collector looks, and
    so a copy of the model would stay for each save that failed.
    """

    def __init__(self, file: WritableFile) -> None:
        self._write = file.write
        self.flush = file.flush
        self.failure: BaseException | None = None

    def write(self, data: bytes) -> None:
        if self.failure is None:
            try:
                self._write(data)
            except BaseException as failure:  # noqa: BLE001 - raised when torch is done
                self.failure = failure
