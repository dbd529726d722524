"""Text of strangers on a page: names, tags and settings may hold anything, and are only ever shown."""

from __future__ import annotations

import html
import json
from typing import Any

from unbroken.text import shown

MOST = 300  # characters of one name or setting


def escaped(text: str, most: int = MOST) -> str:
    """The text for HTML, in an element or in a quoted attribute."""
    return html.escape(shown(text, most, tail=most // 4), quote=True)


def for_plot(text: str) -> str:
    """The text for a plot, whose library reads a few HTML elements and entities in names."""
    return html.escape(shown(text, 60, tail=15), quote=False)


def as_script(data: Any) -> str:
    """Data as JSON inside a `<script>` element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
