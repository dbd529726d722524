"""The value of an expression in a Python config, found from its syntax tree; nothing is ever executed.

Every value is plain data and every operation is one of those listed here and in `python_operations`: there is
no way from a config to an attribute, a function or a module of Python. At the end stands text with holes:
`{{ fileDirname }}`, `{{$NAME:default}}`, `{{ _base_.a.b }}` and f-strings.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unbroken.config.config_file import Place
from unbroken.config.meter import DEPTH, Meter, TooMuch, plain_copy
from unbroken.config.nearest import suggestion
from unbroken.config.python_operations import BINARY, COMPARISONS, FUNCTIONS, METHODS, UNARY
from unbroken.errors import ConfigError

NAMES = "A config knows only the names assigned above."
Comprehension = ast.ListComp | ast.GeneratorExp | ast.DictComp
WHAT_FAILS = (ArithmeticError, LookupError, TypeError, ValueError, RecursionError)  # on plain data
ALLOWED = (
    "A config is read, not run. It may contain literals, dict(...), lists, arithmetic, comparisons, "
    "comprehensions, names assigned above, `_base_.key`, and len, min, max, int, float, str, bool, range, "
    "sum, round, abs, sorted."
)
_HOLE = re.compile(r"\{\{\s*(_base_(?:\.\w+)+|\w+)\s*\}\}")
# Possessive (`*+`), so that no text can make it try the same blanks again and again.
_FROM_ENVIRONMENT = re.compile(r"""\{\{\s*+(["']?)\s*+\$\s*+(\w++)\s*+(:[^{}\n]*+|["']?)\s*+\}\}""")
_FORMAT = re.compile(r"[<>=^]?[-+ ]?0?\d{0,2}(\.\d{1,2})?[bdeEfFgGoxXs%]?")  # no room for a width that fills memory


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


def evaluate(node: ast.expr, scope: Scope) -> Any:
    """Return the value of an expression, or raise a ConfigError that names its line."""
    scope.meter.depth += 1
    try:
        if scope.meter.depth > DEPTH:
            raise TooMuch(f"expressions are nested more than {DEPTH} deep")
        value = _value(node, scope)
        scope.meter.weigh(value)
        return value
    except WHAT_FAILS as error:
        raise scope.refuse(node, f"this cannot be worked out: {error}", do="") from error
    finally:
        scope.meter.depth -= 1


def _value(node: ast.expr, scope: Scope) -> Any:
    match node:
        case ast.Constant():
            return _constant(node, scope)
        case ast.Name():
            return _named(node, scope)
        case ast.List(elts=elements):
            return list(_elements(elements, scope))
        case ast.Tuple(elts=elements):
            return tuple(_elements(elements, scope))
        case ast.Dict():
            return _dict(node, scope)
        case ast.Call():
            return _call(node, scope)
        case ast.Subscript(value=holder, slice=index):
            return _part(_holder(holder, scope), _index(index, scope), scope)
        case ast.Attribute():
            return _attribute(node, scope)
        case ast.Set():
            return _braces(node, scope)
        case ast.JoinedStr(values=parts):
            return "".join(_text_part(part, scope) for part in parts)
        case _:
            return _computed(node, scope)


def _computed(node: ast.expr, scope: Scope) -> Any:
    match node:
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            return UNARY[type(op)](evaluate(operand, scope))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return BINARY[type(op)](evaluate(left, scope), evaluate(right, scope))
        case ast.BoolOp():
            return _bool(node, scope)
        case ast.Compare():
            return _compare(node, scope)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return evaluate(body if evaluate(test, scope) else orelse, scope)
        case ast.ListComp(elt=element) | ast.GeneratorExp(elt=element):
            return [evaluate(element, inner) for inner in _rounds(node, scope)]
        case ast.DictComp(key=key, value=value):
            return {evaluate(key, inner): evaluate(value, inner) for inner in _rounds(node, scope)}
        case _:
            raise scope.refuse(node, f"a config cannot contain {_kind(node)}")


def _kind(node: ast.AST) -> str:
    known = {ast.Lambda: "a lambda", ast.NamedExpr: "`:=`", ast.SetComp: "a set", ast.Await: "await"}
    return known.get(type(node), f"this ({type(node).__name__})")


def _constant(node: ast.Constant, scope: Scope) -> Any:
    if isinstance(node.value, str):
        return filled(node.value, scope)
    if node.value is None or isinstance(node.value, bool | int | float):
        return node.value
    raise scope.refuse(node, f"a config cannot contain a {type(node.value).__name__}")


def _named(node: ast.Name, scope: Scope) -> Any:
    if node.id in scope.names:
        return scope.names[node.id]
    if node.id == "_base_":
        raise scope.refuse(node, "`_base_` stands only in front of a key of the base", do="Write `_base_.key`.")
    raise scope.refuse(node, f"`{node.id}` is not known here", do=suggestion(node.id, scope.names) or NAMES)


def _elements(nodes: list[ast.expr], scope: Scope) -> Iterator[Any]:
    for node in nodes:
        if isinstance(node, ast.Starred):
            yield from _listed(evaluate(node.value, scope))
        else:
            yield evaluate(node, scope)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple | dict):
        raise TypeError(f"expected a list, found {value!r:.60}")
    return list(value)


def _mapping(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a dict after `**`, found {value!r:.60}")
    return value


def _dict(node: ast.Dict, scope: Scope) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values):
        if key is None:
            result.update(_mapping(evaluate(value, scope)))
        else:
            result[evaluate(key, scope)] = evaluate(value, scope)
    return result


def _keywords(node: ast.Call, scope: Scope) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for keyword in node.keywords:
        value = evaluate(keyword.value, scope)
        for name, part in _mapping(value).items() if keyword.arg is None else [(keyword.arg, value)]:
            if name in result:
                raise TypeError(f"`{name}` is given twice")
            result[name] = part
    return result


def _call(node: ast.Call, scope: Scope) -> Any:
    match node.func:
        case ast.Name(id=name) if name in FUNCTIONS and name not in scope.names:
            return FUNCTIONS[name](*_elements(node.args, scope), **_keywords(node, scope))
        case ast.Attribute(value=holder, attr=name) if any(name in known for known in METHODS.values()):
            held = _holder(holder, scope)
            return _call_method(node, plain_copy(held) if held is scope.base else held, name, scope)
        case _:
            raise scope.refuse(node, f"a config cannot call {_called(node.func)}")


def _called(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return f"`{name}`"
        case ast.Attribute(attr=name):
            return f"`.{name}`"
        case _:
            return "this"


def _call_method(node: ast.Call, holder: Any, name: str, scope: Scope) -> Any:
    method = METHODS.get(type(holder), {}).get(name)
    if method is None:
        raise scope.refuse(node, f"a config cannot call `.{name}` of a {type(holder).__name__}")
    result = method(holder, *_elements(node.args, scope), **_keywords(node, scope))
    scope.meter.weigh(holder)  # it may have grown, or contain itself now
    return result


def _holder(node: ast.expr, scope: Scope) -> Any:
    """Return what is left of a dot or a bracket; only there may `_base_` stand for the whole base."""
    if isinstance(node, ast.Name) and node.id == "_base_":
        if scope.base is None:
            raise scope.refuse(node, "this file has no `_base_`", do="")
        return scope.base
    return evaluate(node, scope)


def _attribute(node: ast.Attribute, scope: Scope) -> Any:
    root: ast.expr = node
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    if not (isinstance(root, ast.Name) and root.id == "_base_") or node.attr.startswith("__"):
        raise scope.refuse(node, f"a config cannot use the attribute `.{node.attr}`")
    return _part(_holder(node.value, scope), node.attr, scope)


def _part(holder: Any, index: Any, scope: Scope) -> Any:
    """An item of a value; of the base a copy, so that nothing that is done to it changes the base."""
    found = _item(holder, index)
    if holder is scope.base:
        scope.meter.weigh(found)
        return plain_copy(found)
    return found


def _item(holder: Any, index: Any) -> Any:
    if isinstance(holder, dict):
        if index not in holder:
            raise LookupError(f"there is no key {index!r}. {suggestion(str(index), holder)}".strip())
        return holder[index]
    if not isinstance(holder, str | list | tuple):
        raise TypeError(f"a {type(holder).__name__} has no parts")
    return holder[index]


def _index(node: ast.expr, scope: Scope) -> Any:
    if not isinstance(node, ast.Slice):
        return evaluate(node, scope)
    return slice(*(part and evaluate(part, scope) for part in (node.lower, node.upper, node.step)))


def _bool(node: ast.BoolOp, scope: Scope) -> Any:
    value = None
    for part in node.values:
        value = evaluate(part, scope)
        if bool(value) != isinstance(node.op, ast.And):
            break
    return value


def _compare(node: ast.Compare, scope: Scope) -> bool:
    left = evaluate(node.left, scope)
    for op, part in zip(node.ops, node.comparators):
        right = evaluate(part, scope)
        if not COMPARISONS[type(op)](left, right):
            return False
        left = right
    return True


def _rounds(node: Comprehension, scope: Scope) -> Iterator[Scope]:
    """Yield one scope per round of a comprehension; its names are gone afterwards, as in Python."""
    scope.meter.spend(len(scope.names) // 10)
    return _round(node.generators, replace(scope, names=dict(scope.names)))


def _round(generators: list[ast.comprehension], scope: Scope) -> Iterator[Scope]:
    if not generators:
        yield scope
        return
    first = generators[0]
    if first.is_async:
        raise scope.refuse(first.target, "a config cannot contain async")
    for value in _listed(evaluate(first.iter, scope)):
        bind(first.target, value, scope)
        if all(evaluate(test, scope) for test in first.ifs):
            yield from _round(generators[1:], scope)


def bind(target: ast.expr, value: Any, scope: Scope) -> None:
    """Give names, or items of what a name holds, a value: the left side of `=` and of `for`."""
    match target:
        case ast.Name(id=name) if name.startswith("__"):
            raise scope.refuse(target, f"a config cannot set `{name}`")
        case ast.Name(id=name):
            scope.names[name] = value
        case ast.Tuple(elts=targets) | ast.List(elts=targets):
            _unpack(target, targets, value, scope)
        case ast.Subscript(value=holder, slice=index):
            _set_item(target, evaluate(holder, scope), _index(index, scope), value, scope)
        case _:
            raise scope.refuse(target, "a config cannot set this", do="Set names, or items like model['type'] = ...")


def _unpack(node: ast.expr, targets: list[ast.expr], value: Any, scope: Scope) -> None:
    values = _listed(value)
    if len(values) != len(targets):
        raise scope.refuse(node, f"there are {len(targets)} names and {len(values)} values", do="")
    for target, part in zip(targets, values):
        bind(target, part, scope)


def _set_item(node: ast.expr, holder: Any, index: Any, value: Any, scope: Scope) -> None:
    if not isinstance(holder, dict | list) or isinstance(index, slice):
        raise scope.refuse(node, f"an item of a {type(holder).__name__} cannot be set", do="")
    try:
        holder[index] = value
        scope.meter.weigh(holder)
    except WHAT_FAILS as error:
        raise scope.refuse(node, f"this item cannot be set: {error}", do="") from error


def _braces(node: ast.Set, scope: Scope) -> Any:
    """`{{ _base_.a }}` is, to Python's grammar, a set in a set: that is how the substitution is found."""
    match node.elts:
        case [ast.Set(elts=[ast.Attribute() as inside])]:
            return evaluate(inside, scope)
        case [ast.Set(elts=[ast.Name(id=name)])]:
            return word_between_braces(node, name, scope)
        case _:
            raise scope.refuse(node, "a set is not plain data", do="Write a list instead.")


def _text_part(node: ast.expr, scope: Scope) -> str:
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.FormattedValue(value=inside, conversion=conversion, format_spec=spec):
            return formatted(evaluate(inside, scope), conversion, spec, scope)
        case _:
            raise ConfigError(scope.place(node), "this f-string cannot be read")


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
