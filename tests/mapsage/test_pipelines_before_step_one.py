"""Pipelines are tried on real tiles, as they are written, before the first step: by `train` and by `why`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nano_job import evaluated, job, session, write_nano_job
from PIL import Image

from unbroken.cli import main
from unbroken.errors import ConfigError

LOAD, MASK, PACK = (f'dict(type="{kind}")' for kind in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs"))
RESIZE = 'dict(type="Resize", scale=(48, 48), keep_ratio=True)'
CROP = 'dict(type="RandomCrop", crop_size=_crop)'
FLIP = 'dict(type="RandomFlip", prob=0.5)'
ENLARGE = 'dict(type="RandomResize", scale=(64, 64), ratio_range=(0.5, 2.0), keep_ratio=True)'


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_pipelines(folder: Path, *, train: tuple[str, ...] = (), val: tuple[str, ...] = ()) -> Path:
    config = write_nano_job(folder, steps=2)
    text = config.read_text("utf-8")
    for name, steps in (("train", train), ("val", val)):
        if steps:
            start = text.index("pipeline=[", text.index(f"{name}_dataloader"))
            end = text.index("]))", start)
            text = f"{text[:start]}pipeline=[{', '.join(steps)}{text[end:]}"
    config.write_text(text, "utf-8")
    return config


REFUSED = {
    "a mask that is resized in validation": (
        {"val": (LOAD, MASK, RESIZE, PACK)},
        ("val_dataloader.dataset.pipeline (tile_0000)", "48x48", "64x64", "LoadAnnotations comes after any resize"),
    ),
    "a mask that is loaded too late to train on": (
        {"train": (LOAD, RESIZE, MASK, PACK)},
        ("train_dataloader.dataset.pipeline (tile_0000)", "LoadAnnotations comes before any resize"),
    ),
    "a picture that is sometimes larger than a batch": (
        {"train": (LOAD, MASK, ENLARGE, PACK)},
        ("train_dataloader.dataset.pipeline (tile_0000)", "larger than a training batch", "127x127"),
    ),
    "no masks to train on": ({"train": (LOAD, CROP, PACK)}, ("`train_dataloader.dataset.pipeline` loads no masks",)),
    "no masks to compare with": ({"val": (LOAD, PACK)}, ("`val_dataloader.dataset.pipeline` loads no masks",)),
    "masks loaded twice": ({"train": (LOAD, MASK, CROP, MASK, PACK)}, ("loads its masks 2 times",)),
    "a picture turned before its mask is there": (
        {"train": (LOAD, FLIP, MASK, CROP, PACK)},
        ("`train_dataloader.dataset.pipeline.1` is a RandomFlip before the masks are loaded",),
    ),
    "a crop in validation": (
        {"val": (LOAD, MASK, CROP, PACK)},
        ("`val_dataloader.dataset.pipeline.2` is a RandomCrop, in validation",),
    ),
    "a flip in validation": (
        {"val": (LOAD, FLIP, MASK, PACK)},
        ("`val_dataloader.dataset.pipeline.1` is a RandomFlip, in validation",),
    ),
}


@pytest.mark.parametrize(("pipelines", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_pipeline_that_cannot_work_is_refused_by_train_and_by_why_and_nothing_is_left(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pipelines: dict[str, tuple[str, ...]],
    words: tuple[str, ...],
) -> None:
    config = with_pipelines(tmp_path, **pipelines)
    with pytest.raises(ConfigError) as refused:
        session(job(config))
    assert refused.value.exit_code == 2
    assert main(["why", "mapsage", str(config)]) == 2
    for said in (str(refused.value), capsys.readouterr().err):
        assert all(word in said for word in words), said
    assert not (tmp_path / "work_dirs").exists()


def test_a_mask_loaded_before_a_resize_that_changes_nothing_is_as_good(tmp_path: Path) -> None:
    same = RESIZE.replace("48, 48", "64, 64")
    asked = job(with_pipelines(tmp_path, val=(LOAD, MASK, same, PACK)))
    assert session(asked)[0] == 0
    assert evaluated(asked.directory) == [2]


def put_tile(root: Path, name: str, size_HW: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (*size_HW, 3), dtype=np.uint8)).save(root / "images_png" / f"{name}.png")
    Image.fromarray(rng.integers(0, 9, size_HW, dtype=np.uint8)).save(root / "masks_png" / f"{name}.png")


@pytest.mark.parametrize("size_HW", [(1, 1), (3, 5000), (5000, 3)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("place", ["a_first", "tile_0000_between"])
def test_a_tile_of_any_size_is_trained_on_and_judged(tmp_path: Path, place: str, size_HW: tuple[int, int]) -> None:
    config = write_nano_job(tmp_path, steps=4, more="train_cfg['val_interval'] = 2")
    for part in ("Train", "Val"):
        put_tile(tmp_path / "data" / part, place, size_HW)
    asked = job(config)
    code, said = session(asked)
    assert code == 0
    assert "Iter(val) [3/3]" in said
    assert len(list((asked.directory / "predictions").rglob("*.png"))) >= 1


def test_a_tile_of_another_size_than_the_first_ends_the_validation_with_its_name_and_a_fix(
    tmp_path: Path,
) -> None:
    same = RESIZE.replace("48, 48", "64, 64")
    config = with_pipelines(tmp_path, val=(LOAD, MASK, same, PACK))
    put_tile(tmp_path / "data/Val", "tile_0000_between", (100, 100))
    with pytest.raises(ConfigError, match=r"tile_0000_between: the mask is resized together with its picture"):
        session(job(config))
    assert (tmp_path / "work_dirs/nano/iter_2.pth").exists()


def test_a_batch_that_is_less_than_the_network_can_take_is_refused(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path)
    text = config.read_text("utf-8").replace("_crop = (64, 64)", "_crop = (24, 24)")
    config.write_text(text.replace("(48, 48)", "(16, 16)"), "utf-8")
    with pytest.raises(ConfigError, match=r"less than the network can take.* at least 29 px"):
        job(config)
