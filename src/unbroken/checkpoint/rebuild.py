"""What a pickled call of a known global means as data, numpy's among them; every other call becomes an `Opaque`.

Nothing here calls what the file names: the table at the end maps spellings to our own functions, which
accept only the harmless forms of their arguments and raise ValueError or TypeError on all others.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from unbroken.checkpoint.tree import ITEM_BYTES, Fields, Name, Opaque, SmallArray, StorageRef, TensorRef, is_shape

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "UntypedStorage": "uint8",
}
RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
}
SCALARS = (str, int, float, complex, bytes, type(None))
SAFE_KEYS = (*SCALARS, Name, Opaque, TensorRef, StorageRef, frozenset)
PLAIN_TENSORS = (
    Name(module="torch", name="Tensor"),
    Name(module="torch.nn.parameter", name="Parameter"),
    Name(module="torch.nn.parameter", name="Buffer"),
)
ENCODINGS = {"latin1", "latin-1", "utf-8", "utf8", "ascii"}
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


def call(callee: object, args: object, kwargs: dict[Any, Any] | None = None) -> object:
    """Return what `callee(*args)` stands for: plain data where its meaning is known, else an Opaque."""
    if not isinstance(args, tuple):
        raise ValueError("a call whose arguments are not a tuple")
    match callee:
        case Name(module=module, name=name):
            maker = MAKERS.get(f"{RENAMED.get(module, module)}.{name}")
            if maker is not None and not kwargs:
                return maker(*args)
            return Opaque(module=module, name=name, args=args, kwargs=kwargs or {})
        case Opaque(module=module, name=name):
            return Opaque(module=module, name=name, args=(callee, *args), kwargs=kwargs or {})
    raise ValueError(f"a call of a {type(callee).__name__}, which is not callable")


def call_with(cls: object, args: object, kwargs: object) -> object:
    """The same, with keyword arguments as the file gives them."""
    if not isinstance(kwargs, dict):
        raise ValueError("a call whose keyword arguments are not a dict")
    return call(cls, args, kwargs)


def storage_of(pid: object) -> object:
    """Return the storage that a persistent id of torch names."""
    match pid:
        case ("storage", Name(name=name), str(key), str(device), int(numel), *rest) if 0 <= numel < 2**63:
            if name not in STORAGE_DTYPES:
                raise ValueError(f"storage type {name[:80]!r} is not known")
            ref = StorageRef(key=key, dtype=STORAGE_DTYPES[name], numel=numel, device=device, block_numel=numel)
            match rest:
                case [] | [None, *_]:
                    return ref
                case [(_, int(start), int(size)), *_] if start >= 0 and size >= 0 and start + size <= numel:
                    return replace(ref, numel=size, start=start)
            raise ValueError("a view that is longer than its storage")
        case ("module", Name() as container, *_):
            return container
    raise ValueError("a reference to something outside of the pickle that is not a storage")


def _sizes(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(n) is int and 0 <= n < 2**63 for n in value):
        raise ValueError(f"a tensor whose {what} is not a row of whole numbers")
    return tuple(value)


def _shape(value: object) -> tuple[int, ...]:
    if not is_shape(value):
        raise ValueError("a shape that no tensor can have")
    return tuple(cast(tuple[int, ...], value))


def _tensor(
    storage: object,
    offset: object,
    shape: object,
    stride: object,
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
) -> TensorRef | Opaque:
    if metadata:  # numbers that count as conjugated or negated: as they lie they would be wrong
        args = (storage, offset, shape, stride, requires_grad, hooks, metadata)
        return Opaque(module="torch._utils", name="_rebuild_tensor_v2", args=args)
    if not isinstance(storage, StorageRef):
        raise ValueError("a tensor without a storage")
    return _tensor_as(storage, storage.dtype, offset, shape, stride, requires_grad)


def _tensor_v3(
    storage: object,
    offset: object,
    shape: object,
    stride: object,
    requires_grad: object,
    _hooks: object,
    dtype: object,
    *_: object,
) -> TensorRef:
    if not isinstance(storage, StorageRef) or not isinstance(dtype, Name) or dtype.name not in ITEM_BYTES:
        raise ValueError("a tensor of a dtype that is not known")
    return _tensor_as(storage, dtype.name, offset, shape, stride, requires_grad)


def _tensor_as(
    storage: StorageRef, dtype: str, offset: object, shape: object, stride: object, requires_grad: object
) -> TensorRef:
    sizes, steps = _shape(shape), _sizes(stride, "stride")
    (first,) = _sizes((offset,), "offset")
    if len(sizes) != len(steps):
        raise ValueError("a tensor whose shape and stride have different lengths")
    item, stored_item = ITEM_BYTES[dtype], ITEM_BYTES[storage.dtype]
    last = first + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
    if 0 not in sizes and (last + 1) * item > storage.numel * stored_item:
        raise ValueError(f"a tensor of shape {sizes} reaches beyond the end of its storage {storage.key[:40]!r}")
    if storage.start * stored_item % item:
        raise ValueError("a tensor that starts inside a number")
    return TensorRef(
        dtype=dtype,
        shape=sizes,
        stride=steps,
        offset=first + storage.start * stored_item // item,
        storage_key=storage.key,
        storage_bytes=storage.block_bytes,
        device=storage.device,
        requires_grad=bool(requires_grad),
    )


def _parameter(data: object, requires_grad: object, *_: object) -> object:
    if not isinstance(data, TensorRef):
        return Opaque(module="torch.nn.parameter", name="Parameter", args=(data, requires_grad))
    return replace(data, requires_grad=bool(requires_grad), is_parameter=True)


def _from_type(func: object, kind: object, args: object, *state: object) -> object:
    """A tensor that carried Python attributes counts as a tensor; one of a class of its own stays shut."""
    if kind in PLAIN_TENSORS:
        return call(func, args)
    return Opaque(module="torch._tensor", name="_rebuild_from_type_v2", args=(func, kind, args, *state))


def _device(kind: object, *index: object) -> str:
    if not isinstance(kind, str) or not all(type(n) is int for n in index):
        raise ValueError("a device that is not spelled as text")
    return ":".join([kind, *map(str, index)])


def _fields(*args: Any) -> Fields:
    fields = Fields()
    for key, value in args[0].items() if args and isinstance(args[0], dict) else (args[0] if args else ()):
        fields[checked_key(key)] = value
    return fields


def _counter(counts: object = ()) -> Counter[Any]:
    """Counts by key; a Counter that counts a row's items itself is not what pickle writes."""
    if counts and not isinstance(counts, dict):
        raise ValueError("a Counter that is not made from counts by key")
    made: Counter[Any] = Counter()
    for key, value in counts.items() if isinstance(counts, dict) else ():
        made[checked_key(key)] = value
    return made


