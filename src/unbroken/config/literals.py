"""Values as people type them on a command line."""

from __future__ import annotations

import ast
from typing import Any

_WORDS = {"none": None, "true": True, "false": False}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def literal(text: str) -> Any:
    """Return the Python literal that a text is, or the text itself."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return text if isinstance(value, bytes | complex | set) or value is ... else value


def option_value(text: str) -> Any:
    """Return the value of a `--cfg-options` entry: a literal, `[a,b]`, `(a,b)` or `a,b`, quotes optional."""
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    value = literal(text)
    if value is not text and not (isinstance(value, tuple) and not text.startswith("(")):
        return value
    parts = _split(text)
    if len(parts) > 1:
        return [option_value(part) for part in parts]  # `a,b` is a list, as in MMEngine
    if text[:1] in ("[", "(") and text.endswith(_CLOSING[text[0]]):
        items = [option_value(part) for part in _split(text[1:-1]) if part]
        return items if text[0] == "[" else tuple(items)
    return text


def _split(text: str) -> list[str]:
    """Split at the commas that are inside no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in _CLOSING) - (letter in _CLOSING.values())
        if letter == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
