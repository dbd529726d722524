"""JSON as records hold it: one object a line, every name once, never deeper than any of ours. Text in, data out.

A line counts when it ends with its newline: what a kill cut off is no record. NaN and infinity, which JSON has not,
stand as text that `float()` reads back. Nothing here opens a file: see `journal/file.py` and `storage/ordinary.py`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from unbroken.text import as_bytes

DEEPEST = 100  # of a record: what is deeper than any of ours ends in a stack that is too deep, here or at a reader's
BLOCK_BYTES = 1 << 16
LONGEST_LINE_BYTES = 16 << 20  # a hundred times what a launch with every detail takes
BOM = b"\xef\xbb\xbf"  # an editor may have put it before the first line


def json_line(data: Any) -> bytes:
    """One line of a file of JSON lines."""
    return as_bytes(encoded(data) + "\n")


def finite(value: Any) -> Any:
    """The same data with NaN and infinity, which JSON has not, as text that `float()` reads back."""
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def parsed_line(line: bytes) -> dict[str, Any] | None:
    """One line as a record; None for what is none, and for one that was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        text = line.removeprefix(BOM).decode("utf-8", "surrogatepass").strip(" \t\r\n")
        record, end = _DECODE(text)
        if text.count("[") + text.count("{") > DEEPEST:
            require_shallow(record)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and end == len(text) else None


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file up to the first one that is longer than any record."""
    while line := file.readline(LONGEST_LINE_BYTES + 1):
        if len(line) > LONGEST_LINE_BYTES:
            return
        yield line


def records_backwards(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The record of every whole line, newest first, reading only as much of the end as is asked for."""
    position, tail = _end_of_last_line(file), b""
    while position > 0:
        size = min(BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        tail, *rest = (file.read(size) + tail).split(b"\n")
        if len(tail) > LONGEST_LINE_BYTES:
            return
        yield from (record for line in reversed(rest) if (record := parsed_line(line + b"\n")) is not None)
    if (record := parsed_line(tail + b"\n")) is not None:
        yield record


def _end_of_last_line(file: BinaryIO) -> int:
    """Where the last whole line ends: what comes after it was cut off."""
    position = file.seek(0, os.SEEK_END)
    first = max(position - LONGEST_LINE_BYTES, 0)
    while position > first:
        size = min(BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        if (found := file.read(size).rfind(b"\n")) >= 0:
            return position + found + 1
    return 0


def parsed_json(data: bytes) -> Any:
    """JSON text as data; ValueError where it is none, too deep, or gives a name of an object twice."""
    try:
        found = json.loads(data, object_pairs_hook=each_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if data.count(b"[") + data.count(b"{") > DEEPEST:
        require_shallow(found)
    return found


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError for two entries of one name, of which the reader of JSON drops one in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the name {twice[:80]!r} stands there twice")
    return found


# `json.loads` takes twice as long to find out how a line is encoded.
encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DECODE = json.JSONDecoder(object_pairs_hook=each_once).raw_decode


def require_shallow(found: Any) -> None:
    """Raise ValueError for data that is nested deeper than any record is."""
    level = [found]
    for _ in range(DEEPEST):
        level = [item for node in level for item in _items(node) if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError("it is nested too deep")


def _items(node: Any) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
