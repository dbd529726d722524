"""A config that was found to fit is taken at its word by the next command, and means the same to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.clocks import Ahead

from unbroken.config import ConfigError, Effect, read_config, validate, validate_cached
from unbroken.storage.cache import Cache

SCHEMA = """
from typing import Annotated
from unbroken.config import Effect, Instead, Section, Since
class Net(Section):
    width: Annotated[int, Effect.SHAPE] = 8
    sides: Annotated[tuple[int, ...], Effect.DATA] = (1, 2)
class Config(Section):
    net: Net = Net()
    nets: tuple[Net, ...] = ()
    lr: Annotated[float, Effect.SCHEDULE]
    exact: Annotated[bool, Effect.MEANING, Since(before=True)] = False
    old: Annotated[int, Effect.IGNORED, Instead("lr")] = 0
"""
CONFIG = "lr = 0.1\nnet = dict(sides=(3, 4))\nnets = [dict(width=2)]\nold = 3\n"
PROGRAM = """
import sys; from pathlib import Path; from tests.clocks import Ahead
from unbroken.config import read_config, validate_cached; from unbroken.storage.cache import Cache
found = validate_cached("own_schema:Config", read_config(Path("config.py")), Cache(Path("cache"), clock=Ahead()))
print("pydantic" in sys.modules, found.canonical, found.ignored_in_words, found.effects.of("net.width").value)
print(found.value.net.sides, found.value.nets[0].width, found.value.old)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_schema.py").write_text(SCHEMA, "utf-8")
    (tmp_path / "config.py").write_text(CONFIG, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}")
    return tmp_path


def said() -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_config_that_was_found_to_fit_needs_no_schema_until_the_code_of_it_changes(place: Path) -> None:
    canonical = {
        "net": {"width": 8, "sides": [3, 4]}, "nets": [{"width": 2, "sides": [1, 2]}], "lr": 0.1, "exact": False,
    }  # fmt: skip
    rest = f"{canonical} ('old (set lr)',) shape"
    assert said() == [f"True {rest}", "(3, 4) 2 3"]
    assert said() == [f"False {rest}", "(3, 4) 2 3"]

    (place / "own_schema.py").write_text(SCHEMA.replace("Effect.SHAPE", "Effect.MEANING"), "utf-8")
    assert said()[0] == f"True {rest.replace('shape', 'meaning')}"
    assert said()[0] == f"False {rest.replace('shape', 'meaning')}"
    (place / "config.py").write_text(CONFIG.replace("0.1", "0.2"), "utf-8")
    assert said()[0].startswith("True {'net'") and "'lr': 0.2" in said()[0]


def test_what_does_not_fit_is_said_each_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(place)
    cache = Cache(place / "cache", clock=Ahead())
    (place / "config.py").write_text("lr = 'fast'", "utf-8")
    file = read_config(place / "config.py")
    for _ in range(2):
        with pytest.raises(ConfigError, match="`lr` has a wrong value"):
            validate_cached("own_schema:Config", file, cache)
    assert not (place / "cache").exists()
    sys.modules.pop("own_schema")


def test_effects_are_the_same_as_those_of_the_schema(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(place)
    cache, file = Cache(place / "cache", clock=Ahead()), read_config(place / "config.py")
    first, second = (validate_cached("own_schema:Config", file, cache) for _ in range(2))
    schema = type(first.value)
    assert first == second == validate(schema, file) and second.value == first.value
    since = second.effects.since_of("exact")
    assert second.effects == first.effects and since is not None and since.before is True
    assert second.effects.of("nets.7.width") is Effect.SHAPE
    sys.modules.pop("own_schema")
