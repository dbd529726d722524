"""Text with holes: `{{ fileDirname }}`, `{{$NAME:default}}`, `{{ _base_.a.b }}` and f-strings."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unbroken.config.nearest import suggestion
from unbroken.config.python_scope import Scope

_HOLE = re.compile(r"\{\{\s*(_base_(?:\.\w+)+|\w+)\s*\}\}")
# Possessive (`*+`), so that no text can make it try the same blanks again and again.
_FROM_ENVIRONMENT = re.compile(r"""\{\{\s*+(["']?)\s*+\$\s*+(\w++)\s*+(:[^{}\n]*+|["']?)\s*+\}\}""")
_FORMAT = re.compile(r"[<>=^]?[-+ ]?0?\d{0,2}(\.\d{1,2})?[bdeEfFgGoxXs%]?")  # no room for a width that fills memory


def words_of_file(path: Path) -> dict[str, str]:
    """Return the predefined words of a config file, as MMEngine has them."""
    return {
        "fileDirname": str(path.absolute().parent),
        "fileBasename": path.name,
        "fileBasenameNoExtension": path.stem,
        "fileExtname": path.suffix,
    }


def take_environment(text: str, environment: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Replace every `{{$NAME:default}}` by a word that is valid both in a string and as an expression.

    Returns the new text, whose lines are those of the old one, and the words with their values; a word whose
    value is None was neither set nor given a default.
    """
    words: dict[str, Any] = {}

    def word(found: re.Match[str]) -> str:
        quote, rest = found[1], found[3].strip()
        if not rest.endswith(quote) or (not quote and rest in ('"', "'")):
            return found[0]
        default = rest[1 : len(rest) - len(quote)].strip() if rest.startswith(":") else None
        name = f"_env_{len(words)}_{found[2]}"
        words[name] = environment.get(found[2], default)
        return f"{{{{{name}}}}}"

    return _FROM_ENVIRONMENT.sub(word, text), words


def word_between_braces(node: ast.AST, name: str, scope: Scope) -> Any:
    """Return the value of a word that stands as an expression: a number or a literal if it reads like one."""
    text = _word(node, name, scope)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def filled(text: str, scope: Scope) -> Any:
    """Fill the holes of a string; one that is nothing but `{{ _base_.a }}` becomes that value itself."""
    whole = _HOLE.fullmatch(text.strip())
    if whole and whole[1].startswith("_base_."):
        return _from_base(whole[1], scope)
    return _HOLE.sub(lambda hole: str(_hole(hole, scope)), text)


def formatted(value: Any, conversion: int, spec: ast.expr | None, scope: Scope) -> str:
    """Return one `{...}` of an f-string."""
    conversions: dict[int, Callable[[Any], str]] = {ord("r"): repr, ord("s"): str, ord("a"): ascii}
    value = conversions[conversion](value) if conversion in conversions else value
    match spec:
        case None:
            return format(value)
        case ast.JoinedStr(values=[ast.Constant(value=str() as text)]) if _FORMAT.fullmatch(text):
            return format(value, text)
        case _:
            raise scope.refuse(spec, "this format is not known", do="Use one like `:04d` or `:.3f`.")


def _hole(hole: re.Match[str], scope: Scope) -> Any:
    if hole[1].startswith("_base_."):
        return _from_base(hole[1], scope)
    return _word(None, hole[1], scope) if hole[1] in scope.words else hole[0]


def _word(node: ast.AST | None, name: str, scope: Scope) -> str:
    if name not in scope.words:
        raise scope.refuse(node or ast.AST(), f"`{name}` between braces is not known", do=suggestion(name, scope.words))
    value = scope.words[name]
    if value is None:
        variable = name.split("_", 3)[-1]
        raise ValueError(f"the environment variable {variable} is not set; write {{{{${variable}:default}}}}")
    return str(value)


def _from_base(key: str, scope: Scope) -> Any:
    value: Any = scope.base
    for part in key.split(".")[1:]:
        if not isinstance(value, Mapping) or part not in value:
            known = value if isinstance(value, Mapping) else ()
            raise LookupError(f"the base has no `{key.removeprefix('_base_.')}`. {suggestion(part, known)}".strip())
        value = value[part]
    return value
