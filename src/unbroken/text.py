"""Text: how it is shown at a terminal, how what has no UTF-8 is written, how a file that a person wrote is read.

What a record, a file or a name holds may come from a stranger, and must not steer the terminal of who looks at it.

What cannot be encoded is escaped. The name of a file may be any bytes; Python holds those that are no text as halves
of characters. Written to JSON such a half stands as its escape and is read back as it was; at a terminal and in a log
the same escape is what one sees.
"""

from __future__ import annotations

import codecs
import re

DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣－", "-"))  # what keyboards and web pages make of "-"
DASH_OF_TWO = re.compile("[–—]{1,2}(?=[^-])")  # "--" as text programs replace it
QUOTES = "\"'`“”‘’«»「」『』＂＇"

ESCAPED = "backslashreplace"  # `errors=` wherever such text is encoded

# Categories that a terminal would act on, or that hide what stands there: control, format (which turns the direction
# of writing around), halves of characters, unassigned and private ones, line and paragraph separators.
UNSEEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
NARROW = {"Mn", "Me"}  # marks on the letter before
LONGEST_SHOWN = 500
REPLACED = "\N{REPLACEMENT CHARACTER}"


def shown(text: object, most: int = LONGEST_SHOWN, *, tail: int = 0) -> str:
    """Any text on one line: what a terminal would act on is escaped visibly, and what is too long is shortened."""
    text = shortened(str(text), most, tail=tail)
    if text.isascii() and text.isprintable():
        return text
    from unicodedata import category  # most that is shown is plain, and does without

    return "".join(char.encode("unicode_escape").decode("ascii") if category(char) in UNSEEN else char for char in text)


def printable(text: object) -> str:
    """The same, with one mark for each character that is not seen, so that the text gets no longer."""
    text = str(text)
    if text.isprintable():
        return text
    from unicodedata import category

    return "".join(REPLACED if category(char) in UNSEEN else char for char in text)


def shortened(text: str, most: int, *, tail: int = 0) -> str:
    """The text; of one that is too long, its beginning and the last `tail` characters around an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def width_of(text: str) -> int:
    """Columns at a terminal: East Asian wide characters take two, marks on the letter before none."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(2 if east_asian_width(char) in "WF" else 0 if category(char) in NARROW else 1 for char in text)


def as_bytes(text: str) -> bytes:
    """Any text as UTF-8."""
    return text.encode("utf-8", ESCAPED)


def encodable(text: str, encoding: str | None) -> str:
    """The same text, where it can be written in an encoding; what has no place in that is escaped."""
    try:
        return text.encode(encoding or "utf-8", ESCAPED).decode(encoding or "utf-8")
    except LookupError:  # an encoding that nobody knows
        return text.encode("ascii", ESCAPED).decode("ascii")


# The marks that say which encoding follows; the longer ones first, which begin like the shorter ones.
BOMS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# what a message says is expected where `text_of` fails
NOT_TEXT = "text in UTF-8, or in UTF-16 as PowerShell writes it"
END_OF_DOS = "\x1a"  # what `copy con` and `copy a+b` leave at the end


def encoding_of(data: bytes) -> tuple[bytes, str]:
    """The mark that a text begins with, and the encoding of what follows; UTF-8 where nothing says otherwise."""
    mark = next((mark for mark in BOMS if data.startswith(mark)), b"")
    if mark:
        return mark, BOMS[mark]
    # No text has a NUL; half of the bytes of plain letters in UTF-16 are one, also where the mark was lost.
    if len(data) > 1 and 0 in data[:2]:
        return b"", "utf-16-le" if data[1] == 0 else "utf-16-be"
    return b"", "utf-8"


def text_of(data: bytes) -> str:
    """Return the text of a file, in whichever encoding Windows or Linux wrote it.

    Args:
        data: Its bytes: UTF-8, or UTF-16 and UTF-32 as their marks or NULs tell.
    Raises:
        UnicodeDecodeError: It is no text.
    Example:
        >>> from unbroken import text_of
        >>> text_of("道路".encode("utf-16"))
        '道路'
    """
    mark, encoding = encoding_of(data)
    return data[len(mark) :].decode(encoding).rstrip(END_OF_DOS)


def plain(text: str) -> str:
    """A word as it is typed on an ASCII keyboard: without the dashes, quotes and wide letters of text programs."""
    from unicodedata import normalize

    found = DASH_OF_TWO.sub("--", text) if text[:1] in "–—" else text
    return normalize("NFKC", found.translate(DASHES)).strip(QUOTES)
