"""What commands print: tables that line up, also with Chinese in them, and JSON; whatever is in a name is harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

UNITS = ("B", "KB", "MB", "GB", "TB")
LONGEST_CELL = 500
# Categories that a terminal would act on, or that hide what stands there: control, format (which turns the direction
# of writing around), halves of characters, unassigned and private ones, line and paragraph separators.
UNSEEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
NARROW = {"Mn", "Me"}
IN_JSON = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as aligned columns, two spaces apart."""
    return aligned(list(zip(*rows)))


def aligned(parts: Sequence[Sequence[str]]) -> str:
    """The same from the columns; the first of each is its head."""
    return "\n".join(map(str.rstrip, map("  ".join, zip(*map(_fitted, parts)))))


def shown(text: object, most: int = LONGEST_CELL) -> str:
    """Any text on one line: what a terminal would act on is escaped visibly, and what is too long is shortened."""
    text = str(text)
    if len(text) > most:
        text = f"{text[: most - 1]}…"
    if text.isascii() and text.isprintable():
        return text
    from unicodedata import category

    return "".join(_escaped(char) if category(char) in UNSEEN else char for char in text)


def size_text(size_bytes: float) -> str:
    """`1.5 MB`."""
    for unit in UNITS:
        if size_bytes < 1000 or unit == UNITS[-1]:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError


def as_json_text(value: Any) -> str:
    """Data as one JSON document; what a terminal would act on is escaped, as JSON can."""
    text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
    return text if text.isascii() and "\x7f" not in text else IN_JSON.sub(_json_escaped, text)


def _fitted(cells: Sequence[str]) -> list[str]:
    """The cells of one column, shown and filled up to one width; most columns are plain, and there are long ones."""
    whole = "".join(cells)
    if not (whole.isascii() and whole.isprintable()) or max(map(len, cells)) > LONGEST_CELL:
        cells = [shown(cell) for cell in cells]
    if whole.isascii():
        width = max(map(len, cells))
        return [cell.ljust(width) for cell in cells]
    widths = [_width(cell) for cell in cells]
    most = max(widths)
    return [cell + " " * (most - width) for cell, width in zip(cells, widths)]


def _width(text: str) -> int:
    """Columns at a terminal: East Asian wide characters take two, marks on the letter before none."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(2 if east_asian_width(char) in "WF" else 0 if category(char) in NARROW else 1 for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def _json_escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
