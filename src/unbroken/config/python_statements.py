"""The statements of a Python config, carried out on its syntax tree: they assign, and nothing else."""

from __future__ import annotations

import ast
from typing import Any

from unbroken.config.python_expressions import WHAT_FAILS, bind, evaluate
from unbroken.config.python_operations import BINARY
from unbroken.config.python_places import Trace
from unbroken.config.python_scope import ALLOWED, Scope

_HINTS: dict[type[ast.stmt], tuple[str, str]] = {
    ast.If: ("an `if` statement", "Use a conditional expression: `x = a if condition else b`."),
    ast.For: ("a `for` statement", "Use a comprehension: `x = [... for y in z]`."),
    ast.While: ("a `while` statement", "Use a comprehension: `x = [... for y in z]`."),
    ast.Import: ("an import", f"Imports would run code. {ALLOWED}"),
    ast.ImportFrom: ("an import", f"Imports would run code. {ALLOWED}"),
    ast.FunctionDef: ("a function", ALLOWED),
    ast.ClassDef: ("a class", ALLOWED),
}


def carry_out(statement: ast.stmt, scope: Scope, trace: Trace) -> None:
    """Carry out one statement at the top level of a config."""
    try:
        _carry_out(statement, scope, trace)
    except WHAT_FAILS as error:  # to take a number apart, or to remember where so many keys were written
        raise scope.refuse(statement, f"this cannot be worked out: {error}", do="") from error


def _carry_out(statement: ast.stmt, scope: Scope, trace: Trace) -> None:
    match statement:
        case ast.Assign(targets=targets, value=value):
            _assign(targets, value, scope, trace)
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            _assign([target], value, scope, trace)
        case ast.AugAssign():
            _assign_in_place(statement, scope, trace)
        case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
            return
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            return  # it says something while a config is executed, and changes nothing
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=holder)) as call):
            evaluate(call, scope)
            _note_change(holder, call, scope, trace)
        case ast.Delete(targets=targets):
            _delete(statement, targets, scope)
        case _:
            what, do = _HINTS.get(type(statement), (f"this statement ({type(statement).__name__})", ALLOWED))
            raise scope.refuse(statement, f"a config cannot contain {what}", do=do)


def _assign(targets: list[ast.expr], value: ast.expr, scope: Scope, trace: Trace) -> None:
    result = evaluate(value, scope)
    for target in targets:
        bind(target, result, scope)
        _note(target, value, scope, trace)


def _note(target: ast.expr, value: ast.expr, scope: Scope, trace: Trace) -> None:
    if isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        exact = len(parts) == len(target.elts)
        for place, name in enumerate(target.elts):
            _note(name, parts[place] if exact else value, scope, trace)
    elif (key := _key_of(target)) is not None:
        trace.assigned(key, value, scope)


def _note_change(holder: ast.expr, call: ast.Call, scope: Scope, trace: Trace) -> None:
    """After `.update(...)` and the like the lines of what is inside are not known; the whole is here."""
    key = _key_of(holder)
    if key is not None:
        trace.assigned(key, ast.copy_location(ast.Constant(None), call), scope)


def _key_of(target: ast.expr) -> str | None:
    """Return `model['backbone']['depth']` as a dotted key; None when an index is computed."""
    match target:
        case ast.Name(id=name):
            return name
        case ast.Subscript(value=holder, slice=ast.Constant(value=(str() | int()) as index)):
            above = _key_of(holder)
            return None if above is None else f"{above}.{index}"
        case _:
            return None


def _assign_in_place(statement: ast.AugAssign, scope: Scope, trace: Trace) -> None:
    if type(statement.op) not in BINARY or not isinstance(statement.target, ast.Name | ast.Subscript):
        raise scope.refuse(statement, "a config cannot contain this assignment")
    before = evaluate(statement.target, scope)
    try:
        after = _combined(before, type(statement.op), evaluate(statement.value, scope))
    except WHAT_FAILS as error:
        raise scope.refuse(statement, f"this cannot be worked out: {error}", do="") from error
    bind(statement.target, after, scope)
    evaluate(statement.target, scope)  # weighs what has grown
    _note(statement.target, ast.copy_location(ast.Constant(None), statement), scope, trace)


def _combined(before: Any, op: type[ast.operator], value: Any) -> Any:
    """A list grows in place, as in Python: other names of the same list see it."""
    if op is ast.Add and isinstance(before, list) and isinstance(value, list | tuple):
        before.extend(list(value))
        return before
    return BINARY[op](before, value)


def _delete(statement: ast.Delete, targets: list[ast.expr], scope: Scope) -> None:
    for target in targets:
        if not (isinstance(target, ast.Name) and target.id in scope.names):
            raise scope.refuse(statement, "`del` is for names assigned above", do="")
        del scope.names[target.id]
