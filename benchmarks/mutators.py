"""Seeded ways to spoil a file: its bytes, and the structure of JSON, text, zip and pickle.

Each takes the sound content and a `random.Random` and returns another content; the same seed gives the same bytes.
"""

from __future__ import annotations

import copy
import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

ODD_BYTES = (
    b"\x00",
    b"\xff",
    b"\n",
    b'"',
    b"{",
    b"[",
    b"]",
    b"-",
    b"0",
    b"\x80",
    b"\\",
    b"\xed\xa0\x80",
    b"\r",
    b"\x1b[2J",
)
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**400, 1.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x", "\x00", "\ud800", "../../x", "/dev/zero", "C:\\x", "9" * 500, "x" * 5000, "\x1b[31m",
    [], [[]], [None], ["x", 1], {}, {"x": {}}, {"": 0}, {"__unbroken__": "tuple"}, "NaN", "1e999", "20261101_080001",
)  # fmt: skip
YAML_WORDS = (
    "&a ", "*a", "<<: *a\n", "!!int ", "!!float ''", "!!binary ", "!!set ", "? ", "- ", "[", "{", "]", "}", ": ",
    "| \n", "> \n", "'", '"', "%YAML 1.1\n", "---\n", "...\n", "#", "\t", "1" + ":1" * 500, "9" * 500, "0x", ".inf",
    "~", "yes", "2001-01-01", "_BASE_CONFIG_: own.yaml\n", "\u2028", "\x07", "a: &b [*b]\n", "x" * 3000,
)  # fmt: skip
PYTHON_WORDS = (
    "_base_ = 'own.py'\n", "_base_.x", "{{ $A:1 }}", "{{fileDirname}}", "**dict(a=1)", "* 10**9", "** 10**9",
    "[0] * 99999", "range(10**9)", "(", ")", "[", "]", "{", "}", "lambda: 0", "-" * 99, "not " * 99, "'", '"', "'''",
    "f'{1:99.99f}'", "[a for a in range(9) for b in range(9)]", "\\", "\x00", "if", "del ", " += ", " = ", "\n",
    "0" * 99, "1e999", "1_0", "_delete_=True", "a = []\na.append(a)\n", "str(", "sorted(", "None", "...", "1j", "b''",
    "@", ":=", "await x", "*", "#", "x" * 3000, "\u00b2",
)  # fmt: skip


# -- any bytes -------------------------------------------------------------------------------------------------------


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    """A few bits are the other way round."""
    spoiled = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        if spoiled:
            spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
    return bytes(spoiled)


def cut_off(data: bytes, chance: random.Random) -> bytes:
    """Only the beginning, or all but the beginning, is there."""
    at = chance.randrange(len(data) + 1)
    return data[:at] if chance.random() < 0.8 else data[at:]


def splice(data: bytes, chance: random.Random) -> bytes:
    """A range is doubled, left out, moved, made zero, or replaced by odd bytes."""
    first, last = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    last = min(last, first + chance.choice((1, 4, 16, 64, 4096)))
    inside = data[first:last]
    at = chance.randrange(len(data) + 1)
    match chance.randrange(5):
        case 0:
            return data[:last] + inside * chance.choice((1, 2, 50)) + data[last:]
        case 1:
            return data[:first] + data[last:]
        case 2:
            rest = data[:first] + data[last:]
            return rest[:at] + inside + rest[at:]
        case 3:
            return data[:first] + bytes(len(inside)) + data[last:]
    return data[:first] + chance.choice(ODD_BYTES) * chance.choice((1, 1, 3, 2000)) + data[last:]