def _set(items: object = ()) -> set[Any]:
    if not isinstance(items, list | tuple | set | frozenset):
        raise ValueError("a set that is not made from a list")
    return {checked_key(item) for item in items}


def _bytes(source: object = b"", encoding: object = "latin-1") -> bytes:
    """Bytes from bytes or text, never from a number: `bytes(10**12)` would be a bomb."""
    match source:
        case bytes() | bytearray():
            return bytes(source)
        case str() if isinstance(encoding, str) and encoding in ENCODINGS:
            return source.encode(encoding)
    raise ValueError("bytes that are made from something else than bytes or text")


def _complex(real: object = 0.0, imag: object = 0.0) -> complex:
    if not isinstance(real, int | float) or not isinstance(imag, int | float):
        raise ValueError("a complex number that is not made from two numbers")
    return complex(real, imag)


def _slice(*bounds: object) -> slice:
    if not 1 <= len(bounds) <= 3 or not all(bound is None or type(bound) is int for bound in bounds):
        raise ValueError("a slice that is not made from whole numbers")
    return slice(*bounds)


def _scalar(dtype: object, raw: object = b"") -> object:
    value = scalar_value(dtype, raw)
    return Opaque(module="numpy", name="scalar", args=(dtype, raw)) if value is None else value


def _array_from_buffer(data: object, dtype: object, shape: object, order: object) -> object:
    code = dtype_code(dtype)
    if code is None or not isinstance(data, bytes | bytearray):
        return Opaque(module="numpy", name="ndarray", args=(data, dtype, shape, order))
    return SmallArray(dtype=code, shape=_shape(shape), data=bytes(data), column_major=order == "F")


def _reconstructor(cls: object, _base: object, content: object = None) -> object:
    made = call(cls, ())
    if isinstance(made, Opaque):
        made.args = () if content is None else (content,)
    return made


def checked_key(key: object) -> object:
    """Return `key` when hashing it is safe: a deep tuple could hang or overflow the stack."""
    if isinstance(key, SAFE_KEYS) or (isinstance(key, tuple) and all(isinstance(part, SCALARS) for part in key)):
        return key
    raise ValueError(f"a {type(key).__name__} as the key of a dict or member of a set")


# -- numpy, without numpy: dtypes, scalars and small arrays from their pickled bytes ---------------------------------


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
        encoding = TEXT_KINDS[kind[:1]] + (("-le" if order == "<" else "-be") if kind[:1] == "U" else "")
        return [raw.decode(encoding).rstrip("\0")]
    if kind in ("c8", "c16"):
        parts = decode(f"{order}f{int(kind[1:]) // 2}", raw) or []
        return [complex(re, im) for re, im in zip(parts[::2], parts[1::2], strict=True)]  # type: ignore[arg-type]  # floats
    if kind not in STRUCT_CODES or len(raw) % int(kind[1:]):
        return None
    return list(struct.unpack(f"{order}{len(raw) // int(kind[1:])}{STRUCT_CODES[kind]}", raw))


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


# -- the table -------------------------------------------------------------------------------------------------------


MAKERS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _fields,
    "collections.Counter": _counter,
    "collections.defaultdict": lambda *_factory: Fields(),
    "builtins.dict": _fields,
    "builtins.set": _set,
    "builtins.frozenset": lambda *items: frozenset(_set(*items)),
    "builtins.bytes": _bytes,
    "builtins.bytearray": lambda *source: bytearray(_bytes(*source)),
    "builtins.complex": _complex,
    "builtins.slice": _slice,
    "_codecs.encode": _bytes,
    "copyreg._reconstructor": _reconstructor,
    "copyreg.__newobj__": lambda cls, *args: call(cls, args),
    "copyreg.__newobj_ex__": call_with,
    "torch.Size": lambda sizes=(): _sizes(sizes, "size"),
    "torch.device": _device,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.multiarray._reconstruct": lambda *_: SmallArray(dtype="", shape=(), data=b""),
    "numpy._core.numeric._frombuffer": _array_from_buffer,
}
