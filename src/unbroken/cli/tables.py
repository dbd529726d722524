"""What commands print: tables that line up, also with Chinese in them, and JSON; whatever is in a name is harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from unbroken.text import LONGEST_SHOWN, shown, width_of

LONGEST_LINE = 4000  # a command, a folder and what a run began from may be long
MOST_ROWS = 400
IN_JSON = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as aligned columns, two spaces apart."""
    return aligned(list(zip(*rows)))


def aligned(parts: Sequence[Sequence[str]]) -> str:
    """The same from the columns; the first of each is its head."""
    return "\n".join(map(str.rstrip, map("  ".join, zip(*map(_fitted, parts)))))


def step_text(step: int | None) -> str:
    """A step, or `?` where it is not known."""
    return str(step) if step is not None and step >= 0 else "?"


def as_json_text(value: Any) -> str:
    """Data as one JSON document; what a terminal would act on is escaped, as JSON can."""
    text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
    return text if text.isascii() and "\x7f" not in text else IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _fitted(cells: Sequence[str]) -> list[str]:
    """The cells of one column, shown and filled up to one width; most columns are plain, and there are long ones."""
    whole = "".join(cells)
    if not (whole.isascii() and whole.isprintable()) or max(map(len, cells)) > LONGEST_SHOWN:
        cells = [shown(cell) for cell in cells]
    if whole.isascii():
        width = max(map(len, cells))
        return [cell.ljust(width) for cell in cells]
    widths = [width_of(cell) for cell in cells]
    most = max(widths)
    return [cell + " " * (most - width) for cell, width in zip(cells, widths)]
