"""The nouns of a checkpoint's tree: what stands where torch, numpy or a stranger's class would have stood.

- TensorRef: where one tensor's numbers lie, without the numbers. StorageRef: the block it is a view of.
- Name: a global that a pickle mentions, such as `torch.float32`; it is never looked up.
- Opaque: an object of a class that stays shut; what it was made of is kept as data.
- SmallArray: a numpy array as dtype, shape and raw bytes. Fields: a dict that had attributes of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
    "complex128": 16,
    "complex64": 8,
    "complex32": 4,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "qint8": 1,
    "quint8": 1,
    "qint32": 4,
}


MOST_DIMENSIONS = 64  # of a tensor, by torch itself


def is_shape(value: object) -> bool:
    """Whether this is a row of sizes that a tensor or an array can have, its number of items below 2**63."""
    if not isinstance(value, tuple | list) or len(value) > MOST_DIMENSIONS:
        return False
    return all(type(n) is int and 0 <= n < 2**63 for n in value) and math.prod(n for n in value if n) < 2**63


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """A global that was mentioned, by module and name; inert."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageRef:
    """One block of numbers in the file, possibly seen by several tensors."""

    key: str
    dtype: str
    numel: int
    device: str
    start: int = 0  # elements into the block `key`; only views of the legacy format start later than 0
    block_numel: int = 0  # elements of the whole block

    @property
    def block_bytes(self) -> int:
        """The bytes that the block must have in the file."""
        return self.block_numel * ITEM_BYTES[self.dtype]

    @property
    def number_bytes(self) -> int:
        """The bytes of one real number: half an item where the numbers are complex."""
        return ITEM_BYTES[self.dtype] // (2 if self.dtype.startswith("complex") else 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRef:
    """One tensor as a view of a storage; `stride` and `offset` count elements."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage_key: str
    storage_bytes: int
    device: str = "cpu"
    requires_grad: bool = False
    is_parameter: bool = False

    @property
    def numel(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int:
        """The bytes of one number."""
        return ITEM_BYTES[self.dtype]

    @property
    def size_bytes(self) -> int:
        """The bytes of all its numbers, each counted once per place in the shape."""
        return self.numel * self.item_bytes

    @property
    def is_contiguous(self) -> bool:
        """True when the numbers lie in row-major order without gaps."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and stride != expected:
                return self.numel == 0
            expected *= size
        return True


@dataclass(kw_only=True, slots=True, eq=False)
class Opaque:
    """An object of a class that is not ours to open; equal only to itself."""

    module: str
    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[Any, Any] = field(default_factory=dict)
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}, kept shut>"


@dataclass(kw_only=True, slots=True, eq=False)
class SmallArray:
    """A numpy array as it lay in the pickle; `dtype` as numpy spells it, byte order first, such as `<f8`."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes
    column_major: bool = False


class Fields(dict[Any, Any]):
    """An ordered dict that may carry attributes, as a state_dict carries `_metadata`."""

    __slots__ = ("attributes",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.attributes: dict[str, Any] = {}
