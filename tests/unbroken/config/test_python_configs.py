"""The Python config language: what MMEngine configs may say, evaluated without running anything."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.config import ConfigError, read_config


def write(folder: Path, **files: str) -> Path:
    """Write configs named after the keywords; return the folder."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text), encoding="utf-8")
    return folder


def tree(folder: Path, text: str, **environment: str) -> dict[str, Any]:
    return read_config(write(folder, own=text) / "own.py", environment=environment).tree


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        tree(folder, text)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("dict(a=1, b=dict(c=(1, 2)))", {"a": 1, "b": {"c": (1, 2)}}),
        ("{'a': 1, **dict(b=2)}", {"a": 1, "b": 2}),
        ("dict(dict(a=1), b=2)", {"a": 1, "b": 2}),
        ("[*range(3), 7]", [0, 1, 2, 7]),
        ("tuple([1, 2])", (1, 2)),
        ("list((1, 2))", [1, 2]),
        ("[n * 2 for n in range(4) if n % 2]", [2, 6]),
        ("[(a, b) for a in range(2) for b in range(a + 1)]", [(0, 0), (1, 0), (1, 1)]),
        ("{f'k{n}': n for n in [1, 2]}", {"k1": 1, "k2": 2}),
        ("sum(n for n in [1, 2.5])", 3.5),
        ("2 ** 3 - 7 // 2 + 1 / 4 - -1", 6.25),
        ("1 < 2 <= 2 and not 3 in [1] or None", True),
        ("'a' if len('xyz') == 3 else 'b'", "a"),
        ("min(3, 1) + max([4, 5]) + abs(-1) + round(2.6) + int('7') + float(1)", 18.0),
        ("[1, 2, 3, 4][1:3] + [9][:]", [2, 3, 9]),
        ("'abc'[-1] + str(1) + f'{3.14159:.2f}|{7:03d}|{\"q\"!r}'", "c13.14|007|'q'"),
        ("{'a': 1} | {'b': 2}", {"a": 1, "b": 2}),
        ("dict(a=1).get('b', 5)", 5),
        ("sorted([3, 1], reverse=True)", [3, 1]),
        ("1e-3", 0.001),
    ],
)
def test_an_expression_has_the_value_that_python_gives_it(tmp_path: Path, expression: str, value: object):
    found = tree(tmp_path, f"x = {expression}")["x"]
    assert found == value
    assert type(found) is type(value)


def test_statements_assign_in_the_order_they_are_written(tmp_path: Path):
    found = tree(
        tmp_path,
        """
        '''A docstring is allowed.'''
        model = dict(backbone=dict(depth=1), heads=[1])
        model['backbone']['depth'] = 3
        model['heads'].append(2)
        model['heads'] += [4]
        model.update(neck=None)
        (a, b), c = (1, 2), 3
        d = e = a + b
        d *= c
        width: int = 8
        again = 1
        again = dict(last='wins')
        gone = 1
        del gone
        """,
    )
    assert found == {
        "model": {"backbone": {"depth": 3}, "heads": [1, 2, 4], "neck": None},
        "a": 1,
        "b": 2,
        "c": 3,
        "d": 9,
        "e": 3,
        "width": 8,
        "again": {"last": "wins"},
    }


def test_a_list_grows_under_all_its_names_as_in_python_and_is_copied_out_at_the_end(tmp_path: Path):
    found = tree(tmp_path, "a = [1]\nb = a\nb += [2]\nc = a.copy()\nc.append(3)")
    assert found == {"a": [1, 2], "b": [1, 2], "c": [1, 2, 3]}
    assert found["a"] is not found["b"]


def test_names_that_begin_with_an_underscore_help_and_are_no_keys(tmp_path: Path):
    assert tree(tmp_path, "_n = 4\nx = _n + 1") == {"x": 5}


def test_names_of_a_comprehension_are_gone_after_it(tmp_path: Path):
    assert "not known" in complaint(tmp_path, "x = [n for n in [1]]\ny = n")


def test_mappings_merge_into_the_base_and_everything_else_replaces(tmp_path: Path):
    write(
        tmp_path,
        base="""
        model = dict(type='E', backbone=dict(depth=1, heads=[1, 2]), head=dict(a=1, b=2), size=(1, 2))
        kept = 1
        """,
    )
    found = tree(
        tmp_path,
        """
        _base_ = './base.py'
        model = dict(backbone=dict(heads=[4]), head=dict(_delete_=True, c=dict(_delete_=True, d=3)), size=5)
        """,
    )
    assert found == {
        "model": {"type": "E", "backbone": {"depth": 1, "heads": [4]}, "head": {"c": {"d": 3}}, "size": 5},
        "kept": 1,
    }


