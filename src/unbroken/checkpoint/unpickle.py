"""The one reader of pickles, and it executes nothing: opcodes are read as data and become data.

Python's own unpickler calls what the file names, and its C form allocates what the file asks for. So it is
not used: the readers of `pickletools`, which only read, take each opcode's argument from the stream, and a machine
carries it out on lists, dicts and the nouns of `tree`. There is no import, no attribute look-up and no call of a
stranger's name anywhere on this path; protocols 0 to 5 are read.
"""

from __future__ import annotations

import io
import pickletools
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from unbroken.checkpoint.rebuild import call, call_with, checked_key, fill_array, storage_of
from unbroken.checkpoint.tree import Fields, Name, Opaque, SmallArray, StorageRef
from unbroken.errors import DamagedFile
from unbroken.text import printable

MAX_PICKLE_BYTES = 512 * 1024 * 1024

# What a wrong byte can raise in the reader, in the machine or in what it builds; all else is a bug of ours.
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    EOFError,
    struct.error,
    AssertionError,
    RecursionError,
    MemoryError,
)
MAX_OPCODES = 20_000_000
MAX_NAMES = 10_000
MAX_INT_BITS = 4096  # and so every number can be printed
HIGHEST_PROTOCOL = 5


@dataclass(frozen=True, kw_only=True)
class Pickled:
    """One value of a pickle as plain data, with the globals and the storages that it mentioned."""

    value: Any
    names: tuple[Name, ...]
    storages: dict[str, StorageRef]


class CappedReader:
    """A file that gives no more than `limit` bytes, so that a wrong length cannot fill the memory."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._left = limit

    def tell(self) -> int:
        """Return the position in the file."""
        return self._file.tell()

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes, as a file does."""
        return self._spend(self._file.read(min(count, self._left + 1)))

    def readline(self) -> bytes:
        """Return one line, as a file does."""
        return self._spend(self._file.readline(self._left + 1))

    def _spend(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("a pickle that is larger than any checkpoint has")
        return data


def read_pickle(source: bytes | BinaryIO, *, where: object, what: str = "the pickle") -> Pickled:
    """Read one pickle without executing it: a class becomes its name, a call nothing but a record of itself.

    Args:
        source: Its bytes, or a file, which is left just behind it.
        where: What errors name: the file that it is in.
        what: What errors call it.
    Returns:
        Its value as plain data, and the classes and storages that it mentions.
    Raises:
        DamagedFile: It is torn, no pickle, or made to do harm.
    Example:
        >>> import pickle
        >>> from unbroken import read_pickle
        >>> read_pickle(pickle.dumps({"CLASSES": ("road", "water")}), where="infos.pkl").value
        {'CLASSES': ('road', 'water')}
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else CappedReader(source, MAX_PICKLE_BYTES)
    try:
        with warnings.catch_warnings():  # pickletools warns of a backslash in a stranger's text
            warnings.simplefilter("ignore", DeprecationWarning)
            machine = carry_out(cast(IO[bytes], file))
            (value,) = machine.last(1)
            return Pickled(value=value, names=tuple(machine.names.values()), storages=machine.storages)
    except UNREADABLE as error:
        reason = printable((str(error) or type(error).__name__)[:200])
        raise DamagedFile(where, f"{what} cannot be read ({reason}, before byte {file.tell()})") from error


# -- the machine -----------------------------------------------------------------------------------------------------


class Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each open mark
        self.memo: dict[int, Any] = {}
        self.names: dict[tuple[str, str], Name] = {}
        self.storages: dict[str, StorageRef] = {}

    def push(self, value: Any) -> None:
        """Put one value on the stack."""
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """Take the group that was begun last."""
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def drop_group(self) -> None:
        """Forget the group that was begun last."""
        self.since_mark()

    def last(self, count: int) -> list[Any]:
        """Take the topmost values."""
        if len(self.stack) < count:
            raise ValueError("an opcode that takes more than there is")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def name(self, module: object, name: object) -> None:
        """Put a global on the stack by its name, without looking it up."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a global whose name is not text")
        if len(self.names) >= MAX_NAMES:
            raise ValueError("more globals than any checkpoint has")
        self.push(self.names.setdefault((module, name), Name(module=module, name=name)))

    def persistent(self, pid: object) -> None:
        """Put the storage that a persistent id names on the stack."""
        made = storage_of(pid)
        if isinstance(made, StorageRef):
            known = self.storages.setdefault(made.key, made)
            if known.block_bytes != made.block_bytes:
                raise ValueError(f"storage {made.key[:40]!r} with two different lengths")
        self.push(made)


def _extend(machine: Machine, items: list[Any]) -> None:
    match machine.stack[-1]:
        case list() as target:
            target.extend(items)
        case Opaque() as target:
            target.items.extend(items)
        case other:
            raise ValueError(f"items appended to a {type(other).__name__}")


