"""A config from a stranger can be read: it runs nothing, and asking for too much is an error."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
import yaml

from unbroken.config import ConfigError, read_config

LONGEST_S = 20  # far above what any of these takes, far below a hang
SIDE_EFFECTS = [
    "x = __import__('os').system('touch {evil}')",
    "x = eval(\"open('{evil}', 'w')\")",
    "x = exec(\"open('{evil}', 'w')\")",
    "x = open('{evil}', 'w')",
    "import os\nos.system('touch {evil}')",
    "from pathlib import Path\nPath('{evil}').touch()",
    "x = ().__class__.__base__.__subclasses__()",
    "x = dict.__subclasses__()",
    "x = [].append.__self__",
    "x = dict.fromkeys",
    "x = (lambda: open('{evil}', 'w'))()",
    "x = [f for f in [open]][0]('{evil}', 'w')",
    "x = getattr(dict, '__subclasses__')",
    "x = '{{0.__class__}}'.format(1)",
    "x = f'{{(1).__class__}}'",
    "x = f'{{().__class__!r:{{1}}}}'",
    "x = '%s' % ((),)",
    "x = dict(a=1).__class__",
    "x = str.format",
    "dict = open\nx = dict('{evil}', 'w')",
    "x = sorted([1], key=open)",
    "x = (y := open)",
    "__builtins__ = 1",
    "@open\ndef f(): pass",
    "class A(open): pass",
    "with open('{evil}', 'w') as x: pass",
    "try:\n    x = 1\nfinally:\n    open('{evil}', 'w')",
    "assert open('{evil}', 'w')",
    "global x",
    "x = {{{{_base_.__class__}}}}",
    "x: open('{evil}', 'w')",
    "x = [1 async for y in [1]]",
    "x = await open",
    "lambda: 0",
    "x.y = 1",
]


@pytest.mark.parametrize("text", SIDE_EFFECTS)
def test_nothing_in_a_config_is_executed(tmp_path: Path, text: str):
    evil = tmp_path / "evil"
    path = tmp_path / "own.py"
    path.write_text(text.format(evil=evil), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"own\.py"):
        read_config(path)
    assert not evil.exists()


BOMBS = [
    "x = 9**9**9",
    "x = (2**1000) * (2**1000)",
    "x = 10**10000000000",
    "x = 'a' * 10**12",
    "x = [0] * 10**12",
    "x = 10**12 * (0,)",
    "x = range(10**12)",
    "x = range(10**400)",
    "x = [[[[[1] * 1000] * 1000] * 1000] * 1000]",
    "a = [1] * 1000\nb = [a] * 1000\nc = [b] * 1000\nd = [c] * 1000\nx = str(d)",
    "a = 'x' * 99999\nb = a + a + a",
    "a = []\na.append(a)",
    "a = {}\na['a'] = a",
    "a = []\na += [a]",
    "a = []\nb = [a]\na.append(b)",
    "x = [0 for a in range(99999) for b in range(99999)]",
    "x = [0 " + "for a in [0] " * 5000 + "]",
    "x = " + "[" * 150 + "]" * 150,
    "x = " + "[" * 50000 + "]" * 50000,
    "x = " + "-" * 50000 + "1",
    "x = " + "1 + " * 20000 + "1",
    "x = " + "a." * 5000 + "b()",
    "x = a" + "[0]" * 5000,
    "x = round(5, -10**9)",
    "x = f'{1:1000000000}'",
    "x = f'{1:.1000000000f}'",
    "x = '%1000000000d' % 1",
    "x = int('9' * 5000)",
    "a, b = 30",
    "[a, b] = None",
    "(a, (b, c)) = 1, 2",
    "x = sum([[1]] * 50000, [])",
    "x = 1\n" * 200_000,
    "x = 1 \x00",
    "x = " + "0x" + "f" * 5000,
    "x = '{{" + " " * 250_000 + "'",
    "x = '{{ $A:" + " " * 250_000 + "'",
    "x = '" + "{{ $A" * 50_000 + "'",
    "".join(f"a{n}=1\n" for n in range(25_000)),
    "a = {" + ",".join(f"'b{n}':1" for n in range(9000)) + "}\n" + " = ".join(f"c{n}" for n in range(900)) + " = a",
    "a = {'" + "k" * 90_000 + "': [" + "1," * 20_000 + "]}",
    "a = '\U0001f600' * 90000\nb = [a] * 300\nx = str(b)",
    "a = dict(" + ",".join(f"{'k' * 90}{n}=1" for n in range(2000)) + ")\nx = a['" + "k" * 90_000 + "']",
    "x = [" + "[0 for a in []]," * 14_000 + "]\n" + "y" * 1000,
]


@pytest.mark.parametrize("text", BOMBS, ids=lambda text: text[:30])
def test_a_config_that_asks_for_too_much_is_an_error_not_a_hang(tmp_path: Path, text: str):
    path = tmp_path / "own.py"
    path.write_text(text, encoding="utf-8")
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=r"own\.py"):
        read_config(path)
    assert time.monotonic() - begun < LONGEST_S


def test_bases_that_double_at_each_step_are_an_error_not_a_hang(tmp_path: Path):
    for number in range(45):
        named = f"_base_ = ['c{number + 1}.py', 'c{number + 1}.py']"
        (tmp_path / f"c{number}.py").write_text(named, encoding="utf-8")
        two = f"a: {{_BASE_CONFIG_: c{number + 1}.yaml}}\nb: {{_BASE_CONFIG_: c{number + 1}.yaml}}"
        (tmp_path / f"c{number}.yaml").write_text(two, encoding="utf-8")
    for last in ("c45.py", "c45.yaml"):
        (tmp_path / last).write_text("", encoding="utf-8")
    for first in ("c0.py", "c0.yaml"):
        with pytest.raises(ConfigError, match=r"more than 200 files"):
            read_config(tmp_path / first)


def test_a_base_that_is_laid_over_another_costs_what_it_takes(tmp_path: Path):
    lines = "".join(f"  a{n}: 1\n" for n in range(8000))
    (tmp_path / "base.yaml").write_text(f"x:\n{lines}", encoding="utf-8")
    (tmp_path / "own.yaml").write_text(f"_BASE_CONFIG_: base.yaml\nx:\n{lines}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"own\.yaml:\d+: .*far more work"):
        read_config(tmp_path / "own.yaml")


def test_a_base_that_is_used_thousands_of_times_is_an_error_not_a_hang(tmp_path: Path):
    (tmp_path / "base.py").write_text("a = [" + "1," * 90_000 + "]\nb = 1", encoding="utf-8")
    (tmp_path / "own.py").write_text(
        "_base_ = 'base.py'\n" + "".join(f"x{n} = _base_.a[{n}]\n" for n in range(2000)), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"own\.py:\d+: .*far more work"):
        read_config(tmp_path / "own.py")


def test_what_is_taken_from_a_base_is_a_copy(tmp_path: Path):
    (tmp_path / "base.py").write_text("a = dict(b=[1, 2])", encoding="utf-8")
    own = "_base_ = 'base.py'\nx = _base_.a\nx['b'].append(3)\ny = _base_['a']['b']\nz = _base_.copy()\n"
    (tmp_path / "own.py").write_text(own, encoding="utf-8")
    tree = read_config(tmp_path / "own.py").tree
    assert tree == {"a": {"b": [1, 2]}, "x": {"b": [1, 2, 3]}, "y": [1, 2], "z": {"a": {"b": [1, 2]}}}


def test_more_bases_than_any_real_config_has_are_an_error(tmp_path: Path):
    for number in range(100):
        (tmp_path / f"c{number}.py").write_text(f"_base_ = 'c{number + 1}.py'", encoding="utf-8")
    with pytest.raises(ConfigError, match="more than 50 files"):
        read_config(tmp_path / "c0.py")


NINE = "{" + ", ".join(f"k{n}: {n}" for n in range(9)) + "}"
YAML_BOMBS = [
    "a: !!python/object/apply:os.system ['touch {evil}']",
    "a: !!python/name:os.system",
    "a: &x [*x]",
    "a: &x {b: *x}",
    "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{n}: &{n} [{','.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi")),
    "a: &a {x: 1, y: 2, z: 3}\n"
    + "".join(f"{n}: &{n} {{{', '.join(f'k{i}: *{p}' for i in range(9))}}}\n" for p, n in zip("abcdefgh", "bcdefghi")),
    f"a0: &a0 {NINE}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 7)),
    f"a0: &a0 {NINE}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 40)),
    f"a0: &a0 {NINE}\n" + "".join(f"a{n}: &a{n}\n" + f"  <<: *a{n - 1}\n" * 9 + f"  l{n}: 1\n" for n in range(1, 40)),
    "a: &a {b: 1, <<: *a}",
    "a: &a {<<: [{<<: *a}]}",
    "a: {<<: 5}",
    "a: {<<: [1]}",
    "a: {<<: [[{b: 1}]]}",
    "a: " + "[" * 5000,
    "a: " + "[" * 500 + "]" * 500,
    "a: " + "[" * 100_000,
    "a: " + "{b: " * 5000,
    "a: " + "- " * 5000 + "b",
    "".join("  " * n + "a:\n" for n in range(400)),
    "a: !!binary aGk=",
    "a: !!set {x, y}",
    "a: !!omap [x: 1, y]",
    "a: !!int ''",
    "a: !!int '-'",
    "a: !!float ''",
    "a: !!float '1:x'",
    "a: !!bool maybe",
    "a: !!timestamp x",
    "a: !!timestamp 2001-99-99",
    "a: !!int [1]",
    "a: !!map x",
    "a: !unknown x",
    "a: " + "9" * 6000,
    "a: 1" + ":1" * 100_000,
    "a: !!float 1" + ":1" * 100_000,
    "a: 0x" + "f" * 200_000,
    "a: 0" + "7" * 200_000,
    "a: 0b" + "1" * 200_000,
    "a: !!int '1" + ":1" * 100_000 + "'",
    "{a: 1}: 2",
    "? [1, [2]]\n: 3",
    "1: a\n0x1: b",
    "yes: a\ntrue: b",
    "a: {b: 1, b: 2}",
    "x" * 250_000,
    "a: '" + "x" * 250_000 + "'",
    "'" + "k" * 90_000 + "': [" + "1," * 15_000 + "]",
    "a: [" + "1," * 60_000 + "]",
    "".join(f"a{n}: 1\n" for n in range(25_000)),
    "a: *b",
    "--- a\n--- b",
    "%YAML 9.9\n---\na: 1",
    "a: &a x\nb: &a y\nc: [*a, *a",
    "a: \x00",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1") + ": [",
]


@pytest.mark.parametrize("text", YAML_BOMBS, ids=lambda text: text[:30])
def test_a_hostile_yaml_is_an_error_and_runs_nothing(tmp_path: Path, text: str):
    evil = tmp_path / "evil"
    path = tmp_path / "own.yaml"
    path.write_text(text.replace("{evil}", str(evil)), encoding="utf-8")
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        read_config(path)
    assert time.monotonic() - begun < LONGEST_S
    assert not evil.exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: !!int ''", 2),
        ("a: 1\nb: [1,\n 1" + ":1" * 1000 + "]", 3),
        ("a: 1\n\nb: " + "[" * 100, 3),
        ("a: 1\nb: &x [*x]", 2),
        ("a: &a {b: 1}\nc: &c\n  <<: *a\n  d: {<<: *c}", 2),
    ],
)
def test_the_line_of_what_a_yaml_may_not_ask_for_is_named(tmp_path: Path, text: str, line: int):
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"own\.yaml:{line}: "):
        read_config(tmp_path / "own.yaml")


def test_what_merges_ask_for_is_weighed_before_it_is_made(tmp_path: Path):
    """Seven levels of nine took 46 s and 426 MB, one more nine times that."""
    text = f"a0: &a0 {NINE}\n"
    for level in range(1, 7):
        text += f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n"
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    tracemalloc.start()
    with pytest.raises(ConfigError, match=r"own\.yaml:7: .*far more work"):
        read_config(tmp_path / "own.yaml")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_merges_as_real_configs_have_them_are_read(tmp_path: Path):
    text = """
base: &base {lr: 0.1, steps: 100, deep: &deep {a: 1, b: 2}}
more: &more {lr: 0.2, name: x}
one: {<<: *base, lr: 0.5}
two: {lr: 0.7, <<: [*more, *base]}
three:
  <<: *base
  deep: {<<: *deep, b: 3}
four: {<<: *base, <<: *more}
"""
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    tree = read_config(tmp_path / "own.yaml").tree
    deep = {"a": 1, "b": 2}
    assert tree["one"] == {"lr": 0.5, "steps": 100, "deep": deep}
    assert tree["two"] == {"lr": 0.7, "name": "x", "steps": 100, "deep": deep}
    assert tree["three"] == {"lr": 0.1, "steps": 100, "deep": {"a": 1, "b": 3}}
    assert tree["four"] == {"lr": 0.2, "name": "x", "steps": 100, "deep": deep} == yaml.safe_load(text)["four"]
    assert tree == yaml.safe_load(text)
