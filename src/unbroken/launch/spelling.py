"""How options, commands and counts are spelled: in the words of the front door that the user came through."""

from __future__ import annotations

import re
import shlex
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from unbroken.config import ABSENT, Change, keys_of
from unbroken.errors import UsageError
from unbroken.ids import is_name
from unbroken.launch.job import Job
from unbroken.quantities import counted
from unbroken.run import Candidate
from unbroken.text import as_bytes

MOST_UNDONE = 3  # changes that a sentence names
LONGEST = 60  # of a name that is made here
LONGEST_TYPED = 100
TELLS_NOTHING = re.compile(
    r"(?:default|test(?:ing)?|tests|new|old|tmp|temp|exp|experiment|run|try|train(?:ing)?|debug|foo|bar|baz|asdf|a|b|c|x|\d+"
    r"|测试|新|实验|训练|默认)[-_ ]?\d*",
    re.IGNORECASE,
)


def option(job: Job, name: str, value: str = "") -> str:
    """An option as it is typed at this front door: a flag, or an argument of `open_run` in the user's own script."""
    if job.is_script:
        written = "True" if name == "fresh" else f'"{value}"' if value else "..."
        return f"open_run(..., {name}={f'[{written}]' if name == 'search' else written})"
    return f"--{job.flags.get(name, name)} {value}".rstrip()


def continue_there(job: Job, run: Path) -> str:
    """How to go on with a run that lies in another folder: in its place, or with a copy of it here."""
    copied = f"with a copy of it here: {option(job, 'search', str(run))}"
    if job.is_script:
        return f'to go on with it: open_run("{run.parent}", ...), or {copied}'
    if "directory" not in job.flags:
        return f"to go on {copied}"
    return f"to go on with it: {option(job, 'directory', str(run))}, or {copied}"


def again_with(job: Job, name: str) -> str:
    """The whole command with one more flag; a script has to be edited."""
    return option(job, name) if job.is_script else f"{job.command} {option(job, name)}".strip()


def start_over_words(job: Job) -> str:
    """How to start over, and what becomes of what is here."""
    return f"start over: {again_with(job, 'fresh')}  (what is here moves into archive/, nothing is deleted)"


def fine_tune_words(job: Job, source: Candidate | None = None, *, tag: str = "") -> str:
    """How to begin a new run with the weights of a file."""
    tag, file = tag or f"{job.tag}_finetune", str(source.path) if source else "FILE"
    if job.is_script:
        return f'open_run(..., tag="{tag}", pretrained_model="{file}")'
    return f"{option(job, 'tag', tag)} {option(job, 'pretrained_model', file)}"


def from_nothing_words(job: Job, tag: str) -> str:
    """How to train from nothing under another tag, also where the config names a file to go on from."""
    fresh = f" {option(job, 'fresh')}" if job.start.origin is not None else ""
    return f"{option(job, 'tag', tag)}{fresh}"


def pattern(job: Job) -> str:
    """The names of full checkpoints, as a shell pattern."""
    return job.layout.checkpoint_name.format(step="*", epoch="*")


def undo(job: Job, changes: Sequence[Change]) -> str:
    """How to take changes back: in the config, or on the command line."""
    shown = changes[:MOST_UNDONE]
    words = [f"remove {item.key}" if item.old is ABSENT else f"{item.key}={item.old}" for item in shown]
    in_config = ", ".join(words) + (" ..." if len(changes) > len(shown) else "")
    if not job.override or any(item.old is ABSENT for item in changes):
        return in_config
    flag, _, pair = job.override.partition(" ")
    pairs = [pair.format(key=item.key, value=shlex.quote(str(item.old))) for item in changes]
    return f"{in_config} in the config, or: {flag} {' '.join(pairs)}"


def length(job: Job) -> str:
    """How long a training was asked for, in its own measure."""
    if job.epochs is not None:
        return counted(job.epochs, "epoch")
    return counted(job.total_steps or 0, "step")


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
    text = "_".join(["baseline", *traits])
    return (text if len(text) <= LONGEST else text[:LONGEST].rstrip("_.-")) + (f"_{today}" if today else "")


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