def _add(machine: Machine, items: list[Any]) -> None:
    match machine.stack[-1]:
        case set() as target:
            target.update(checked_key(item) for item in items)
        case Opaque() as target:
            target.items.extend(items)
        case other:
            raise ValueError(f"items added to a {type(other).__name__}")


def _set(machine: Machine, flat: list[Any]) -> None:
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    match machine.stack[-1]:
        case dict() as target:
            for key, value in pairs:
                target[checked_key(key)] = value
        case Opaque() as target:
            target.pairs.extend(pairs)
        case other:
            raise ValueError(f"a key set on a {type(other).__name__}")


def _build(machine: Machine, state: object) -> None:
    match machine.stack[-1]:
        case Opaque() as target:
            target.state = state
        case SmallArray() as target:
            fill_array(target, state)
        case Fields() as target if isinstance(state, dict):
            target.attributes.update((str(key), value) for key, value in state.items())
        case other:
            raise ValueError(f"a state given to a {type(other).__name__}")


def _dict(flat: list[Any]) -> dict[Any, Any]:
    return {checked_key(key): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.since_mark()


def _protocol(version: int) -> None:
    if version > HIGHEST_PROTOCOL:
        raise ValueError(f"pickle protocol {version}, of which nothing is known")


def _instance(machine: Machine, spelling: str) -> None:
    args = machine.since_mark()
    machine.name(*spelling.split(" ", 1))
    machine.push(call(machine.stack.pop(), tuple(args)))


def _object(machine: Machine) -> None:
    cls, *args = machine.since_mark()
    machine.push(call(cls, tuple(args)))


def _number(machine: Machine, value: Any) -> None:
    if type(value) is int and value.bit_length() > MAX_INT_BITS:
        raise ValueError("a number longer than any checkpoint has")
    machine.stack.append(value)


def _literal(machine: Machine, value: Any) -> None:
    machine.stack.append(value)


def _mark(machine: Machine, _: Any) -> None:
    machine.outer.append(machine.stack)
    machine.stack = []


def _put(machine: Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _get(machine: Machine, place: int) -> None:
    machine.stack.append(machine.memo[place])


Action = Callable[[Machine, Any], None]
LITERALS = (
    *("BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
ACTIONS: dict[str, Action] = {
    **dict.fromkeys(LITERALS, _literal),
    **dict.fromkeys(("INT", "LONG", "LONG1", "LONG4"), _number),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "MARK": _mark,
    "PROTO": lambda _m, arg: _protocol(arg),
    "FRAME": lambda _m, _: None,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "POP": lambda m, _: _pop(m),
    "POP_MARK": lambda m, _: m.drop_group(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "LIST": lambda m, _: m.push(m.since_mark()),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.last(3))),
    "DICT": lambda m, _: m.push(_dict(m.since_mark())),
    "FROZENSET": lambda m, _: m.push(frozenset(checked_key(item) for item in m.since_mark())),
    "APPEND": lambda m, _: _extend(m, m.last(1)),
    "APPENDS": lambda m, _: _extend(m, m.since_mark()),
    "ADDITEMS": lambda m, _: _add(m, m.since_mark()),
    "SETITEM": lambda m, _: _set(m, m.last(2)),
    "SETITEMS": lambda m, _: _set(m, m.since_mark()),
    "BUILD": lambda m, _: _build(m, m.last(1)[0]),
    "MEMOIZE": lambda m, _: _put(m, len(m.memo)),
    "GLOBAL": lambda m, arg: m.name(*arg.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.last(2)),
    "REDUCE": lambda m, _: m.push(call(*m.last(2))),
    "NEWOBJ": lambda m, _: m.push(call(*m.last(2))),
    "NEWOBJ_EX": lambda m, _: m.push(call_with(*m.last(3))),
    "INST": _instance,
    "OBJ": lambda m, _: _object(m),
    "PERSID": lambda m, arg: m.persistent(arg),
    "BINPERSID": lambda m, _: m.persistent(m.last(1)[0]),
    "READONLY_BUFFER": lambda _m, _: None,
}
# By its byte: what reads the argument of an opcode, where it has one, and what carries it out.
OPCODES: dict[bytes, tuple[Callable[[IO[bytes]], Any] | None, Action]] = {
    opcode.code.encode("latin-1"): (opcode.arg.reader if opcode.arg else None, ACTIONS[opcode.name])
    for opcode in pickletools.opcodes
    if opcode.name in ACTIONS
}
NAMES = {opcode.code.encode("latin-1"): opcode.name for opcode in pickletools.opcodes}
STOP = b"."


def carry_out(file: IO[bytes]) -> Machine:
    """Carry out a file's opcodes up to its STOP; ValueError and the like where one cannot be."""
    machine, read = Machine(), file.read
    for _ in range(MAX_OPCODES):
        code = read(1)
        if code == STOP:
            return machine
        if code not in OPCODES:
            raise ValueError(f"opcode {NAMES.get(code, code)}, which no checkpoint has" if code else "it has no end")
        reader, act = OPCODES[code]
        act(machine, reader(file) if reader else None)
    raise ValueError("more opcodes than any checkpoint has")
