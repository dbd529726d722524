"""A config from a stranger can be read: it runs nothing, and asking for too much is an error."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

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
    "x = sum([[1]] * 50000, [])",
    "x = 1\n" * 200_000,
    "x = 1 \x00",
    "x = " + "0x" + "f" * 5000,
]


@pytest.mark.parametrize("text", BOMBS, ids=lambda text: text[:30])
def test_a_config_that_asks_for_too_much_is_an_error_not_a_hang(tmp_path: Path, text: str):
    path = tmp_path / "own.py"
    path.write_text(text, encoding="utf-8")
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=r"own\.py"):
        read_config(path)
    assert time.monotonic() - begun < LONGEST_S


def test_more_bases_than_any_real_config_has_are_an_error(tmp_path: Path):
    for number in range(100):
        (tmp_path / f"c{number}.py").write_text(f"_base_ = 'c{number + 1}.py'", encoding="utf-8")
    with pytest.raises(ConfigError, match="more than 50 files"):
        read_config(tmp_path / "c0.py")


YAML_BOMBS = [
    "a: !!python/object/apply:os.system ['touch {evil}']",
    "a: !!python/name:os.system",
    "a: &x [*x]",
    "a: &x {{b: *x}}",
    "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{n}: &{n} [{','.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi")),
    "a: " + "[" * 5000,
    "a: " + "[" * 500 + "]" * 500,
    "a: !!binary aGk=",
    "a: !!set {{x, y}}",
    "a: " + "9" * 6000,
]


@pytest.mark.parametrize("text", YAML_BOMBS, ids=lambda text: text[:30])
def test_a_hostile_yaml_is_an_error_and_runs_nothing(tmp_path: Path, text: str):
    evil = tmp_path / "evil"
    path = tmp_path / "own.yaml"
    path.write_text(text.format(evil=evil), encoding="utf-8")
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        read_config(path)
    assert time.monotonic() - begun < LONGEST_S
    assert not evil.exists()
