"""Values from the command line laid into a tree: `--set` for keys that exist, `--cfg-options` for any key."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from unbroken.config.difference import keys_of
from unbroken.config.merge import merge
from unbroken.config.nearest import suggestion
from unbroken.errors import ConfigError
from unbroken.option_parser import EMPTY
from unbroken.text import plain

Tree = dict[str, Any]
_WORDS = {"none": None, "true": True, "false": False}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def set_values(tree: Tree, words: Sequence[str]) -> Tree:
    """Return a config with values set from the command line (`--set`); every key must exist and keeps its type.

    Args:
        tree: The config.
        words: Keys and values in turn.
    Raises:
        ConfigError: There is no such key, or the value is of another type.
    Example:
        >>> from unbroken.config import set_values
        >>> set_values({"model": {"width": 32}}, ["model.width", "64"])
        {'model': {'width': 64}}
    """
    if len(words) % 2:
        odd = next((word for word in words[::2] if "=" in word), words[-1])
        key, _, value = odd.partition("=")
        do = f"Write {key} {value or 'VALUE'}."
        raise ConfigError(f"--set {key}", "keys and values come in pairs", expected="KEY VALUE", found=odd, do=do)
    for key, text in zip(words[::2], words[1::2]):
        where = f"--set {key}"
        tree = _with(tree, key, where, partial(_like, text=text, where=where))
    return tree


def merge_options(tree: Tree, options: Sequence[str]) -> Tree:
    """Return a config with `--cfg-options` laid in, as MMEngine has them; a key may be new, a position in a list not.

    Args:
        tree: The config.
        options: Each is `a.b=1` or `c.0.d=[1,2]`.
    Raises:
        ConfigError: An option has no `=`, or leads into a list beyond its end or below a plain value.
    Example:
        >>> from unbroken.config import merge_options
        >>> merge_options({"model": {"width": 32}}, ["model.depths=2,2"])
        {'model': {'width': 32, 'depths': [2, 2]}}
    """
    for option in options:
        key, equals, text = option.partition("=")
        if not (equals and key.strip()):
            raise ConfigError(f"--cfg-options {option}", "an option is written key=value", do=_written(option, options))
        value = option_value(text)
        where = f"--cfg-options {key.strip()}"
        tree = _with(tree, key.strip(), where, partial(_over, value=value), create=True)
    return tree


def _written(option: str, options: Sequence[str]) -> str:
    """The option as it is written, where it had another sign between key and value, or none."""
    if not option.strip(" ="):
        return EMPTY
    parts = plain(option).replace("=", ":", 1).split(":", 1)
    following = options[list(options).index(option) + 1 :]
    if len(parts) == 1 and following and "=" not in following[0]:
        parts = [*parts, following[0]]
    return f"Write {parts[0].strip()}={parts[1].strip() if len(parts) > 1 else 'VALUE'}."


def _over(old: Any, value: Any) -> Any:
    return merge(old, value, {}) if isinstance(old, dict) and isinstance(value, dict) else value


def _with(tree: Tree, key: str, where: str, change: Callable[[Any], Any], *, create: bool = False) -> Tree:
    """Return the tree with one value changed; what is not on the way to it stays as it is."""

    def below(here: Any, parts: Sequence[str], above: str) -> Any:
        index = _index(here, parts[0], where, above, create=create)
        old = here.get(index) if isinstance(here, dict) else here[index]
        if len(parts) == 1:
            return _replaced(here, index, change(old))
        inside = {} if isinstance(here, dict) and index not in here else old
        return _replaced(here, index, below(inside, parts[1:], f"{above}.{parts[0]}" if above else parts[0]))

    result: Tree = below(tree, key.split("."), "")
    return result


def _replaced(holder: Any, index: Any, value: Any) -> Any:
    if isinstance(holder, dict):
        return {**holder, index: value}
    return type(holder)((*holder[:index], value, *holder[index + 1 :]))


def _index(here: Any, part: str, where: str, above: str, *, create: bool) -> str | int:
    holder = f"`{above}`" if above else "the config"
    if isinstance(here, list | tuple):
        if not (part.isdecimal() and int(part) < len(here)):
            raise ConfigError(where, f"{holder} is a list of {len(here)}", expected=f"0 to {len(here) - 1}", found=part)
        return int(part)
    if not isinstance(here, dict):
        raise ConfigError(where, f"{holder} has nothing below it", found=repr(here))
    if part not in here and not create:
        deeper = [key for key in keys_of(here) if key.rpartition(".")[2].lower() == part.lower() and "." in key]
        do = f"Did you mean `{f'{above}.' if above else ''}{deeper[0]}`?" if deeper else suggestion(part, here)
        raise ConfigError(where, f"there is no key `{part}` in {holder}", do=do)
    return part


def _like(old: Any, text: str, where: str) -> Any:
    """Read a value so that it has the type of the one it replaces."""
    value = literal(text)
    refuse = _refusal(where, old, text)
    match old:
        case None:
            return value
        case dict() if isinstance(value, dict):
            return value
        case dict():
            return _pairs(old, text, where)
        case list() | tuple():
            return type(old)(_items(old, value, text, where))
        case str():
            return value if isinstance(value, str) else text
        case float() if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        case _ if type(value) is type(old):
            return value
        case _:
            raise refuse()


def _refusal(where: str, old: Any, text: str) -> Callable[[], ConfigError]:
    kinds = {bool: "True or False", int: "an integer", float: "a number"}
    return lambda: ConfigError(
        where, "the value has another type than the one it replaces",
        expected=f"{kinds.get(type(old), type(old).__name__)} like {old!r}", found=repr(text),
    )  # fmt: skip


def _pairs(old: Tree, text: str, where: str) -> Tree:
    """`k:v,k:v` changes the named keys of a mapping, each keeping its type."""
    result = dict(old)
    for pair in text.split(","):
        name, colon, value = (part.strip() for part in pair.partition(":"))
        if not colon:
            raise ConfigError(where, "a mapping is set by `key:value,key:value`", found=repr(pair))
        if name not in old:
            raise ConfigError(where, f"there is no key `{name}` in it", do=suggestion(name, old))
        result[name] = _like(old[name], value, where)
    return result


def _items(old: Sequence[Any], value: Any, text: str, where: str) -> list[Any]:
    """A list as a literal, or with commas; the items have the type of the first one there was."""
    if isinstance(value, list | tuple):
        return list(value)
    parts = [part.strip() for part in text.split(",")]
    return [_like(old[0] if old else None, part, where) for part in parts]


def literal(text: str) -> Any:
    """Return the Python literal that a text is, or the text itself."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return text if isinstance(value, bytes | complex | set) or value is ... else value


def option_value(text: str) -> Any:
    """Return the value of a `--cfg-options` entry: a literal, `[a,b]`, `(a,b)` or `a,b`, quotes optional."""
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    value = literal(text)
    if value is not text and not (isinstance(value, tuple) and not text.startswith("(")):
        return value
    parts = _split(text)
    if len(parts) > 1:
        return [option_value(part) for part in parts]  # `a,b` is a list, as in MMEngine
    if text[:1] in ("[", "(") and text.endswith(_CLOSING[text[0]]):
        items = [option_value(part) for part in _split(text[1:-1]) if part]
        return items if text[0] == "[" else tuple(items)
    return text


def _split(text: str) -> list[str]:
    """Split at the commas that are inside no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in _CLOSING) - (letter in _CLOSING.values())
        if letter == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
