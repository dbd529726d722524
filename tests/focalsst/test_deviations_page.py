"""docs/deviations.md is true: its switches and their values, its figures, the tests it names, what is not built."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from focalsst.config import SonarConfig
from focalsst.config.original import STAGES, SWITCHES
from unbroken.config import ConfigError, merge_options, read_config, validate

from .deviation_sizes import sizes

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/deviations.md").read_text("utf-8")
SHIPPED = ROOT / "apps/focal_sst/cfgs/sonar_models/focal_sst.yaml"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its two first lines."""
    section = TEXT.partition(f" · {heading}\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def value_at(tree: object, key: str) -> object:
    for part in key.split("."):
        if isinstance(tree, list):
            tree = next(step for step in tree if step["NAME"] == part)
        else:
            assert isinstance(tree, dict)
            tree = tree[part]
    return tree


def test_every_switch_has_its_row_with_both_of_its_values() -> None:
    repaired = validate(SonarConfig, read_config(SHIPPED)).canonical
    table = {row[0].strip("`"): [cell.strip("`") for cell in row[1:3]] for row in rows("With a switch")}
    assert table == {key: [str(value), str(value_at(repaired, key))] for key, value in SWITCHES.items()}


def test_the_sizes_are_those_that_are_measured() -> None:
    table = {row[0].strip("`").rpartition(".")[2]: row[4] for row in rows("With a switch")}
    for name, figures in sizes().items():
        said = [
            float(number) for number in re.findall(r"\d+(?:\.\d+)?", re.sub("cap 100|, which is 1262", "", table[name]))
        ]
        assert said == pytest.approx([*figures], rel=0.02), name


def test_the_tests_that_the_page_names_are_there() -> None:
    named = [row[-1].strip("`") for row in rows("Without a switch")]
    assert len(named) > 10
    for name in named:
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        assert not function or function in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}, name


def test_what_is_said_to_be_not_built_is_refused_in_one_line() -> None:
    table = rows("What is not built")
    assert [row[0] for row in table if row[0] == f"`{STAGES}`"]
    for key, value, _ in table:
        tree = merge_options(read_config(SHIPPED).tree, [f"{key.strip('`')}={yaml.safe_load(value.strip('`'))!r}"])
        with pytest.raises(ConfigError, match=r"is of another network.*not built here") as refused:
            validate(SonarConfig, tree)
        assert "\n" not in str(refused.value)