def numbers(data: bytes, chance: random.Random) -> bytes:
    """Eight, four or two bytes in a row are an odd number: a length, an offset, a count."""
    code = chance.choice(("<Q", "<I", "<H", ">Q", ">I", ">H"))
    size = struct.calcsize(code)
    if len(data) < size:
        return data
    at, most = chance.randrange(len(data) - size + 1), 256**size
    number = chance.choice((0, 1, most - 1, most // 2, most // 2 - 1, 2**20, 2**31, 2**34, len(data), len(data) - 1))
    return data[:at] + struct.pack(code, number % most) + data[at + size :]


BYTES: tuple[Mutator, ...] = (flip_bits, cut_off, splice, numbers)


# -- trees: JSON, and what a checkpoint holds ------------------------------------------------------------------------


def spoiled_tree(tree: Any, chance: random.Random, odd: tuple[Any, ...] = ODD_VALUES) -> Any:
    """The tree with a few of its values, keys or branches changed."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        holders = list(_holders(tree))
        if not holders:
            return _one_of(odd, chance)
        holder = chance.choice(holders)
        key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
        match chance.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice((f"{key}x", "", "x", 5, "step", "__unbroken__"))] = holder.pop(key)
            case 2:
                other = chance.choice(holders)
                taken = chance.choice(list(other.values()) if isinstance(other, dict) else other) if other else None
                holder[key] = copy.deepcopy(taken)
            case 3:
                value: Any = _one_of(odd, chance)
                for _ in range(chance.choice((1, 5, 70, 300))):
                    value = [value] if chance.random() < 0.5 else {"x": value}
                holder[key] = value
            case 4 if isinstance(holder, list) and len(holder) < 1000:
                holder[:] = holder * chance.choice((2, 3, 20))
            case _:
                holder[key] = _one_of(odd, chance)
    return tree


def _one_of(odd: tuple[Any, ...], chance: random.Random) -> Any:
    """A copy: what is in the tree is spoiled as well, and would come to hold itself."""
    return copy.deepcopy(chance.choice(odd))


def _holders(tree: Any) -> Any:
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, dict | list) and node:
            yield node
            todo.extend(node.values() if isinstance(node, dict) else node)


def _as_json(value: Any) -> bytes:
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # nested deeper than can be written
        return b"[" * 3000 + b"]" * 3000


def json_file(data: bytes, chance: random.Random) -> bytes:
    """A JSON file with its tree spoiled."""
    return _as_json(spoiled_tree(json.loads(data), chance))


def json_lines(data: bytes, chance: random.Random) -> bytes:
    """A file of JSON lines: lines spoiled, doubled, swapped, left out, joined."""
    lines = data.split(b"\n")
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(lines))
        match chance.randrange(7):
            case 0:
                lines.insert(at, chance.choice(lines))
            case 1:
                del lines[at]
                lines = lines or [b""]
            case 2:
                other = chance.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at] = flip_bits(lines[at], chance)
            case 4:
                lines[at] = b"[" * chance.choice((50, 5000)) if chance.random() < 0.5 else lines[at] * 2
            case _ if lines[at].strip():
                try:
                    lines[at] = _as_json(spoiled_tree(json.loads(lines[at]), chance))
                except (ValueError, RecursionError):
                    lines[at] = b"null"
    return b"\n".join(lines)


# -- text ------------------------------------------------------------------------------------------------------------


def text_with(words: tuple[str, ...]) -> Mutator:
    """Text with words of its language put in, lines moved, numbers changed."""

    def mutate(data: bytes, chance: random.Random) -> bytes:
        text = data.decode()
        for _ in range(chance.choice((1, 1, 2, 4))):
            lines = text.split("\n")
            at = chance.randrange(len(lines))
            match chance.randrange(6):
                case 0:
                    place = chance.randrange(len(text) + 1)
                    text = text[:place] + chance.choice(words) + text[place:]
                    continue
                case 1:
                    lines.insert(chance.randrange(len(lines)), lines[at])
                case 2:
                    del lines[at]
                case 3:
                    lines[at] = " " * chance.randrange(9) + lines[at].strip()
                case 4:
                    lines[at] = lines[at] + chance.choice(words)
                case _:
                    parts = lines[at].split(" ")
                    parts[chance.randrange(len(parts))] = chance.choice(
                        (*words, "0", "-1", str(2**70), "1e400", "[]", "x")
                    )
                    lines[at] = " ".join(parts)
            text = "\n".join(lines)
        return text.encode("utf-8", "surrogatepass")

    return mutate


# -- zip and pickle --------------------------------------------------------------------------------------------------


def zip_fields(data: bytes, chance: random.Random) -> bytes:
    """A field of the zip's directory, of its end or of an entry's header is odd."""
    signature = chance.choice(
        (b"PK\x01\x02", b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04", b"PK\x06\x06", b"PK\x06\x07")
    )
    places = [at for at in range(len(data) - 4) if data.startswith(signature, at)] if len(data) < 1 << 20 else []
    if not places:
        return numbers(data, chance)
    at = chance.choice(places) + 4 + 2 * chance.randrange(21)
    size = chance.choice((2, 4))
    number = chance.choice((0, 1, 8, 9, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, len(data), chance.randrange(2**32)))
    return data[:at] + (number % 256**size).to_bytes(size, "little") + data[at + size :]


def in_zip(inner: Mutator, suffix: str) -> Mutator:
    """Another content of an entry, in a zip that is sound otherwise; now and then compressed, or with more entries."""

    def mutate(data: bytes, chance: random.Random) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
            for info in old.infolist():
                content = old.read(info)
                if info.filename.endswith(suffix):
                    content = inner(content, chance)
                packed = chance.random() < 0.05
                new.writestr(info.filename, content, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
        return made.getvalue()

    return mutate


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
ODD_OPCODES = (
    b"N", b"]", b"}", b")", b"(", b"t", b"0", b"2", b"\x85", b"\x86", b"\x87", b"R", b"b", b"Q", b"s", b"u", b"a",
    b"e", b"K\x00", b"J\xff\xff\xff\xff", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8a\xff" + b"\x7f" * 255,
    b"X\x01\x00\x00\x00x", b"G\x7f\xf8" + b"\0" * 6, b"h\x00", b"q\x00", b"cos\nsystem\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"cbuiltins\nset\n", b"B\xff\xff\xff\x7f", b"C\x01x",
)  # fmt: skip


def pickle_opcodes(data: bytes, chance: random.Random) -> bytes:
    """Opcodes of a pickle are replaced, doubled, left out or put in; their arguments are odd."""
    try:
        places = [place for _, _, place in pickletools.genops(data) if place is not None]
    except Exception:  # noqa: BLE001 - spoiled already
        return flip_bits(data, chance)
    places.append(len(data))
    for _ in range(chance.choice((1, 1, 2, 4))):
        number = chance.randrange(len(places) - 1)
        first, last = places[number], places[number + 1]
        match chance.randrange(5):
            case 0:
                data = data[:first] + data[first:last] * 2 + data[last:]
            case 1:
                data = data[:first] + data[last:]
            case 2:
                data = data[:first] + chance.choice(OPCODES) + data[first + 1 :]
            case 3:
                data = data[:first] + chance.choice(ODD_OPCODES) + data[first:]
            case _:
                return data[: first + 1] + numbers(data[first + 1 : last + 8], chance) + data[last + 8 :]
        if len(places) > 2:
            places = [place for place in places if place <= first] + [len(data)]
        if len(places) < 2:
            break
    return data
