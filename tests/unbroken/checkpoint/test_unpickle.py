from __future__ import annotations

import builtins
import collections
import contextlib
import copyreg
import datetime
import os
import pickle
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.checkpoint.rebuild import array_values
from unbroken.checkpoint.tree import Fields, Name, Opaque, SmallArray
from unbroken.checkpoint.unpickle import read_pickle
from unbroken.errors import DamagedFile

PROTOCOLS = range(6)


def read(data: bytes) -> Any:
    return read_pickle(data, where="test").value


class Plain:
    def __init__(self, value: object) -> None:
        self.value = value


class Slotted:
    __slots__ = ("value",)


class Row(list):
    pass


class Table(dict):
    pass


class Keyworded:
    def __new__(cls, *, size: int) -> Keyworded:
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, int]]:
        return (), {"size": 3}


class Called:
    """Pickles as a call of anything with any arguments."""

    def __init__(self, function: object, *args: object) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> Any:
        return self.reduced


# ---- plain data


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_of_every_protocol_comes_back_equal(protocol: int) -> None:
    value = {
        "none": None,
        "flags": [True, False],
        "numbers": [0, -1, 255, 65536, -(2**31), 2**63, 10**30, 1.5, float("inf"), -0.0],
        "text": ["", "é\n世界", "x" * 300],
        "bytes": [b"", b"\x00\xff" * 200],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "sets": [{1, 2}, frozenset({"a"}), set()],
        "bytearray": bytearray(b"abc"),
        "complex": 1 - 2j,
        "slice": slice(1, None, 2),
        7: "number key",
        (1, "a"): "tuple key",
    }
    if protocol < 2:
        value.pop("slice")  # nothing pickles it there
        value["slice"] = None
    assert read(pickle.dumps(value, protocol)) == value


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**100), 2**100)
        | st.floats(allow_nan=False)
        | st.text()
        | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    ),
    st.sampled_from(PROTOCOLS),
)
@settings(max_examples=150, deadline=None)
def test_any_plain_data_comes_back_equal(value: object, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_dicts_keep_their_order_and_their_attributes(protocol: int) -> None:
    value = collections.OrderedDict(b=1, a=2)
    value._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    found = read(pickle.dumps(value, protocol))
    assert isinstance(found, Fields)
    assert list(found.items()) == [("b", 1), ("a", 2)]
    assert found.attributes == {"_metadata": {"": {"version": 2}}}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_that_is_mentioned_twice_stays_one_object(protocol: int) -> None:
    shared = [1]
    found = read(pickle.dumps([shared, shared], protocol))
    assert found[0] is found[1]


# ---- numpy


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("old_spelling", [False, True])
def test_numpy_scalars_become_python_values(protocol: int, old_spelling: bool) -> None:
    values = [
        numpy.float64(1.5),
        numpy.float32(0.1),
        numpy.float16(2.0),
        numpy.int64(-3),
        numpy.uint8(200),
        numpy.bool_(True),
        numpy.str_("é世"),
        numpy.complex64(1 - 2j),
        numpy.float64("nan"),
    ]
    data = pickle.dumps(values, protocol)
    if old_spelling and protocol < 4:
        data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    found = read(data)
    assert found[:-1] == [value.item() for value in values[:-1]]
    assert found[-1] != found[-1]
    assert [type(value) for value in found] == [float] * 3 + [int] * 2 + [bool, str, complex, float]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", "|u1", "|b1", "<c8"])
def test_numpy_arrays_keep_dtype_shape_and_bytes(protocol: int, dtype: str) -> None:
    array = numpy.arange(6).reshape(2, 3).astype(dtype)
    found = read(pickle.dumps(array, protocol))
    assert isinstance(found, SmallArray)
    assert (found.dtype, found.shape, found.data) == (array.dtype.str, (2, 3), array.tobytes())
    assert array_values(found) == array.ravel().tolist()


def test_a_numpy_array_of_objects_stays_shut() -> None:
    found = read(pickle.dumps(numpy.array([Plain(1), None], dtype=object)))
    assert isinstance(found, SmallArray)
    assert array_values(found) is None


# ---- strangers


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_of_strangers_stay_shut_and_keep_what_they_were_made_of(protocol: int) -> None:
    row, table = Row([1, 2]), Table(a=1)
    found = read(pickle.dumps({"plain": Plain(5), "row": row, "table": table}, protocol))
    assert all(isinstance(value, Opaque) for value in found.values())
    assert found["plain"].name == "Plain"
    assert found["plain"].state == {"value": 5}
    if protocol >= 2:
        assert found["row"].items == [1, 2]
        assert found["table"].pairs == [("a", 1)]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_slots_and_keyword_arguments_survive(protocol: int) -> None:
    slotted = Slotted()
    slotted.value = 4
    found = read(pickle.dumps([slotted, Keyworded(size=3)], protocol))
    assert found[0].state == (None, {"value": 4})
    assert isinstance(found[1], Opaque)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_strangers_serve_as_keys_and_can_be_called_again(protocol: int) -> None:
    when = datetime.date(2024, 1, 2)
    found = read(pickle.dumps({when: 1, "bound": [].append, "where": Path("x")}, protocol))
    assert sorted(type(key).__name__ for key in found) == ["Opaque", "str", "str"]
    assert found["bound"].name == "getattr"


def test_a_global_is_a_name_and_nothing_more() -> None:
    assert read(pickle.dumps(os.system)) == Name(module=os.system.__module__, name="system")
    assert read(pickle.dumps(torch.float32)) == Name(module="torch", name="float32")


# ---- attacks


def bombs(mark: Path) -> dict[str, Any]:
    command = f"touch {mark}"
    code = f"open({str(mark)!r}, 'w').close()"
    return {
        "os.system": Called(os.system, command),
        "eval": Called(eval, code),
        "exec": Called(exec, code),
        "getattr": Called(getattr, Called(__import__, "os"), "system"),
        "getattr then call": Called(map, eval, [code]),
        "torch.hub.load": Called(torch.hub.load, str(mark.parent), "anything"),
        "torch.load": Called(torch.load, str(mark)),
        "open": Called(builtins.open, str(mark), "w"),
        "mkdir": Called(os.mkdir, str(mark)),
        "copyreg": Called(copyreg._reconstructor, Plain, object, None),  # type: ignore[attr-defined]
        "in a set": {Called(os.system, command)},
        "as a key": {Called(os.system, command): 1},
        "in a tensor": Called(torch._utils._rebuild_parameter, Called(eval, code), True, None),
        "rebuild from type": Called(torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (code,), {}),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", sorted(bombs(Path("x"))))
def test_no_bomb_goes_off(tmp_path: Path, name: str, protocol: int) -> None:
    mark = tmp_path / "mark"
    read(pickle.dumps(bombs(mark)[name], protocol))
    assert not mark.exists()


def test_the_bombs_are_live(tmp_path: Path) -> None:
    for number, name in enumerate(["os.system", "eval", "exec", "mkdir", "in a set", "as a key"]):
        mark = tmp_path / str(number)
        pickle.loads(pickle.dumps(bombs(mark)[name]))
        assert mark.exists(), name


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


OPCODES = {
    "GLOBAL REDUCE": lambda cmd: b"cposix\nsystem\n(" + text(cmd) + b"tR.",
    "STACK_GLOBAL": lambda cmd: b"\x80\x04" + text("posix") + text("system") + b"\x93(" + text(cmd) + b"tR.",
    "INST": lambda cmd: b"(" + text(cmd) + b"iposix\nsystem\n.",
    "OBJ": lambda cmd: b"(cposix\nsystem\n" + text(cmd) + b"o.",
    "NEWOBJ": lambda cmd: b"\x80\x02cposix\nsystem\n" + text(cmd) + b"\x85\x81.",
    "NEWOBJ_EX": lambda cmd: b"\x80\x04cposix\nsystem\n" + text(cmd) + b"\x85}\x92.",
    "BUILD": lambda cmd: b"cposix\nsystem\n)R}" + text("__setstate__") + b"cposix\nsystem\nsb" + text(cmd) + b"b.",
    "BUILD dict": lambda cmd: b"ccollections\nOrderedDict\n)R}" + text("items") + b"cposix\nsystem\nsb.",
    "APPEND": lambda cmd: b"cposix\nsystem\n)R" + text(cmd) + b"a.",
    "SETITEM": lambda cmd: b"cposix\nsystem\n)R" + text(cmd) + text(cmd) + b"s.",
    "dotted": lambda cmd: (
        b"\x80\x04" + text("builtins") + text("__import__('os').system") + b"\x93(" + text(cmd) + b"tR."
    ),
    "dotted module": lambda cmd: b"\x80\x04" + text("os") + text("path.os.system") + b"\x93(" + text(cmd) + b"tR.",
    "call of a call": lambda cmd: (
        b"cbuiltins\ngetattr\n(cos\n__name__\n" + text("system") + b"tR(" + text(cmd) + b"tR."
    ),
    "newobj by copyreg": lambda cmd: b"ccopyreg\n__newobj__\n(cposix\nsystem\n" + text(cmd) + b"tR.",
    "reconstructor": lambda cmd: b"ccopy_reg\n_reconstructor\n(cposix\nsystem\ncposix\nsystem\n" + text(cmd) + b"tR.",
}


@pytest.mark.parametrize("name", sorted(OPCODES))
def test_no_opcode_calls_anything(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    read(OPCODES[name](f"touch {mark}"))
    assert not mark.exists()


REFUSED = {
    "extension code": b"\x80\x02\x82\x01.",
    "extension code 2": b"\x80\x02\x83\x01\x00.",
    "extension code 4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "state for a class": b"cbuiltins\ndict\n}b.",
    "state for a list": b"]}b.",
    "call of a number": b"K\x01)R.",
    "arguments that are no tuple": b"cbuiltins\neval\n]R.",
    "attribute text as a global": b"\x80\x04K\x01K\x02\x93.",
    "list as a key": b"}]K\x01s.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "unknown persistent id": b"K\x01Q.",
    "persistent id of protocol 0": b"Psomething\n.",
    "nothing on the stack": b".",
    "no stop": b"K\x01",
    "no mark": b"t.",
    "memo that is empty": b"h\x05.",
    "protocol 9": b"\x80\x09N.",
    "bytes from a number": b"cbuiltins\nbytearray\n(L99999999999L\ntR.",
    "number without end": b"\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000 + b".",
    "text length beyond the end": b"\x8d" + struct.pack("<Q", 2**62) + b"abc.",
    "bytearray length beyond the end": b"\x96" + struct.pack("<Q", 2**40) + b"abc.",
    "tensor without storage": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00K\x01\x85K\x01\x85\x89NtR.",
    "module without a name": b"cbuiltins\n",
    "empty": b"",
    "garbage": b"\xff\xfe\xfd",
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_no_checkpoint_has_is_refused_as_damage(name: str) -> None:
    with pytest.raises(DamagedFile, match="cannot be read") as caught:
        read(REFUSED[name])
    assert caught.value.exit_code == 12


def test_extension_codes_of_this_process_are_not_used() -> None:
    copyreg.add_extension("posix", "system", 201)
    try:
        with pytest.raises(DamagedFile, match="EXT1"):
            read(b"\x80\x02\x82\xc9(X\x01\x00\x00\x00xtR.")
        assert 201 not in copyreg._extension_cache  # type: ignore[attr-defined]
    finally:
        copyreg.remove_extension("posix", "system", 201)


def test_a_memo_index_does_not_allocate() -> None:
    tracemalloc.start()
    try:
        assert read(b"K\x01r\xff\xff\xff\x7f.") == 1
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_deep_nesting_neither_crashes_nor_hangs() -> None:
    read(b"]" * 100_000 + b"a" * 99_999 + b".")
    read(b")" + b"\x85" * 100_000 + b".")
    read(b"cx\ny\n" + b")R" * 100_000 + b".")
    with pytest.raises(DamagedFile, match="key of a dict"):
        read(b"})" + b"\x85" * 100_000 + b"Ns.")  # hashing it would overflow the stack
    with pytest.raises(DamagedFile, match="key of a dict"):
        read(b"}N" + b"2\x86" * 60 + b"Ns.")  # hashing it would take 2**60 steps
    with pytest.raises(DamagedFile):
        read(b"c_codecs\nencode\n(X\x00\x00\x00\x00)" + b"\x85" * 100_000 + b"tR.")


def test_too_many_globals_are_refused() -> None:
    names = b"".join(b"cm\nn%d\n0" % number for number in range(10_001))
    with pytest.raises(DamagedFile, match="more globals"):
        read(names + b"N.")


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(DamagedFile):
        read(data)


def test_altered_pickles_are_read_or_refused() -> None:
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    value = [
        Plain(1),
        {"a": (1, 2.5, "x")},
        numpy.float64(1),
        numpy.arange(3),
        {1, 2},
        collections.OrderedDict(a=1),
    ]
    for protocol in PROTOCOLS:
        whole = pickle.dumps(value, protocol)
        for _ in range(400):
            data = bytearray(whole)
            for _ in range(generator.randint(1, 4)):
                data[generator.randrange(len(data))] = generator.randrange(256)
            try:
                read(bytes(data))
            except DamagedFile:
                continue
            except BaseException:
                print("seed", seed, bytes(data))
                raise


def test_a_pickle_cut_anywhere_is_refused() -> None:
    whole = pickle.dumps({"a": [1, 2, Plain(3)], "b": numpy.float64(1)})
    for length in range(len(whole)):
        with pytest.raises(DamagedFile):
            read(whole[:length])
