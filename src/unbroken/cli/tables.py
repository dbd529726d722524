"""What commands print: tables that line up, also with Chinese in them, and JSON."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

UNITS = ("B", "KB", "MB", "GB", "TB")


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as aligned columns, two spaces apart."""
    widths = [max(_width(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def size_text(size_bytes: float) -> str:
    """`1.5 MB`."""
    for unit in UNITS:
        if size_bytes < 1000 or unit == UNITS[-1]:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError


def as_json_text(value: Any) -> str:
    """Data as one JSON document."""
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)


def _width(text: str) -> int:
    """Columns at a terminal: East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
