"""The nearest known name, for a name that is not known; the configs that there are, for one that is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from unbroken.config.difference import value_at

SUFFIXES = (".py", ".yaml", ".yml")  # ends of the names of configs
MOST_KNOWN = 1000  # names that a wrong one is compared with
LONGEST = 100  # characters of a name that are looked at: the comparison takes their square


def nearest(name: str, known: Iterable[object]) -> str:
    """Return the known name most like this one, whatever its capitals; empty when none is close.

    Args:
        name: What was typed.
        known: What it could be.
    Example:
        >>> from unbroken.config import nearest
        >>> nearest("learning_rat", ["width", "learning_rate"])
        'learning_rate'
    """
    from difflib import get_close_matches

    short = [word for word in map(str, islice(known, MOST_KNOWN)) if len(word) <= LONGEST]
    by_lower = {word.lower(): word for word in short}
    close = get_close_matches(name[:LONGEST].lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else ""


def suggestion(name: str, known: Iterable[object]) -> str:
    """Say which known name was probably meant, or which names there are."""
    names = [str(word) for word in islice(known, MOST_KNOWN)]
    close = nearest(name, names)
    if close:
        return f"Did you mean `{close}`?"
    if not names:
        return ""
    shown = ", ".join(name[:LONGEST] for name in names[:12]) + (", ..." if len(names) > 12 else "")
    return f"Known here: {shown}."


def other_parts(tree: Mapping[str, Any], built: Mapping[str, Sequence[str]], *, likeness: float) -> dict[str, str]:
    """Return the names in a config of another program that are none of those built here, by key.

    Args:
        tree: The config.
        built: What is built here, by dotted key.
        likeness: 0 to 1: a name as alike as this to one that is built may be misspelt, and is left out.
    """
    from difflib import get_close_matches

    names = {key: value_at(tree, key) for key in built}
    return {
        key: name
        for key, name in names.items()
        if isinstance(name, str) and not get_close_matches(name, built[key], n=1, cutoff=likeness)
    }


def configs_near(path: Path, *, besides: str = "") -> str:
    """Say which config was probably meant by a path where there is none, or which there are `besides` one."""
    folder = path.parent
    if not folder.is_dir():
        standing = next(parent for parent in folder.absolute().parents if parent.is_dir())
        return f"There is no folder {folder} either; what exists of it is {standing}."
    names = sorted(item.name for item in folder.iterdir() if item.suffix in SUFFIXES and str(item) != besides)
    close = nearest(path.name, names)
    if close:
        return f"Did you mean {folder / close}?"
    return (
        f"In {folder} there is: {', '.join(names[:12])}."
        if names
        else f"There is no {'other ' if besides else ''}config in {folder.resolve()}."
    )
