"""Pictures as people have them: endings in capitals, masks of 16 bits, photographs that lie on their side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nano_job import job, session, write_nano_job
from PIL import Image

from mapsage.dataset.folders import AerialFolder
from mapsage.dataset.palette import EARTHVQA_CLASSES
from mapsage.dataset.pipeline import Pipeline
from unbroken.cli import main
from unbroken.errors import DamagedFile, UsageError

STEPS = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]


def folder_of(root: Path, *, img_suffix: str = ".png") -> AerialFolder:
    return AerialFolder(
        data_root=root,
        img_path="images_png",
        seg_map_path="masks_png",
        classes=EARTHVQA_CLASSES,
        pipeline=Pipeline(STEPS),
        img_suffix=img_suffix,
    )


def write_mask(root: Path, mask: Image.Image, *, name: str = "t") -> Path:
    path = root / "masks_png" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path, format="TIFF" if mask.mode in ("I", "F") else "PNG")  # read by content, whatever the name says
    return path


def write_picture(root: Path, *, size_HW: tuple[int, int], orientation: int | None, kind: str = "jpg") -> None:
    rng = np.random.default_rng(0)
    picture, exif = Image.fromarray(rng.integers(0, 256, (*size_HW, 3), dtype=np.uint8)), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    path = root / "images_png" / f"t.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, exif=exif)


def ones(size_HW: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.ones(size_HW, np.uint8))


# -- endings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".PNG", ".Png", ".jpg", ".TIF"])
def test_pictures_that_end_otherwise_are_named_by_train_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_nano_job(tmp_path, steps=1)
    for kind in ("images_png", "masks_png"):
        file = tmp_path / "data/Train" / kind / "tile_0002.png"
        file.rename(file.with_suffix(ending))
    words = f"1 of 5 pictures are left out, as img_suffix is '.png': tile_0002{ending}"
    assert main(["why", "mapsage", str(config)]) == 0
    assert words in capsys.readouterr().out
    code, said = session(job(config))
    assert code == 0 and words in said


def test_nothing_is_said_of_masks_beside_their_pictures_or_of_other_files(tmp_path: Path) -> None:
    write_picture(tmp_path, size_HW=(8, 8), orientation=None, kind="png")
    write_mask(tmp_path, ones((8, 8)))
    (tmp_path / "images_png/notes.txt").write_text("no picture")
    (tmp_path / "images_png/._t.PNG").write_bytes(b"left by a file manager")
    assert folder_of(tmp_path).left_out() == ""


def test_a_mask_whose_name_differs_in_capitals_alone_is_named(tmp_path: Path) -> None:
    write_picture(tmp_path, size_HW=(8, 8), orientation=None, kind="png")
    mask = write_mask(tmp_path, ones((8, 8)))
    mask.rename(mask.with_suffix(".PNG"))
    with pytest.raises(UsageError, match=r"1 of 1 pictures have no mask.*Rename .*t\.PNG: upper and lower case count"):
        folder_of(tmp_path)


# -- masks -------------------------------------------------------------------------------------------------------------

MODES = {
    "16 bits": (Image.fromarray(np.full((8, 8), 300, np.uint16)), "save its array as uint8"),
    "32 bits": (Image.fromarray(np.full((8, 8), 3, np.int32)), "save its array as uint8"),
    "one bit": (Image.new("1", (8, 8), 1), "one bit for each pixel"),
    "alpha": (Image.new("LA", (8, 8), (3, 255)), "without its alpha channel"),
    "colours": (Image.new("RGB", (8, 8)), "class numbers, not colours"),
    "colours and alpha": (Image.new("RGBA", (8, 8)), "class numbers, not colours"),
}


@pytest.mark.parametrize(("mask", "advice"), MODES.values(), ids=MODES.keys())
def test_a_mask_of_another_kind_is_refused_with_what_helps_it(tmp_path: Path, mask: Image.Image, advice: str) -> None:
    write_picture(tmp_path, size_HW=(8, 8), orientation=None, kind="png")
    write_mask(tmp_path, mask)
    with pytest.raises(DamagedFile, match=r"not a class map") as refused:
        folder_of(tmp_path).tile(0, np.random.default_rng(0))
    assert advice in str(refused.value)


# -- EXIF orientation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_a_picture_that_is_turned_against_its_mask_is_never_trained_on(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    write_picture(tmp_path, size_HW=(40, 48), orientation=orientation, kind=kind)
    write_mask(tmp_path, ones((40, 48)))
    folder = folder_of(tmp_path, img_suffix=f".{kind}")
    with pytest.raises(DamagedFile, match=rf"EXIF orientation \({orientation}\).*exif_transpose"):
        folder.tile(0, np.random.default_rng(0))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_square_picture_that_is_turned_is_refused_as_nothing_tells_how_its_mask_lies(
    tmp_path: Path, orientation: int
) -> None:
    write_picture(tmp_path, size_HW=(40, 40), orientation=orientation)
    write_mask(tmp_path, ones((40, 40)))
    with pytest.raises(DamagedFile, match="nothing tells whether the mask is"):
        folder_of(tmp_path, img_suffix=".jpg").tile(0, np.random.default_rng(0))


def test_a_mask_that_was_drawn_on_the_turned_picture_fits_it(tmp_path: Path) -> None:
    write_picture(tmp_path, size_HW=(40, 48), orientation=6)
    write_mask(tmp_path, ones((48, 40)))
    tile = folder_of(tmp_path, img_suffix=".jpg").tile(0, np.random.default_rng(0))
    assert tile.mask is not None and tile.mask.shape == tile.shape == (48, 40)


@pytest.mark.parametrize("orientation", [None, 0, 1, 9])
def test_a_picture_that_lies_as_it_is_stored_is_read_as_ever(tmp_path: Path, orientation: int | None) -> None:
    write_picture(tmp_path, size_HW=(40, 48), orientation=orientation)
    write_mask(tmp_path, ones((40, 48)))
    assert folder_of(tmp_path, img_suffix=".jpg").tile(0, np.random.default_rng(0)).shape == (40, 48)
