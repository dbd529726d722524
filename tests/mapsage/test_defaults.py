"""`docs/defaults.md`: every key with its default in the originals and here, true against both, none unsaid."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from original_defaults import SOURCES, THERE, read_signatures
from pydantic.fields import FieldInfo

from mapsage.config import MapSageConfig
from mapsage.config.original import THERE as SAID
from unbroken.config import Effect, Section
from unbroken.config.schema import effect_of_field, sections_in

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/defaults.md"
SAME = "相同 same"
FREE = "不影响权重 no weight depends on it"
REQUIRED_THERE = "原程序必须写出 has to be given there"
REQUIRED_HERE = "此处必须写出 has to be given here"
OURS = "本程序独有 ours alone"
NOT_STARTING = "原默认值无法启动 with the default there it does not start"
SAID_AT_LAUNCH = "启动时说明，恢复时比较 said at each launch, compared with the file's at a resume"
# Where the default there is refused by its own program, as it does not go with the other defaults.
REFUSED_THERE = {
    "Segmentor.data_preprocessor",
    "Segmentor.test_cfg",
    "LovaszLoss.reduction",
    "RandomResize.ratio_range",
    "RandomFlip.prob",
    "SegformerHead.in_index",
}
OF_ITS_OWN = {
    "Randomness.seed": "原程序每次启动随机取一个 there each launch draws one",
    "SegDataset.reduce_zero_label": "BaseSegDataset 为 False，LoveDADataset 为 True，与原程序相同；"
    "EarthVQADataset 为 True False for BaseSegDataset, True for LoveDADataset, as there; True for EarthVQADataset",
    "DataPrefix.seg_map_path": "训练和验证必须写出 training and validation refuse to be without",
    "MapSageConfig.param_scheduler": SAME,
    "SegformerHead.loss_decode": SAME,
}


def sections(section: type[Section] = MapSageConfig) -> list[type[Section]]:
    found = [section]
    for info in section.model_fields.values():
        for inside in sections_in(info.annotation):
            found += sections(inside)
    return list(dict.fromkeys(found))


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Key, default there, default here, what follows from a difference."""
    for section in sections():
        for name, there in THERE.get(section.__name__, {}).items():
            info = section.model_fields[name]
            key = f"{section.__name__}.{name}"
            yield key, there, here(info), consequence(key, name, there, info)


def here(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return f"{type(value).__name__}()"
    return repr(value)


def consequence(key: str, name: str, there: str, info: FieldInfo) -> str:
    if key in OF_ITS_OWN:
        return OF_ITS_OWN[key]
    if there == "-":
        return OURS
    if info.is_required():
        return SAME if there == "required" else REQUIRED_HERE
    if same(there, info):
        return SAME
    if there == "required":
        return REQUIRED_THERE
    if key in REFUSED_THERE:
        return NOT_STARTING
    if effect_of_field(info) in (Effect.FREE, Effect.IGNORED):
        return FREE
    said = any(pattern.rpartition(".")[2] == name and value_of(there) == value for pattern, value in SAID.items())
    assert said, f"{key}: {there} there, {here(info)} here, and nobody says so"
    return SAID_AT_LAUNCH


def same(there: str, info: FieldInfo) -> bool:
    value = info.get_default(call_default_factory=True)
    return not isinstance(value, Section) and there != "required" and value_of(there) == plain(value)


def value_of(text: str) -> Any:
    """A default as Python writes it, without running anything but arithmetic and `dict(...)` of literals."""
    node = ast.parse(text, mode="eval").body
    match node:
        case ast.Name(id="INF"):
            return math.inf
        case ast.BinOp(op=ast.Div()):
            return value_of(ast.unparse(node.left)) / value_of(ast.unparse(node.right))
        case ast.Call(func=ast.Name(id="dict")):
            return {item.arg: value_of(ast.unparse(item.value)) for item in node.keywords}
    return plain(ast.literal_eval(text))


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def shown(row: tuple[str, str, str, str]) -> str:
    key, there, value, words = row
    return f"| `{key}` | `{there}` | `{value}` | {words} |"


def test_the_page_has_every_key_with_both_defaults_and_what_follows() -> None:
    expected = [shown(row) for row in rows()]
    found = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert found == expected


def test_every_key_that_is_read_has_a_default_of_the_original() -> None:
    for section in sections():
        for name, info in section.model_fields.items():
            left_over = section is MapSageConfig and effect_of_field(info) is Effect.IGNORED
            if not (left_over or sections_in(info.annotation) or effect_of_field(info) is Effect.IGNORED):
                assert name in THERE[section.__name__], f"{section.__name__}.{name}"


def test_each_difference_that_is_said_at_launch_is_in_the_table() -> None:
    said = {key.rpartition(".")[2] for key, _, _, words in rows() if words == SAID_AT_LAUNCH}
    assert said == {pattern.rpartition(".")[2] for pattern in SAID}


@pytest.mark.parametrize("section", SOURCES)
def test_the_defaults_of_the_originals_are_those_of_their_own_sources(section: str) -> None:
    packages = next(ROOT.glob(".venv-mmengine/lib/python3*/site-packages"), None)
    if packages is None or not (packages / "mmseg").is_dir():
        pytest.skip("the original programs are not here")
    signature = read_signatures(packages, section)
    own = {name: there for name, there in THERE[section].items() if name in signature and name != "type"}
    drawn = {"seed": "required"} if section == "Randomness" else {}  # `dict(seed=None)` is the Runner's
    assert own | drawn == {name: signature[name] for name in own}