def test_bases_are_found_relative_to_the_file_and_may_have_bases_themselves(tmp_path: Path):
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts", deep="a = dict(x=1)", middle="_base_ = 'deep.py'\na = dict(y=2)", other="b = 3")
    file = read_config(write(tmp_path, own="_base_ = ['parts/middle.py', 'parts/other.py']") / "own.py")
    assert file.tree == {"a": {"x": 1, "y": 2}, "b": 3}
    assert [path.name for path in file.sources] == ["own.py", "middle.py", "deep.py", "other.py"]


def test_a_mapping_that_meets_something_else_in_the_base_is_an_error_with_the_way_out(tmp_path: Path):
    write(tmp_path, base="a = dict(b=[1, 2])")
    text = complaint(tmp_path, "_base_ = 'base.py'\na = dict(\n    b=dict(c=1))")
    assert "own.py:3" in text and "`a.b`" in text and "_delete_=True" in text


def test_two_bases_that_define_the_same_key_are_an_error_naming_both_lines(tmp_path: Path):
    write(tmp_path, one="x = 1\na = 1", two="a = 2")
    text = complaint(tmp_path, "_base_ = ['one.py', 'two.py']")
    assert "`a`" in text and "one.py:2" in text and "two.py:1" in text


def test_bases_that_go_in_a_circle_are_an_error_that_shows_it(tmp_path: Path):
    write(tmp_path, one="_base_ = 'own.py'")
    text = complaint(tmp_path, "_base_ = 'one.py'")
    assert "circle" in text and text.count("own.py") >= 2 and "one.py" in text


def test_a_base_that_is_missing_is_named_with_the_line_that_asks_for_it(tmp_path: Path):
    text = complaint(tmp_path, "x = 1\n_base_ = 'gone.py'")
    assert "own.py:2" in text and "gone.py" in text


@pytest.mark.parametrize(
    "expression",
    [
        "_base_.a.b",
        "_base_['a']['b']",
        "_base_.a['b']",
        "{{_base_.a.b}}",
        "{{ _base_.a.b }}",
        "'{{_base_.a.b}}'",
    ],
)
def test_values_of_the_base_can_be_used_in_every_spelling(tmp_path: Path, expression: str):
    write(tmp_path, base="a = dict(b=[1, dict(c=2)])")
    assert tree(tmp_path, f"_base_ = 'base.py'\nx = {expression}")["x"] == [1, {"c": 2}]


def test_what_is_taken_from_the_base_is_a_copy(tmp_path: Path):
    write(tmp_path, base="a = dict(b=[1])")
    found = tree(tmp_path, "_base_ = 'base.py'\nx = _base_.a\nx['b'].append(2)")
    assert found == {"a": {"b": [1]}, "x": {"b": [1, 2]}}


def test_a_key_that_the_base_lacks_is_an_error_with_the_nearest_one(tmp_path: Path):
    write(tmp_path, base="model = dict(backbone=1)")
    assert "`backbone`" in complaint(tmp_path, "_base_ = 'base.py'\nx = _base_.model.backbon")
    assert "`backbone`" in complaint(tmp_path, "_base_ = 'base.py'\nx = '{{_base_.model.backbon}}'")


def test_words_between_braces_are_filled_in(tmp_path: Path):
    found = tree(
        tmp_path,
        """
        name = '{{ fileBasenameNoExtension }}'
        file = './out/{{fileBasename}}'
        folder = '{{ fileDirname }}/data{{fileExtname}}'
        other = '{{ unknown }} stays'
        """,
    )
    assert found == {
        "name": "own",
        "file": "./out/own.py",
        "folder": f"{tmp_path}/data.py",
        "other": "{{ unknown }} stays",
    }


def test_the_environment_is_what_is_passed_in_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIZE", "99")
    text = "a = {{$SIZE:4}}\nb = '{{$ROOT:/data}}/x'\nc = {{'$NAME:word'}}"
    assert tree(tmp_path, text) == {"a": 4, "b": "/data/x", "c": "word"}
    assert tree(tmp_path, text, SIZE="8", ROOT="/mnt") == {"a": 8, "b": "/mnt/x", "c": "word"}


def test_an_environment_variable_without_value_and_default_is_an_error(tmp_path: Path):
    assert "own.py:2" in (text := complaint(tmp_path, "x = 1\na = {{$SIZE}}")) and "SIZE" in text


def test_keys_know_the_line_they_were_written_in_through_names_and_bases(tmp_path: Path):
    write(tmp_path, base="pipe = [\n    dict(type='A'),\n    dict(type='B', n=1)]")
    file = read_config(
        write(
            tmp_path,
            own="""\
            _base_ = 'base.py'
            _part = dict(
                depth=1)
            model = dict(
                backbone=_part,
                steps=_base_.pipe)
            model['width'] = 4
            """,
        )
        / "own.py"
    )
    assert file.lines["model.backbone"] == 5
    assert file.lines["model.backbone.depth"] == 3
    assert file.lines["model.width"] == 7
    assert str(file.place_of("model.steps.1.n")).endswith("base.py:3")
    assert str(file.place_of("model.backbone.depth.deeper.still")).endswith("own.py:3")
    assert str(file.place_of("nothing")).endswith("own.py")


