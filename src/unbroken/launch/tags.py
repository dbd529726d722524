"""Names of experiments: telling ones made from what changed, and names that tell nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from unbroken.config import ABSENT, Change

LONGEST = 60
TELLS_NOTHING = re.compile(
    r"(?:default|test(?:ing)?|tests|new|old|tmp|temp|exp|experiment|run|try|train(?:ing)?|debug|foo|bar|baz|asdf|a|b|c|x|\d+"
    r"|测试|新|实验|训练|默认)[-_ ]?\d*",
    re.IGNORECASE,
)


def tells_nothing(tag: str) -> bool:
    """Whether a tag is one that everybody uses for everything."""
    return TELLS_NOTHING.fullmatch(tag) is not None


def tag_for_changes(tag: str, changes: Sequence[Change], short_names: Mapping[str, str]) -> str:
    """The tag with what changed behind it: `baseline_d96_nhead6`."""
    words = dict.fromkeys(trait(change.key, change.new, short_names) for change in changes)
    return _cut("_".join([tag, *words]))


def telling_tag(traits: Sequence[str], today: str) -> str:
    """A tag that says in a month what this was: `baseline_bs2_lr0.0005_20260205`."""
    return _cut("_".join(["baseline", *traits])) + (f"_{today}" if today else "")


def trait(key: str, value: Any, short_names: Mapping[str, str]) -> str:
    """One setting as part of a name: `bs2`, `d96`; by the application's short name, else by the end of its key."""
    name = short_names.get(key, f"{_end_of(key)}_")
    text = "none" if value is ABSENT or value is None else _text(value)
    return re.sub(r"[^\w.-]+", "_", f"{name}{text}").strip("_.")


def _end_of(key: str) -> str:
    """The last word of a key: positions in a list tell nothing."""
    words = [word for word in key.split(".") if not word.isdecimal()]
    return (words or [key])[-1].lower()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "_".join(_text(item) for item in value)
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip("_.-")
