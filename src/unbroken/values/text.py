"""The one rule for text that a file system or a record gave and that has no UTF-8: what cannot be encoded is escaped.

The name of a file may be any bytes; Python holds those that are no text as halves of characters. Written to JSON such
a half stands as its escape and is read back as it was; at a terminal and in a log the same escape is what one sees.
"""

from __future__ import annotations

ESCAPED = "backslashreplace"  # `errors=` wherever such text is encoded


def as_bytes(text: str) -> bytes:
    """Any text as UTF-8."""
    return text.encode("utf-8", ESCAPED)


def encodable(text: str, encoding: str | None) -> str:
    """The same text, where it can be written in an encoding; what has no place in that is escaped."""
    try:
        return text.encode(encoding or "utf-8", ESCAPED).decode(encoding or "utf-8")
    except LookupError:  # an encoding that nobody knows
        return text.encode("ascii", ESCAPED).decode("ascii")
