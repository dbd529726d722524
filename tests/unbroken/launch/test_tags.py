"""Names of experiments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken import Job
from unbroken.config import ABSENT, Change, Effect, Effects
from unbroken.launch.options import file_name
from unbroken.launch.spelling import tag_for_changes, telling_tag, tells_nothing, trait
from unbroken.train import Exit, open_run

SHORT = {"MODEL.d_model.0": "d", "MODEL.nhead.0": "nhead", "OPTIMIZATION.BATCH": "bs"}


def job(tag: str, config: dict[str, Any] | None = None) -> Job:
    return Job(
        recipe="r", tag=tag, directory=Path("runs") / tag, config=config or {}, effects=Effects(), seed=0,
        short_names=SHORT,
    )  # fmt: skip


@pytest.mark.parametrize(
    "tag", ["default", "test1", "new", "tmp", "exp", "exp_2", "run3", "test", "NEW", "1", "42", "a", "测试1", "debug"]
)
def test_a_name_that_everybody_uses_for_everything_is_told_apart(tag: str) -> None:
    assert tells_nothing(tag)


@pytest.mark.parametrize(
    "tag",
    [
        "baseline_bs2",
        "grad_accum_x4_lr0.0005",
        "small_model_d96",
        "voxel_0.15_workers8",
        "exp1_baseline_20260205",
        "baseline",
        "full_model",
        "ablation_no_focal",
        "newton",
    ],
)
def test_the_guides_good_names_are_left_alone(tag: str) -> None:
    assert not tells_nothing(tag)


def test_a_tag_is_made_from_every_change() -> None:
    changes = [
        Change(key="MODEL.d_model.0", old=128, new=96, effect=Effect.SHAPE),
        Change(key="MODEL.nhead.0", old=8, new=6, effect=Effect.MEANING),
        Change(key="DATA.VOXEL_SIZE.0", old=0.25, new=0.15, effect=Effect.MEANING),
    ]
    assert tag_for_changes(job("baseline"), changes) == "baseline_d96_nhead6_voxel_size_0.15"
    taken = {"baseline_d96_nhead6_voxel_size_0.15", "baseline_d96_nhead6_voxel_size_0.15_2"}
    assert tag_for_changes(job("baseline"), changes, taken) == "baseline_d96_nhead6_voxel_size_0.15_3"
    assert telling_tag(["bs2", "lr0.0005"], "20260205") == "baseline_bs2_lr0.0005_20260205"


@pytest.mark.parametrize(
    ("value", "word"),
    [(True, "x_on"), (None, "x_none"), (ABSENT, "x_none"), (1e-4, "x_0.0001"), ([1, 2], "x_1_2"), ("a/b c", "x_a_b_c")],
)
def test_a_value_becomes_part_of_a_name(value: object, word: str) -> None:
    assert trait("A.0.X", value, {}, ends={}) == word


def test_keys_that_end_alike_are_told_apart_by_the_word_before() -> None:
    config = {"VFE": {"NUM_FILTERS": 8}, "HEAD": {"NUM_FILTERS": 8}, "OTHER": 1}
    change = Change(key="VFE.NUM_FILTERS", old=8, new=16, effect=Effect.SHAPE)
    assert tag_for_changes(job("baseline", config), [change]) == "baseline_vfe_num_filters_16"


@pytest.mark.parametrize("length", [40, 59, 60, 61, 100])
def test_a_long_tag_gives_way_to_what_changed(length: int) -> None:
    change = Change(key="MODEL.nhead.0", old=8, new=6, effect=Effect.MEANING)
    tag = tag_for_changes(job("x" * length), [change])
    assert tag.endswith("_nhead6") and tag != "x" * length and file_name(tag) == tag


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.one_of(st.text(), st.floats(), st.integers(), st.booleans())), min_size=1
    )
)
def test_whatever_changed_the_suggested_tag_is_a_folder_everywhere(changed: list[tuple[str, object]]) -> None:
    changes = [Change(key=key, old=0, new=new, effect=Effect.SHAPE) for key, new in changed]
    tag = tag_for_changes(job("baseline"), changes)
    assert file_name(tag) == tag and tag.startswith("baseline_")


# -- names that are typed, and those that a script gives --------------------------------------------------------------

NAMES = ["baseline_bs2", "grad_accum_x4_lr0.0005", "voxel_0.15_workers8", "消融实验_1", "a b", "x" * 100, "-x", ".a"]
NO_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "/abs",
    "a/b",
    "a/",
    "./a",
    "a\\b",
    "C:",
    "a:b",
    "a*",
    "x" * 101,
    "x" * 300,
    "实" * 90,
]
NO_NAMES += [
    "ends.",
    "ends ",
    " ",
    "line\nbreak",
    "\n",
    "tab\there",
    "null\x00",
    "\x1b[2J",
    "\x7f",
    "NUL",
    "con.txt",
    "lpt¹",
]
NO_NAMES += ["half \udcff", "\ud800", "next\x85line", "line\u2028break", "paragraph\u2029"]


@pytest.mark.parametrize("tag", NAMES)
def test_a_tag_may_be_any_name_of_a_folder(tag: str, tmp_path: Path) -> None:
    assert file_name(tag) == tag
    with pytest.raises(InterruptedError), open_run(tmp_path, tag=tag) as run:
        assert run.directory == tmp_path / tag
        raise InterruptedError


@pytest.mark.parametrize("tag", NO_NAMES)
def test_a_tag_that_is_no_folder_on_some_system_is_refused_at_every_door(
    tag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="name of one folder"):
        file_name(tag)
    root = tmp_path / "runs"
    with pytest.raises(Exit) as ending:
        open_run(root, tag=tag)
    said = capsys.readouterr().out
    assert ending.value.code == 2 and said.startswith("open_run(tag): this cannot be the name of an experiment."), said
    assert said.count("\n") == 1 and said.rstrip("\n").isprintable()
    assert not list(tmp_path.iterdir()), "nothing is made, neither here nor above"


@pytest.mark.parametrize("tag", [None, 5, Path("a"), b"a", ["a"]])
def test_a_tag_that_is_no_text_is_refused(tag: Any, tmp_path: Path) -> None:
    with pytest.raises(Exit) as ending:
        open_run(tmp_path, tag=tag)
    assert ending.value.code == 2 and not list(tmp_path.iterdir())
