"""What an expression of a Python config can see, and how it is refused."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.config.config_file import Place
from unbroken.config.meter import Meter
from unbroken.errors import ConfigError

ALLOWED = (
    "A config is read, not run. It may contain literals, dict(...), lists, arithmetic, comparisons, "
    "comprehensions, names assigned above, `_base_.key`, and len, min, max, int, float, str, bool, range, "
    "sum, round, abs, sorted."
)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The names known at this point of a file, its merged bases, and what may stand between `{{ }}`."""

    path: Path
    names: dict[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] | None = None
    words: Mapping[str, Any] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)

    def place(self, node: ast.AST) -> Place:
        """Where a piece of syntax stands."""
        return Place(self.path, getattr(node, "lineno", 0))

    def refuse(self, node: ast.AST, what: str, *, do: str = ALLOWED) -> ConfigError:
        """Make the error for a piece of syntax that a config may not contain."""
        return ConfigError(self.place(node), what, do=do)
