"""By which parts a config is of another program's network or training, which is not built here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from unbroken.config.difference import value_at


def other_parts(tree: Mapping[str, Any], built: Mapping[str, Sequence[str]], *, likeness: float) -> dict[str, str]:
    """The names, by key, that are none of those built there; one as alike as `likeness` (0 to 1) may be misspelt."""
    names = {key: value_at(tree, key) for key in built}
    return {
        key: name
        for key, name in names.items()
        if isinstance(name, str) and not get_close_matches(name, built[key], n=1, cutoff=likeness)
    }
