"""Names of experiments: telling ones made from what changed, and names that tell nothing."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from unbroken.config import ABSENT, Change, keys_of
from unbroken.errors import UsageError
from unbroken.ids import is_name
from unbroken.launch.job import Job
from unbroken.text import as_bytes

LONGEST = 60  # of a name that is made here
LONGEST_TYPED = 100
TELLS_NOTHING = re.compile(
    r"(?:default|test(?:ing)?|tests|new|old|tmp|temp|exp|experiment|run|try|train(?:ing)?|debug|foo|bar|baz|asdf|a|b|c|x|\d+"
    r"|测试|新|实验|训练|默认)[-_ ]?\d*",
    re.IGNORECASE,
)


def require_tag(where: object, tag: object) -> str:
    """The tag itself, where it is the name of one folder on every system and one line of text; else UsageError."""
    if isinstance(tag, str) and is_name(tag) and len(tag) <= LONGEST_TYPED and tag.splitlines() == [tag]:
        return tag
    raise UsageError(
        where,
        "this cannot be the name of an experiment",
        expected=f"the name of one folder (letters, digits, - _ . and the like, at most {LONGEST_TYPED})",
        found=ascii(tag)[:60] if isinstance(tag, str) else type(tag).__name__,
        do="A folder above it belongs to the root, not to the name." if isinstance(tag, str) and "/" in tag else "",
    )


def tells_nothing(tag: str) -> bool:
    """Whether a tag is one that everybody uses for everything."""
    return TELLS_NOTHING.fullmatch(tag) is not None


def tag_for_changes(job: Job, changes: Sequence[Change], taken: Collection[str] = ()) -> str:
    """The tag with what changed behind it, `baseline_d96_nhead6`: a name that is not `taken` by another run.

    Where that is too long, the changes are kept and told apart by a few letters that stand for all of them.
    """
    ends = Counter(_end_of(key) for key in keys_of(job.config))
    words = dict.fromkeys(trait(c.key, c.new, job.short_names, ends=ends) for c in changes)
    added = "_".join(words)
    if len(added) > LONGEST // 2:
        added = f"{added[: LONGEST // 2 - 9].rstrip('_.-')}_{zlib.crc32(as_bytes(added)):08x}"
    room = LONGEST - len(added) - 1
    wanted = f"{job.tag[:room].rstrip('_.-')}_{added}"
    names = (wanted, *(f"{wanted}_{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken and name != job.tag)


def telling_tag(traits: Sequence[str], today: str) -> str:
    """A tag that says in a month what this was: `baseline_bs2_lr0.0005_20260205`."""
    return _cut("_".join(["baseline", *traits])) + (f"_{today}" if today else "")


def trait(key: str, value: Any, short_names: Mapping[str, str], *, ends: Mapping[str, int]) -> str:
    """One setting as part of a name: `bs2`, `d96`; by the application's short name, else by the end of its key.

    `ends` counts the keys that end in the same word: then the word before it is needed too.
    """
    name = short_names.get(key, f"{_end_of(key, words=1 if ends.get(_end_of(key), 0) < 2 else 2)}_")
    text = "none" if value is ABSENT or value is None else _text(value)
    return re.sub(r"[^\w.-]+", "_", f"{name}{text}").strip("_.")


def _end_of(key: str, *, words: int = 1) -> str:
    """The last words of a key: positions in a list tell nothing."""
    telling = [word for word in key.split(".") if not word.isdecimal()] or [key]
    return "_".join(telling[-words:]).lower()


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
