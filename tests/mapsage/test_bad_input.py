"""Tiles that cannot be read: the training ends with them named and everything saved, or goes on without them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.mapsage.nano_job import job, session, write_nano_job
from tests.twin.killing import events

from unbroken import Job
from unbroken.errors import DamagedFile, UsageError
from unbroken.train import differences, read_checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_nano_job(folder)
    return folder


@pytest.fixture
def tiles(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The training tiles of a data set of its own; the folder is the current one."""
    shutil.copytree(whole / "data", tmp_path / "data")
    config = (whole / "nano.py").read_text().replace(str(whole / "data"), "data")
    (tmp_path / "nano.py").write_text(config)
    monkeypatch.chdir(tmp_path)
    return sorted(Path("data/Train/images_png").rglob("*.png"))


def asked(run: str, *options: object, workers: int = 0) -> Job:
    short = ["train_cfg.max_iters=8", "train_cfg.val_interval=100", "default_hooks.checkpoint.interval=50"]
    words = ["--work-dir", run, "--workers", workers, "--pictures", 0, *options, "--cfg-options", *short]
    return job(Path("nano.py"), *words)


def truncated(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-30])
    return file


@pytest.mark.parametrize("workers", [0, 2])
def test_a_tile_in_mid_training_costs_no_step_and_the_mended_run_ends_as_its_twin(
    tiles: list[Path], workers: int
) -> None:
    tile, sound = tiles[2], tiles[2].read_bytes()
    truncated(tile)
    with pytest.raises(DamagedFile, match="the file is truncated") as bad:
        session(asked("t", workers=workers))
    assert str(bad.value).startswith(f"{tile}: ") and bad.value.exit_code == 12
    saved = list(Path("t").glob("iter_[0-9].pth"))
    tile.write_bytes(sound)
    assert session(asked("t", workers=workers))[0] == session(asked("twin"))[0] == 0
    one, twin = (read_checkpoint(Path(run, "iter_8.pth")) for run in ("t", "twin"))
    assert [each for each in differences(one, twin) if not each.startswith((".unbroken.run", ".meta"))] == []
    (ended,) = events(Path("t"), "failed")
    assert [file.name for file in saved] == ([f"iter_{ended['step']}.pth"] if ended["step"] else [])


@pytest.mark.parametrize("workers", [0, 2])
def test_tiles_are_left_out_on_request_said_and_counted(tiles: list[Path], workers: int) -> None:
    truncated(tiles[1])
    Path(str(tiles[3]).replace("images_png", "masks_png")).unlink()
    gone = truncated(sorted(Path("data/Val/masks_png").rglob("*.png"))[0])
    with pytest.raises(UsageError, match="1 of 5 pictures have no mask"):
        session(asked("t", workers=workers))
    code, said = session(asked("t", "--on-bad-sample", "skip", workers=workers))
    assert code == 0, said
    skipped = events(Path("t"), "skipped")
    assert {event["sample"] for event in skipped} == {1, 3}
    assert read_checkpoint(Path("t/iter_8.pth"))["unbroken"]["skipped"] == len(skipped)
    assert f"skipped in evaluation: {gone}: " in said and "Iter(val) [1/2]" in said


def test_a_stop_among_skipped_tiles_changes_no_bit(tiles: list[Path]) -> None:
    truncated(tiles[1])
    skip = ("--on-bad-sample", "skip")
    assert session(asked("cut", *skip), stop_at=3)[0] == 75
    assert session(asked("cut", *skip, workers=2))[0] == session(asked("one", *skip))[0] == 0
    cut, one = (read_checkpoint(Path(run, "iter_8.pth")) for run in ("cut", "one"))
    assert [each for each in differences(cut, one) if not each.startswith((".unbroken.run", ".meta"))] == []


def test_nothing_that_can_be_read_ends_it(tiles: list[Path]) -> None:
    for tile in tiles:
        truncated(tile)
    with pytest.raises(DamagedFile, match="not one of its 5 samples can be read"):
        session(asked("t", "--on-bad-sample", "skip"))
