"""docs/defaults-sonar.md is true, and a file of the original has the original's defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from focalsst.config import SonarConfig
from unbroken.config import Effect, merge_options, read_config, validate

from .config.original_files import write_original
from .defaults_table import OURS, TAKEN, UNREAD, default_of, leaves, lines, shown, table

PAGE = Path(__file__).resolve().parents[2] / "docs/defaults-sonar.md"
UNLIKE = {"OPTIMIZATION.SEED"}  # the original has no seed unless it is asked for one


def test_the_page_has_the_table() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert rows == lines()
    known = {key for key, _, _ in leaves(SonarConfig)}
    assert len(known) > 120 and {*TAKEN, *OURS, *UNREAD} <= known


def test_what_changes_a_training_is_for_a_file_of_the_original_as_it_is_there() -> None:
    effects = {str(effect) for effect in (Effect.SHAPE, Effect.MEANING, Effect.DATA, Effect.SCHEDULE)}
    rows = [row for row in table() if row[4] in effects and (row[0] in TAKEN or row[0] in OURS)]
    other = {key for key, there, like, _, _ in rows if there.removesuffix(" (ours)") not in (like, "not built")}
    assert len(rows) > 30 and other == UNLIKE


def removed(tree: Any, path: list[str]) -> None:
    for part in path[:-1]:
        tree = next(s for s in tree if s.get("NAME") == part) if isinstance(tree, list) else tree.get(part, {})
    tree.pop(path[-1], None)


def value_at(tree: Any, path: list[str]) -> Any:
    for part in path:
        tree = next(s for s in tree if s.get("NAME") == part) if isinstance(tree, list) else tree[part]
    return tree


@pytest.mark.parametrize("repaired", [False, True])
def test_a_real_file_without_these_keys_reads_as_the_table_says(tmp_path: Path, repaired: bool) -> None:
    tree = merge_options(read_config(write_original(tmp_path)).tree, [])
    tree |= {"AS_PUBLISHED": False} if repaired else {}
    gone = [
        (key, info)
        for key, info, effect in leaves(SonarConfig)
        if effect is not Effect.IGNORED and not info.is_required() and "AUG_CONFIG_LIST" not in key
    ]
    for key, _ in gone:
        if key != "AS_PUBLISHED":
            removed(tree, key.split("."))
    found = validate(SonarConfig, tree).canonical
    said = {row[0]: row[3] if repaired else row[2] for row in table()}
    for key, _ in gone:
        if key.endswith("set_info"):
            assert value_at(found, key.split(".")) == [{"size": 32, "blocks": 4}]
        else:
            assert shown(value_at(found, key.split("."))) == said[key], key
    assert default_of(dict(gone)["MODEL.DENSE_HEAD.HEADING"]) == "axis"