def test_a_key_of_the_base_that_is_replaced_is_no_longer_placed_there(tmp_path: Path):
    write(tmp_path, base="a = dict(x=1, y=dict(z=1))")
    file = read_config(write(tmp_path, own="_base_ = 'base.py'\na = dict(y=3)") / "own.py")
    assert str(file.place_of("a.y.z")).endswith("own.py:2")
    assert str(file.place_of("a.x")).endswith("base.py:1")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x = unknown", "`unknown` is not known"),
        ("model = 1\nx = modle", "Did you mean `model`?"),
        ("x = 1 / 0", "division by zero"),
        ("x = dict(a=1)['b']", "no key 'b'"),
        ("x = {1, 2}", "a set is not plain data"),
        ("x, y = 1, 2, 3", "2 names and 3 values"),
        ("x = dict(a=1, a=2)", "`a` is given twice"),
        ("if True:\n    x = 1", "conditional expression"),
        ("for x in [1]:\n    y = x", "comprehension"),
        ("import os", "an import"),
        ("from os import path", "an import"),
        ("def f(): pass", "a function"),
        ("class A: pass", "a class"),
        ("x = lambda: 1", "a lambda"),
        ("x = (1", "not Python syntax"),
        ("filename = 1", "reserved"),
        ("x = _base_.a", "no `_base_`"),
        ("_base_ = 'pkg::x.py'", "package"),
        ("x = b'bytes'", "bytes"),
        ("x = 'a' % 1", "f-strings"),
    ],
)
def test_what_a_config_may_not_say_is_an_error_with_its_line(tmp_path: Path, text: str, part: str):
    found = complaint(tmp_path, text)
    assert part in found
    assert "own.py:" in found


def test_a_missing_config_is_an_error_that_names_what_is_there(tmp_path: Path):
    write(tmp_path, resume_earthvqa="x = 1", other="y = 1")
    with pytest.raises(ConfigError, match=r"Did you mean .*resume_earthvqa\.py"):
        read_config(tmp_path / "resume_earthvqa_kaggle.py")
    with pytest.raises(ConfigError, match=r"there is: other\.py, resume_earthvqa\.py"):
        read_config(tmp_path / "zzz.py")
    with pytest.raises(ConfigError, match="There is no folder"):
        read_config(tmp_path / "gone" / "x.py")
    with pytest.raises(ConfigError, match=r"\.py, \.yaml or \.yml"):
        read_config(tmp_path / "config.json")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab '\"{}\\\n"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(value=plain)
def test_any_literal_is_read_back_as_itself(tmp_path_factory: pytest.TempPathFactory, value: object):
    path = tmp_path_factory.mktemp("literal") / "own.py"
    path.write_text(f"x = {value!r}", encoding="utf-8")
    assert repr(read_config(path).tree["x"]) == repr(value)


numbers = st.integers(-20, 20).map(str) | st.floats(-9, 9).map(repr)
sums = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "<", "==", "and", "or"]), inner).map(
        lambda parts: f"({' '.join(parts)})"
    ),
    max_leaves=8,
)


@given(text=sums)
def test_arithmetic_agrees_with_python_or_is_an_error(tmp_path_factory: pytest.TempPathFactory, text: str):
    path = tmp_path_factory.mktemp("sum") / "own.py"
    path.write_text(f"x = {text}", encoding="utf-8")
    try:
        expected = eval(text, {"__builtins__": {}})
    except ArithmeticError:
        with pytest.raises(ConfigError):
            read_config(path)
    else:
        assert repr(read_config(path).tree["x"]) == repr(expected)


def test_a_base_that_is_not_there_is_answered_with_the_one_that_is(tmp_path: Path) -> None:
    (tmp_path / "small_40.py").write_text("lr = 1\n")
    (tmp_path / "small_4k.py").write_text('_base_ = "./smal_40.py"\n')
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "small_4k.py")
    assert str(caught.value).startswith(f"{tmp_path / 'small_4k.py'}:1: there is no file {tmp_path / 'smal_40.py'}. ")
    assert str(caught.value).endswith(f" Did you mean {tmp_path / 'small_40.py'}?")
    (tmp_path / "small_40.py").unlink()
    with pytest.raises(ConfigError, match="There is no other config in") as caught:
        read_config(tmp_path / "small_4k.py")
    assert "small_4k.py?" not in str(caught.value), "no file is its own base"
