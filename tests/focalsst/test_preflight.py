"""What would be learned wrong, or not at all, is said before: by the launch, by `why` and by `check` alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focalsst.dataset.infos import Annotation, read_infos, write_infos
from focalsst.datasets import preflight
from tests.focalsst.nano_job import CONFIG, job, session, write_nano_job
from tests.unbroken.cli.typing_commands import typing
from unbroken.errors import ConfigError, DamagedFile, UnbrokenError, UsageError

LIMIT = "MODEL.DENSE_HEAD.POST_PROCESSING.POST_CENTER_LIMIT_RANGE"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_nano_job(folder)
    return folder


@pytest.fixture
def root(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("data/sonar")


def warnings(*options: object) -> str:
    return "\n".join(preflight(job("--workers", 0, *options)))


def with_infos(root: Path, change: Callable[[Annotation], Annotation], split: str = "train") -> Path:
    file = root / f"sonar_infos_{split}.npz"
    write_infos(file, [change(each) for each in read_infos(file)])
    return file


def with_boxes(root: Path, change: Callable[[Any], Any], split: str = "train") -> Path:
    return with_infos(root, lambda each: replace(each, boxes=np.float32(change(each.boxes.astype(np.float64)))), split)


def with_points(root: Path, change: Callable[[Any], Any]) -> None:
    for file in (root / "points_binary").iterdir():
        change(np.fromfile(file, "<f4").reshape(-1, 5).astype(np.float64)).astype("<f4").tofile(file)


def column(number: int, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def changed(table: Any) -> Any:
        table[:, number] = change(table[:, number])
        return table

    return changed


def test_of_sound_data_nothing_is_said(root: Path) -> None:
    assert warnings() == ""


def test_headings_in_degrees_are_refused_with_what_to_write(root: Path) -> None:
    for split in ("val", "train"):
        file = with_boxes(root, column(6, np.rad2deg), split)
        with pytest.raises(DamagedFile, match=r"the headings are no radians.*Write heading \* pi / 180") as refused:
            warnings()
        assert refused.value.where == str(file)


def test_a_heading_of_more_than_a_turn_is_worth_a_word(root: Path) -> None:
    with_boxes(root, column(6, lambda heading: heading % (2 * np.pi) + 2 * np.pi))
    assert "rad, more than a turn: are they degrees?" in warnings()


def test_boxes_outside_the_range_are_refused_or_counted(root: Path) -> None:
    with_boxes(root, column(0, lambda x: x + 60), "val")
    assert "val.txt lies in the range" in warnings() and "nothing to judge by" in warnings()
    with_boxes(root, column(0, lambda x: x + 60))
    with pytest.raises(
        UsageError, match=r"not one of the \d+ objects of ImageSets/train.txt lies in the range.*axes|y left"
    ):
        warnings()


def test_most_boxes_outside_the_range_are_counted(root: Path) -> None:
    frames = iter(range(100))
    with_boxes(root, lambda boxes: boxes + np.eye(7)[0] * 60 if next(frames) < 7 else boxes)
    assert "objects of ImageSets/train.txt lie outside DATA_CONFIG.POINT_CLOUD_RANGE" in warnings()


def test_a_part_or_a_class_without_a_box_is_said(root: Path) -> None:
    bare = lambda each: replace(each, names=(), boxes=each.boxes[:0])  # noqa: E731
    with_infos(root, bare, "val")
    assert "of ImageSets/val.txt has an object of Box, Diver: there is nothing to judge by" in warnings()
    with_infos(root, lambda each: _only(each, "Box"))
    assert "no frame of ImageSets/train.txt has an object of class Diver" in warnings()
    with_infos(root, bare)
    with pytest.raises(UsageError, match=r"train.txt has an object of Box, Diver.* nothing to learn from"):
        warnings()


def _only(each: Annotation, name: str) -> Annotation:
    kept = [index for index, other in enumerate(each.names) if other == name]
    return replace(each, names=(name,) * len(kept), boxes=each.boxes[kept])


@pytest.mark.parametrize("encoding", ["standard", "original"])
@pytest.mark.parametrize(
    "change",
    [
        lambda loud: (loud - loud.min()) / (loud.max() - loud.min()),
        lambda loud: (loud - loud.min()) / (loud.max() - loud.min()) * 255,
        lambda loud: np.log10(loud + 1) / 11,
        lambda loud: 10 * np.log10(loud),
        lambda loud: loud * 0 + 7e8,
        lambda loud: loud * 1e9,
    ],
    ids=["0..1", "0..255", "encoded", "decibels", "one", "far louder"],
)
def test_intensities_of_another_scale_are_said(root: Path, change: Callable[[Any], Any], encoding: str) -> None:
    with_points(root, column(3, change))
    key = "DATA_CONFIG.POINT_FEATURE_ENCODING.INTENSITY"
    said = warnings("--set", key, encoding)
    assert f"expected by POINT_FEATURE_ENCODING.INTENSITY {encoding}: the network sees" in said


def test_a_range_of_detections_inside_that_of_points_is_said(root: Path) -> None:
    said = warnings("--set", LIMIT, "[2, -5, -6, 20, 5, 3]")
    assert f"{LIMIT} [2.0, -5.0, -6.0, 20.0, 5.0, 3.0] lies inside" in said and "can never be detected" in said
    with pytest.raises(ConfigError, match=r"nothing in common with .*: every detection would be dropped"):
        warnings("--set", LIMIT, "[100, -5, -6, 120, 5, 3]")


def test_infos_of_more_frames_than_the_list_are_a_whole_of_which_it_names_a_part(root: Path) -> None:
    frames = root / "ImageSets" / "train.txt"
    first, *others = frames.read_text().split()
    frames.write_text("\n".join(others))
    assert f"also knows {first}, which ImageSets/train.txt does not list: not used" in warnings()


@pytest.mark.parametrize("copy", ["", "a_"])
def test_frames_that_are_trained_on_and_judged_by_are_counted(root: Path, copy: str) -> None:
    first = (root / "ImageSets" / "val.txt").read_text().split()[0]
    with (root / "ImageSets" / "train.txt").open("a") as file:
        file.write(f"\n{copy}{first}\n")
    known = next(each for each in read_infos(root / "sonar_infos_val.npz") if each.frame == first)
    infos = root / "sonar_infos_train.npz"
    write_infos(infos, [*read_infos(infos), replace(known, frame=f"{copy}{first}")])
    points = root / "points_binary"
    if copy:
        shutil.copyfile(points / f"{first}.bin", points / f"{copy}{first}.bin")
    said = warnings()
    assert f"of ImageSets/val.txt are trained on too, as themselves or as a copy (first {first})" in said


def test_points_and_boxes_of_other_axes_are_said(root: Path) -> None:
    with_boxes(root, lambda boxes: boxes + [0, 0, 40, 0, 0, 0, 0] * np.ones((len(boxes), 1)), "val")
    assert "has a point in it: do points and boxes have the same axes" in warnings()
    with_points(root, lambda points: points[:, [1, 0, 2, 3, 4]] * [-1, 1, 1, 1, 1])
    assert "of its points lie in DATA_CONFIG.POINT_CLOUD_RANGE" in warnings()


def test_a_fifth_column_that_is_no_class_is_said(root: Path) -> None:
    with_points(root, column(4, lambda label: label + 0.25))
    assert "the fifth column holds no classes" in warnings()


def test_launch_why_and_check_say_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_points(root, column(3, lambda loud: loud / loud.max()))
    said = warnings().splitlines()[0]
    type_ = typing(capsys)
    words = ["focalsst", "--cfg_file", CONFIG, "--workers", "0"]
    assert f"  warning: {said}\n" in type_("why", *words).out
    assert said in type_("why", *words, "--json").data["warnings"]
    checked = type_("check", *words)
    assert checked.code == 0 and f"warning: {said}\n" in checked.out
    assert said in type_("check", *words, "--json").data["warnings"]
    code, text = session(job("--workers", 0, "--epochs", 1))
    assert code == 0 and f"  warning: {said}\n" in text
    with_boxes(root, column(6, np.rad2deg))
    refused = type_("check", *words)
    assert refused.code == DamagedFile.exit_code and "the headings are no radians" in refused.out
    with pytest.raises(UnbrokenError, match="the headings are no radians"):
        session(job("--workers", 0, "--tag", "other"))
