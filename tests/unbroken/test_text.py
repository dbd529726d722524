"""What strangers wrote is harmless at a terminal, and can still be told apart."""

from __future__ import annotations

import unicodedata

import pytest

from unbroken.text import LONGEST_SHOWN, UNSEEN, printable, shortened, shown, width_of

HOSTILE = {
    "clears the screen": ("a\x1b[2Jb", "a\\x1b[2Jb", "a\ufffd[2Jb"),
    "a second line": ("a\nb\r", "a\\nb\\r", "a\ufffdb\ufffd"),
    "turns the writing around": ("a\u202eb", "a\\u202eb", "a\ufffdb"),
    "half a character": ("\ud800", "\\ud800", "\ufffd"),
    "a control of 8 bits": ("\x9b31m", "\\x9b31m", "\ufffd31m"),
    "a separator of lines": ("a\u2028b", "a\\u2028b", "a\ufffdb"),
    "Chinese with its wide space": ("实验\u3000一", "实验\u3000一", "实验\u3000一"),
}


@pytest.mark.parametrize(("text", "escaped", "marked"), HOSTILE.values(), ids=HOSTILE)
def test_what_a_terminal_would_act_on_is_escaped_or_marked(text: str, escaped: str, marked: str) -> None:
    assert shown(text) == escaped and printable(text) == marked


def test_no_character_that_is_not_seen_comes_through() -> None:
    every = "".join(map(chr, range(0x11_0000)))
    assert {unicodedata.category(char) for char in shown(every, len(every))}.isdisjoint(UNSEEN)
    assert {unicodedata.category(char) for char in printable(every)}.isdisjoint(UNSEEN)


def test_long_text_is_shortened_and_can_keep_its_end() -> None:
    assert len(shown("x" * 100_000)) == LONGEST_SHOWN
    assert shortened("0123456789", 10) == "0123456789"
    assert shortened("0123456789+", 10) == "012345678…"
    assert shortened("0123456789+", 10, tail=3) == "012345…89+"


def test_columns_are_counted_as_a_terminal_does() -> None:
    assert [width_of(text) for text in ("abc", "标签", "e\u0301", "ｗ")] == [3, 4, 1, 2]
