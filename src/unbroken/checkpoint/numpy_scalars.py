"""Numpy's dtypes, scalars and small arrays, decoded from their pickled bytes without numpy."""

from __future__ import annotations

import math
import struct

from unbroken.checkpoint.leaves import Name, Opaque, SmallArray, is_shape

STRUCT_CODES = {
    "b1": "?",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}
TEXT_KINDS = {"U": "utf-32", "S": "latin-1"}
Scalar = bool | int | float | complex | str


def dtype_code(dtype: object) -> str | None:
    """Return numpy's own spelling, byte order first, such as `<f8`; None for a dtype that is not plain."""
    if not isinstance(dtype, Opaque) or (dtype.module, dtype.name) != ("numpy", "dtype"):
        return None
    match dtype.args, dtype.state:
        case (str(code), *_), (_, ("<" | ">" | "|") as order, None, None, None, *_):
            return f"{order}{code}"
        case (str(code), *_), None:
            return f"|{code}"
    return None


def scalar_value(dtype: object, raw: object) -> Scalar | None:
    """Return one numpy scalar as Python's number or text, or None where it has no such form."""
    code = dtype_code(dtype)
    if code is None or not isinstance(raw, bytes):
        return None
    values = decode(code, raw)
    return values[0] if values is not None and len(values) == 1 else None


def array_values(array: SmallArray) -> list[Scalar] | None:
    """Return the numbers of an array in memory order, or None where they have no plain form."""
    values = decode(array.dtype, array.data)
    return values if values is not None and len(values) == math.prod(array.shape) else None


def decode(code: str, raw: bytes) -> list[Scalar] | None:
    """Return the numbers or texts that `raw` holds under a dtype such as `<f8`."""
    order, kind = code[:1].replace("|", "<"), code[1:]
    if kind[:1] in TEXT_KINDS:
        return [_text(order, kind[:1], raw)]
    if kind in ("c8", "c16"):
        parts = decode(f"{order}f{int(kind[1:]) // 2}", raw) or []
        return [complex(re, im) for re, im in zip(parts[::2], parts[1::2], strict=True)]  # type: ignore[arg-type]  # floats
    if kind not in STRUCT_CODES or len(raw) % int(kind[1:]):
        return None
    return list(struct.unpack(f"{order}{len(raw) // int(kind[1:])}{STRUCT_CODES[kind]}", raw))


def _text(order: str, kind: str, raw: bytes) -> str:
    encoding = TEXT_KINDS[kind] + (("-le" if order == "<" else "-be") if kind == "U" else "")
    return raw.decode(encoding).rstrip("\0")


def fill_array(array: SmallArray, state: object) -> None:
    """Complete an array, which numpy pickles as an empty one with version, shape, dtype, order, bytes."""
    match state:
        case (_, tuple(shape), dtype, column_major, bytes(data)) if is_shape(shape):
            array.dtype, array.shape, array.data = dtype_code(dtype) or _named(dtype), shape, data
            array.column_major = bool(column_major)
        case (_, tuple(shape), dtype, _, list()) if is_shape(shape):
            array.dtype, array.shape = "|O", shape  # an array of objects: they stay shut
        case _:
            raise ValueError("a numpy array whose content is not spelled as numpy does")


def _named(dtype: object) -> str:
    match dtype:
        case Opaque(args=(str(code), *_)) | Name(name=code):
            return f"|{code}"
    return "|V"
