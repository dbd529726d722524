"""Sample predictions: drawn after each evaluation, few and small, and never a reason for a training to end."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.twin.frail import build, read
from tests.twin.killing import assert_twins
from tests.unbroken.train.frail_sessions import fitted
from unbroken.launch import Environment
from unbroken.train import Every, Progress, Task, Validation, spread

Draw = Callable[[Progress], Mapping[str, bytes]]


def png(width: int = 4, height: int = 3, grey: int = 200) -> bytes:
    """A whole PNG file, written by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([grey]) * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def evaluated(run: Path, draw: Draw | None, *options: object, best_at: int = 4) -> str:
    """Train 16 steps, evaluated at each second one; the fourth is the best."""

    def evaluate(progress: Progress, _poll: Callable[[], None]) -> dict[str, float]:
        return {"score": 1.0 if progress.step == best_at else 1 / (2 + progress.step)}

    torch.manual_seed(0)
    task: Task = build(read([str(run), *map(str, options)], Environment()), print)
    task = replace(task, validation=Validation(evaluate=evaluate, every=Every(steps=2), best="score", pictures=draw))
    return fitted(run, task, *options)


def files(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.glob("predictions/**/*") if path.is_file()}


def images(run: Path) -> dict[str, list[int]]:
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    return {tag: [event.step for event in found.Images(tag)] for tag in found.Tags()["images"]}


def test_pictures_of_the_best_and_the_last_three_stay_and_all_are_shown(tmp_path: Path) -> None:
    evaluated(tmp_path, lambda progress: {"left": png(grey=progress.step), "right": png()})
    kept = {f"predictions/{step}/{name}.png" for step in (4, 12, 14, 16) for name in ("left", "right")}
    assert files(tmp_path) == kept
    assert (tmp_path / "predictions/4/left.png").read_bytes() == png(grey=4)
    assert images(tmp_path) == {f"predictions/{name}": list(range(2, 17, 2)) for name in ("left", "right")}
    reader = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    [first, *_] = reader.Images("predictions/left")
    assert (first.width, first.height, first.encoded_image_string) == (4, 3, png(grey=2))


def test_there_are_none_without_a_function_that_draws(tmp_path: Path) -> None:
    evaluated(tmp_path, None)
    assert not (tmp_path / "predictions").exists() and images(tmp_path) == {}


def test_drawing_changes_not_a_bit_of_the_training(tmp_path: Path) -> None:
    def draw(_progress: Progress) -> dict[str, bytes]:
        torch.rand(3), np.random.rand(3)
        return {"a": png()}

    evaluated(tmp_path / "drawn", draw, "--dropout", 0.3)
    evaluated(tmp_path / "plain", None, "--dropout", 0.3)
    assert_twins(tmp_path / "drawn", tmp_path / "plain", "iter_16.pth")


def failing(_progress: Progress) -> dict[str, bytes]:
    raise OSError("no such font")


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (failing, "OSError: no such font"),
        (lambda _: {"a": b"GIF89a"}, "ValueError: this is not a PNG file"),
        (lambda _: {"a": png(2000, 2)}, "ValueError: a is too large: 2000 x 2 px"),
        (lambda _: None, "TypeError"),
    ],
)
def test_a_failure_to_draw_is_said_once_and_ends_nothing(tmp_path: Path, draw: Draw, why: str) -> None:
    said = evaluated(tmp_path, draw)
    assert said.count("warning: no pictures of predictions") == 1 and why in said
    assert (tmp_path / "iter_16.pth").exists() and files(tmp_path) == set()


def test_a_place_that_cannot_be_written_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "predictions").write_text("a file stands where the folder should be")
    said = evaluated(tmp_path / "run", lambda _: {"a": png()})
    assert said.count("warning: no pictures of predictions") == 1
    assert (tmp_path / "run" / "iter_16.pth").exists()
    assert images(tmp_path / "run") == {"predictions/a": list(range(2, 17, 2))}, "TensorBoard shows them all the same"


def test_hostile_names_stay_below_the_folder(tmp_path: Path) -> None:
    evaluated(tmp_path, lambda _: {"../../../up": png(), "<b>\x1b[2J": png(), "x" * 100_000: png()})
    assert {name.rpartition("/")[2] for name in files(tmp_path)} == {"up.png", "b_2J.png", "x" * 40 + ".png"}
    assert not list(tmp_path.parent.glob("up*"))


def test_there_are_at_most_twelve_of_an_evaluation(tmp_path: Path) -> None:
    evaluated(tmp_path, lambda _: {f"n{number}": png() for number in range(40)}, "--steps", 2)
    assert len(files(tmp_path)) == 12


def test_samples_are_spread_from_the_first_to_the_last() -> None:
    assert list(spread(101, 3)) == [0, 50, 100]
    assert list(spread(2, 3)) == [0, 1] and list(spread(5, 1)) == [0] and list(spread(0, 3)) == []
    assert list(spread(5, 0)) == []
