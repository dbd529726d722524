"""Validation: a frozen value, a canonical form, and all complaints of a file together."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from unbroken.config import ConfigError, Effect, Misfit, Section, merge_options, read_config, validate


class Resize(Section):
    type: Annotated[Literal["Resize"], Effect.DATA] = "Resize"
    scale: Annotated[tuple[int, int], Effect.DATA]


class Crop(Section):
    type: Annotated[Literal["Crop"], Effect.DATA] = "Crop"
    crop_size: Annotated[int, Field(gt=0), Effect.DATA]


class Backbone(Section):
    embed_dims: Annotated[int, Effect.SHAPE] = 32
    depths: Annotated[tuple[int, ...], Effect.SHAPE] = (1, 2)
    rate: Annotated[float, Effect.MEANING] = 0.0

    def misfits(self) -> Iterator[Misfit]:
        if sum(self.depths) > 100:
            yield Misfit("depths", "is too deep", "at most 100", sum(self.depths), "Take fewer.")


class Config(Section):
    backbone: Backbone = Backbone()
    pipeline: tuple[Annotated[Resize | Crop, Field(discriminator="type")], ...] = ()
    work_dir: Annotated[str | None, Effect.FREE] = None
    scale: Annotated[int | Literal["auto"], Effect.FREE] = "auto"
    data_root: Annotated[Any, Effect.IGNORED] = None

    def misfits(self) -> Iterator[Misfit]:
        if self.backbone.embed_dims == 13:
            yield Misfit("backbone.embed_dims", "brings bad luck")


def complaint(tree: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(Config, tree, where="somewhere.py")
    return str(caught.value)


def test_the_value_is_typed_frozen_and_complete():
    value = validate(Config, {"backbone": {"depths": [3, 4]}, "pipeline": [{"type": "Resize", "scale": (1, 2)}]}).value
    assert value.backbone.depths == (3, 4)
    assert isinstance(value.pipeline[0], Resize)
    with pytest.raises(ValidationError):
        value.work_dir = "elsewhere"  # type: ignore[misc]


def test_the_canonical_form_has_every_default_and_no_ignored_key_and_is_json():
    found = validate(Config, {"backbone": {"rate": 1}, "data_root": "x"})
    assert found.canonical == {
        "backbone": {"embed_dims": 32, "depths": [1, 2], "rate": 1.0},
        "pipeline": [],
        "work_dir": None,
        "scale": "auto",
    }
    assert json.loads(json.dumps(found.canonical)) == found.canonical
    assert tuple(found.ignored) == ("data_root",)


def test_the_canonical_form_is_a_config_with_the_same_canonical_form():
    once = validate(Config, {"pipeline": [{"type": "Crop", "crop_size": 3}]}).canonical
    assert validate(Config, once).canonical == once


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_lines(tmp_path: Path):
    path = tmp_path / "own.py"
    path.write_text(
        dedent(
            """\
            backbone = dict(
                embed_dim=64,
                depths=[1, 'two'])
            pipeline = [
                dict(type='Resize'),
                dict(type='Crop', crop_size=0),
                dict(type='Cropp'),
            ]
            work_dirs = 'x'
            """
        )
    )
    with pytest.raises(ConfigError) as caught:
        validate(Config, read_config(path))
    first, *rest = str(caught.value).splitlines()
    assert first.strip() == f"{path}: 6 settings are wrong."
    assert rest == [
        f"  {path}:2: `backbone.embed_dim` is not a known key. Did you mean `embed_dims`?",
        f"  {path}:3: `backbone.depths.1` has a wrong value. Expected a whole number, found 'two'.",
        f"  {path}:5: `pipeline.0.scale` is missing. Add it.",
        f"  {path}:6: `pipeline.1.crop_size` has a wrong value. Expected greater than 0, found 0.",
        f"  {path}:7: `pipeline.2.type` names nothing that is known. Expected Resize or Crop, found 'Cropp'. "
        "Did you mean `Crop`?",
        f"  {path}:9: `work_dirs` is not a known key. Did you mean `work_dir`?",
    ]


def test_one_complaint_keeps_its_parts(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("backbone:\n  embed_dims: many\n")
    with pytest.raises(ConfigError) as caught:
        validate(Config, read_config(path))
    data = caught.value.as_data()
    assert data["where"] == f"{path}:2"
    assert (data["expected"], data["found"], data["exit_code"]) == ("a whole number", "'many'", 2)


def test_more_complaints_than_anyone_reads_are_counted():
    text = complaint({f"unknown{number}": number for number in range(20)})
    assert "20 settings are wrong" in text
    assert "... and 12 more" in text


def test_an_unknown_key_of_a_step_is_compared_with_the_keys_of_that_step_only():
    text = complaint({"pipeline": [{"type": "Resize", "scale": [1, 2], "crop": 1}]})
    assert "`pipeline.0.crop` is not a known key" in text
    assert "crop_size" not in text


@pytest.mark.parametrize(
    ("tree", "part"),
    [
        ({"backbone": {"embed_dims": 3.0}}, "a whole number"),
        ({"backbone": {"embed_dims": True}}, "a whole number"),
        ({"backbone": {"embed_dims": "3"}}, "a whole number"),
        ({"backbone": {"rate": "0.1"}}, "a number"),
        ({"backbone": {"rate": float("nan")}}, "a finite number"),
        ({"backbone": None}, "`backbone`"),
        ({"backbone": []}, "`backbone`"),
        ({"scale": 1.5}, "a whole number or 'auto'"),
        ({"pipeline": {"type": "Resize"}}, "`pipeline`"),
        ({"pipeline": [{"scale": [1, 2]}]}, "has no `type`"),
        ({"pipeline": [3]}, "`pipeline.0`"),
        ({"data_root": {1, 2}}, "not plain data"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_was_expected(tree: dict[str, Any], part: str):
    assert part in complaint(tree)


def test_an_integer_is_welcome_where_a_number_is_expected():
    assert validate(Config, {"backbone": {"rate": 1}}).canonical["backbone"]["rate"] == 1.0


def test_misfits_of_all_sections_are_said_together_under_their_full_keys():
    text = complaint({"backbone": {"depths": [50, 60], "embed_dims": 13}})
    assert "`backbone.depths` is too deep. Expected at most 100, found 110. Take fewer." in text
    assert "`backbone.embed_dims` brings bad luck" in text


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("backbone.embed_dims=x", "backbone.embed_dims"),
        ("backbone.embed_dmis.rate=32", "backbone.embed_dmis"),  # a new section, in one that the file has
        ("bakbone.rate.deep=0.1", "bakbone"),
        ("backbone.depths=(50,60)", "backbone.depths"),  # a list is as wrong as what was put into it
        ("pipeline.0.scale=(1,)", "pipeline.0.scale"),
    ],
)
def test_a_value_from_the_command_line_is_not_blamed_on_a_line_of_the_file(tmp_path: Path, option: str, key: str):
    path = tmp_path / "own.py"
    path.write_text(
        "backbone = dict(\n    embed_dims=32,\n    depths=(1, 2))\npipeline = [dict(type='Resize', scale=(1, 2))]"
    )
    file = read_config(path)
    with pytest.raises(ConfigError, match=rf"^command line: `{re.escape(key)}`"):
        validate(Config, file.with_tree(merge_options(file.tree, [option])))


def test_the_room_is_imported_without_pydantic_yaml_or_torch():
    heavy = ("pydantic", "yaml", "torch", "numpy")
    code = f"import sys, unbroken.config; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sections_told_apart_by_another_name_than_type_are_complained_about_by_that_name():
    class Mask(Section):
        NAME: Annotated[Literal["mask"], Effect.DATA] = "mask"
        LOW: Annotated[int, Effect.DATA] = 0

    class Shuffle(Section):
        NAME: Annotated[Literal["shuffle"], Effect.DATA] = "shuffle"

    class Steps(Section):
        STEPS: tuple[Annotated[Mask | Shuffle, Field(discriminator="NAME")], ...]

    with pytest.raises(ConfigError) as caught:
        validate(Steps, {"STEPS": [{"NAME": "mesk"}, {"LOW": 1}, {"NAME": "mask", "LOV": 1}]})
    text = str(caught.value)
    assert "`STEPS.0.NAME` names nothing that is known" in text and "Did you mean `mask`?" in text
    assert "`STEPS.1` has no `NAME`" in text
    assert "`STEPS.2.LOV` is not a known key. Did you mean `LOW`?" in text


class Lengths(Section):
    """Lists that have to be of a length."""

    box: Annotated[tuple[float, float, float], Effect.MEANING]
    few: Annotated[tuple[int, ...], Effect.FREE, Field(max_length=2, min_length=1)] = (1,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"box": [1]}, "`box` has too few values. Expected 3 values, found [1]."),
        ({"box": [1, 2, 3, 4]}, "`box` has a wrong value. Expected at most 3 values, found [1, 2, 3, 4]."),
        ({"box": []}, "`box` has too few values. Expected 3 values, found []."),
        ({"box": [1, 2, 3], "few": [1, 2, 3]}, "`few` has a wrong value. Expected at most 2 values, found [1, 2, 3]."),
        ({"box": [1, 2, 3], "few": []}, "`few` has a wrong value. Expected at least 1 value, found []."),
    ],
)
def test_a_list_of_another_length_is_answered_with_its_length(tmp_path: Path, given: dict[str, Any], said: str):
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(given))
    with pytest.raises(ConfigError) as caught:
        validate(Lengths, read_config(path))
    assert str(caught.value) == f"{path}:1: {said}"
