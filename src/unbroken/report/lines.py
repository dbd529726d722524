"""The lines of a record with their numbers, the unreadable ones included: an audit says where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.scanner import make_scanner
from pathlib import Path
from typing import Any

from unbroken.journal.lines import lines_of
from unbroken.storage import each_once, open_ordinary

SCAN = make_scanner(json.JSONDecoder(object_pairs_hook=each_once))  # type: ignore[arg-type]  # of a decoder, says its documentation


def numbered(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Every whole line and its number, None for what is no record; a last line without its end does not count."""
    with open_ordinary(path) as file:
        for number, line in enumerate(lines_of(file), start=1):
            if line.endswith(b"\n"):
                yield number, as_record(line)


def as_record(line: bytes) -> dict[str, Any] | None:
    """One line as a record; None if it is none."""
    try:
        text = line.decode("utf-8")
        record, end = SCAN(text, 0)  # a third faster than `json.loads`, which looks for the encoding and for spaces
        if end != len(text) - 1:
            record = json.loads(text, object_pairs_hook=each_once)
    except (ValueError, RecursionError, StopIteration):
        return None
    return record if isinstance(record, dict) else None
