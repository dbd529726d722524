"""Text of strangers on a page: names, tags and settings may hold anything, and are only ever shown."""

from __future__ import annotations

import html
import json
import re
from typing import Any

MOST = 300  # characters of one name or setting
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")


def plain(text: str, most: int = MOST) -> str:
    """The text with what cannot be seen, or would turn other text around, made visible; shortened."""
    if len(text) > most:
        text = f"{text[: most * 2 // 3]}…{text[-most // 4 :]}"
    return UNSEEN.sub(lambda found: _visible(found[0]), text)


def escaped(text: str, most: int = MOST) -> str:
    """The text for HTML, in an element or in a quoted attribute."""
    return html.escape(plain(text, most), quote=True)


def for_plot(text: str) -> str:
    """The text for a plot, whose library reads a few HTML elements and entities in names."""
    return html.escape(plain(text, 60), quote=False)


def as_script(data: Any) -> str:
    """Data as JSON inside a `<script>` element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _visible(char: str) -> str:
    code = ord(char)
    if char in "\n\t":
        return "⏎" if char == "\n" else " "
    return chr(0x2400 + code) if code < 0x20 else f"⟨{code:04X}⟩"
