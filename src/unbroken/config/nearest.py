"""The nearest known name, for a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[object]) -> str:
    """Return the known name most like this one, whatever its capitals; empty when none is close."""
    by_lower = {str(word).lower(): str(word) for word in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else ""


def suggestion(name: str, known: Iterable[object]) -> str:
    """Say which known name was probably meant, or which names there are."""
    names = [str(word) for word in known]
    close = nearest(name, names)
    if close:
        return f"Did you mean `{close}`?"
    if not names:
        return ""
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"Known here: {shown}."
