"""No error says a name that only the program itself knows, and every option answers a wrong value in the one family."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import focalsst.recipes
import focalsst.testing
import mapsage.recipes
from tests.test_house import SOURCES, name_of
from unbroken.cli.tree import parser_of
from unbroken.errors import UsageError

PRIVATE = re.compile(r"(?<![\w.`'\"/-])_[a-z]\w*")
OF_CONFIGS = {"_base_", "_delete_", "_scope_"}  # keys that people write
GARBAGE = ("", "two", "-1", "1.5", "１２x", "\0", "nan", "9" * 400, "_count")
PARSERS = {
    "mapsage": mapsage.recipes.parser,
    "focalsst": focalsst.recipes.parser,
    "focalsst test": focalsst.testing.parser,
    **{name: partial(parser_of, name) for name in ("ls", "prove", "prune")},
}


def texts(tree: ast.AST) -> Iterator[str]:
    """What is said by whatever is raised, yielded as a misfit, or complained of."""
    said = {"Misfit", "Complaint", "ArgumentTypeError"}
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in said
        if called or isinstance(node, ast.Raise):
            yield from _parts(node)


def _parts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for below in ast.iter_child_nodes(node):
            yield from _parts(below)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_error_names_what_is_private_to_the_program(path: Path) -> None:
    said = [name for text in texts(ast.parse(path.read_text("utf-8"))) for name in PRIVATE.findall(text)]
    assert not set(said) - OF_CONFIGS


@pytest.mark.parametrize("name", PARSERS)
def test_a_wrong_value_of_any_option_is_answered_without_a_name_of_a_function(name: str) -> None:
    parser = PARSERS[name]()
    before = ["config.py"] if name.startswith("mapsage") else []
    answers = []
    for action in parser._actions:
        if action.type is None or not action.option_strings:
            continue
        for value in GARBAGE:
            try:
                parser.parse_args([*before, f"{action.option_strings[-1]}={value}"])
            except UsageError as error:
                answers.append(str(error))
    assert len(answers) > 3
    assert not [answer for answer in answers if PRIVATE.search(answer.replace("'_count'", "")) or "invalid" in answer]


def test_a_type_that_raises_by_itself_is_answered_in_the_same_way() -> None:
    from unbroken.option_parser import OptionParser

    def _secret(text: str) -> int:
        return int(text)

    parser = OptionParser(prog="x")
    parser.add_argument("--size", type=_secret, metavar="N")
    with pytest.raises(UsageError, match=r"argument --size: expected N, found 'two'") as found:
        parser.parse_args(["--size", "two"])
    assert "_secret" not in str(found.value)
    assert issubclass(OptionParser, argparse.ArgumentParser)
