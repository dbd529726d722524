"""`unbroken check`: what a training would fail on is found beforehand, all of it, and no run is touched."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import get_worker_info

from tests.focalsst.nano_job import CONFIG, frame
from tests.focalsst.nano_job import write_nano_job as write_sonar
from tests.mapsage.nano_job import write_nano_job as write_aerial
from tests.unbroken.cli.typing_commands import Type, contents, process, typing
from unbroken.errors import UsageError
from unbroken.train import check_dataset


@pytest.fixture
def type_command(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)


def truncated(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-30])
    return file


@pytest.mark.parametrize("workers", [0, 2])
def test_every_tile_that_cannot_be_read_is_named_and_no_run_is_touched(
    tmp_path: Path, type_command: Type, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    config = write_aerial(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["check", "mapsage", config, "--workers", workers]
    sound = type_command(*words)
    assert (sound.code, sound.err) == (0, "")
    assert "train: 5 samples read, none of them unreadable" in sound.out
    assert "validation: 2 samples read, none of them unreadable" in sound.out
    tile = truncated(sorted((tmp_path / "data/Train/images_png").rglob("*.png"))[2])
    mask = sorted((tmp_path / "data/Val/masks_png").rglob("*.png"))[1]
    mask.unlink()
    before = contents(tmp_path)
    found = type_command(*words)
    assert found.code == 12
    assert f"train sample 2: {tile}: the file is truncated" in found.out
    assert f"validation sample 1: {mask}: " in found.out
    assert "train: 5 samples read, 1 of them unreadable" in found.out
    data = type_command(*words, "--json").data
    assert [(each["data_set"], [bad["sample"] for bad in each["unreadable"]]) for each in data["data_sets"]] == [
        ("train", [2]),
        ("validation", [1]),
    ]
    assert contents(tmp_path) == before


def test_every_frame_that_cannot_be_read_is_named(
    tmp_path: Path, type_command: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_sonar(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["check", "focalsst", "--cfg_file", CONFIG, "--workers", 0]
    assert type_command(*words).code == 0
    bad = [truncated(frame(root, 3)), frame(root, 4)]
    bad[1].unlink()
    truncated(frame(root, 1, "val"))
    found = type_command(*words)
    assert found.code == 12
    assert all(
        f"train sample {index}: data/sonar/points_binary/{file.name}" in found.out for index, file in zip((3, 4), bad)
    )
    assert "test sample 1: " in found.out and not (tmp_path / "output").exists()


def test_a_recipe_without_data_sets_is_refused(type_command: Type) -> None:
    assert type_command("check", "no_such_recipe", "x").code == 2


def test_the_command_ends_with_12_in_a_process_of_its_own(tmp_path: Path) -> None:
    config = write_aerial(tmp_path)
    tile = truncated(sorted((tmp_path / "data/Train/images_png").rglob("*.png"))[0])
    ended = process("check", "mapsage", config, "--workers", 2)
    assert ended.code == 12 and f"train sample 0: {tile}: the file is truncated" in ended.out, ended
    assert "Traceback" not in ended.out + ended.err


class Rotten:
    """Every third sample fails in its own way."""

    ways: tuple[Callable[[], Any], ...] = (
        lambda: [][1],
        lambda: (_ for _ in ()).throw(UsageError("classes", "one is missing")),
        lambda: (_ for _ in ()).throw(MemoryError()),
        lambda: os.kill(os.getpid(), signal.SIGKILL) if get_worker_info() is not None else {}["killed"],
    )

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        if index % 3 == 1:
            self.ways[index // 3]()
        return index


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_nothing_that_goes_wrong_ends_the_search(workers: int) -> None:
    told: list[int] = []
    found = check_dataset(Rotten(), workers=workers, progress=told.append)
    assert [each.sample for each in found.bad] == [1, 4, 7, 10]
    assert found.samples == told[-1] == 12
