"""A checkpoint of sharded training: a folder of files, of which one, the *head*, says what it is.

```
iter_8.dcp/
  state.pth            the head: all that is the same in every process, and which shards belong to it
  <save>/              what torch.distributed.checkpoint wrote at that save
    __0_0.distcp ...   the shards of each process
    .metadata          their directory, for torch's own tools
```
The head is written last, by a single durable write, and names each shard with its size and digest. So a folder without
a head is a save that was cut off, one whose head is there is whole or damaged, and a later save under the same name
replaces the one before in the moment in which its head does. Elsewhere a checkpoint is a path, file or folder alike:
here stands what is asked of either.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from unbroken.checkpoint.tree import ITEM_BYTES, PLAIN, TensorRef, is_shape
from unbroken.fields import FILE_DIGEST, file_digest
from unbroken.ids import is_name
from unbroken.storage import PARTIAL_SUFFIX

SUFFIX: Final = ".dcp"
HEAD: Final = "state.pth"
DIRECTORY: Final = ".metadata"  # of the shards, as torch writes it; a head says the same of those that it needs
SAVE: Final = re.compile("[0-9a-f]{16}")  # the name of a save, and of the folder of its shards
SHARDED: Final = "sharded"  # what stands in a head's tree for a tensor that lies in the shards
WRAP: Final = "__unbroken__"


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """A file of a folder besides its head, by its path below it."""

    name: str
    size_bytes: int
    digest: Annotated[str, file_digest]


def is_sharded(path: Path) -> bool:
    """Whether a checkpoint is a folder; one without a head is none yet."""
    return path.suffix == SUFFIX and (path / HEAD).is_file()


def is_cut_off(path: Path) -> bool:
    """Whether a folder has shards of ours and no head: the save that made it did not come to its end.

    One of another program, which has files right in it, is none.
    """
    if path.suffix != SUFFIX or path.is_symlink() or not path.is_dir():
        return False
    return all(SAVE.fullmatch(each.name) or each.name == f"{HEAD}{PARTIAL_SUFFIX}" for each in path.iterdir())


def head_of(path: Path) -> Path:
    """The file that says what a checkpoint is: itself, or the head of a folder."""
    return path / HEAD if path.suffix == SUFFIX else path


def size_of(path: Path) -> int:
    """The bytes of a checkpoint, of all its files; OSError where it is not there."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(each.stat().st_size for each in files_in(path))


def files_in(path: Path) -> list[Path]:
    """The files of a checkpoint, the head of a folder last: in this order they are copied."""
    if not path.is_dir():
        return [path]
    below = [Path(where, name) for where, _, names in os.walk(path) for name in sorted(names)]
    head = head_of(path)
    return [*sorted(each for each in below if each != head), *([head] if head in below else [])]


def shards_of_others(path: Path, names: Iterable[str]) -> list[Path]:
    """The folders in a checkpoint's own in which none of these shards is: of a save that was replaced, or cut off."""
    used = {name.split("/")[0] for name in names}
    return sorted(each for each in path.iterdir() if SAVE.fullmatch(each.name) and each.name not in used)


# -- what a head says of its shards ------------------------------------------------------------------------------------


def shards_in(stamp: Mapping[str, Any]) -> Iterator[ShardFile]:
    """The shards that a checked entry `unbroken` names."""
    for name, (size_bytes, digest) in stamp.get("shard_files", {}).items():
        yield ShardFile(name=name, size_bytes=size_bytes, digest=digest)


def are_shards(value: object) -> bool:
    """Whether these are sizes and digests by the paths of files in one folder below the head's."""
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and all(map(is_name, parts := name.split("/")))
        and len(parts) == 2
        and isinstance(facts, list)
        and len(facts) == 2
        and type(facts[0]) is int
        and facts[0] >= 0
        and isinstance(facts[1], str)
        and FILE_DIGEST.fullmatch(facts[1]) is not None
        for name, facts in value.items()
    )


def are_chunks(value: object) -> bool:
    """Whether these say, of each sharded tensor, which part of it lies where: file, place, length, offsets, sizes."""
    return isinstance(value, dict) and all(
        isinstance(rows, list)
        and all(
            isinstance(row, list)
            and len(row) == 5
            and isinstance(row[0], str)
            and is_shape(row[1:3])
            and is_shape(row[3])
            and is_shape(row[4])
            for row in rows
        )
        for rows in value.values()
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardedRef(TensorRef):
    """A tensor whose numbers lie in the shards, under this name; it was sharded along the dimension `dim`."""

    name: str
    dim: int


def placeholder(name: str, *, dtype: str, shape: tuple[int, ...], dim: int) -> dict[str, Any]:
    """What stands in a head's tree for a tensor that is sharded along `dim`."""
    return {WRAP: SHARDED, "name": name, "dtype": dtype, "shape": list(shape), "dim": dim}


def with_references(tree: Any) -> Any:
    """The tree of a head with a reference in the place of each tensor that lies in the shards."""
    if type(tree) not in PLAIN:
        return tree
    if isinstance(tree, dict):
        if tree.get(WRAP) == SHARDED and (found := _reference(tree)) is not None:
            return found
        return {key: with_references(item) for key, item in tree.items()}
    return type(tree)(map(with_references, tree))


def _reference(said: Mapping[str, Any]) -> ShardedRef | None:
    name, dtype, shape, dim = (said.get(key) for key in ("name", "dtype", "shape", "dim"))
    if not (isinstance(name, str) and dtype in ITEM_BYTES and is_shape(shape) and type(dim) is int):
        return None
    sizes = tuple(said["shape"])
    if not -1 <= dim < max(len(sizes), 1):
        return None
    stride = tuple(math.prod(max(size, 1) for size in sizes[place + 1 :]) for place in range(len(sizes)))
    return ShardedRef(
        dtype=said["dtype"],
        shape=sizes,
        stride=stride,
        offset=0,
        storage_key=f"{SHARDED}:{name}",
        storage_bytes=0,
        name=name,
        dim=dim,
    )
