"""The procedural tiles: reproducible, of every class, not told by colour, and careful with directories."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mapsage.dataset.folders import AerialFolder
from mapsage.dataset.palette import EARTHVQA_CLASSES
from mapsage.dataset.pipeline import Pipeline
from mapsage.samples import VALUES, draw_tile, write_sample_data
from unbroken.errors import UsageError

SMALL = {"train": 5, "val": 2, "size_px": 64, "val_size_px": 80}


def pixels_of(directory):
    return {
        str(path.relative_to(directory)): np.array(Image.open(path)).tobytes()
        for path in sorted(directory.rglob("*.png"))
    }


@pytest.fixture(scope="module")
def full_set(tmp_path_factory):
    directory = tmp_path_factory.mktemp("aerial") / "data"
    return directory, write_sample_data(directory)


def load(directory, split):
    pairs = []
    for path in sorted((directory / split / "images_png").iterdir()):
        with Image.open(path) as image, Image.open(directory / split / "masks_png" / path.name) as mask:
            pairs.append((np.array(image), np.array(mask)))
    return pairs


def test_the_layout_and_coding_are_those_of_earthvqa(full_set):
    directory, summary = full_set
    assert summary["written"] == 120
    for split, count, size in (("Train", 96, 128), ("Val", 24, 192)):
        folder = AerialFolder(
            data_root=directory,
            img_path=f"{split}/images_png",
            seg_map_path=f"{split}/masks_png",
            classes=EARTHVQA_CLASSES,
            pipeline=Pipeline([{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]),
        )
        assert len(folder) == count
        sample = folder.sample(0, np.random.default_rng(0))
        assert sample.image.shape == (3, size, size)


def test_every_class_has_more_than_one_percent_of_the_pixels_in_both_splits(full_set):
    _, summary = full_set
    for split in ("Train", "Val"):
        shares = summary["splits"][split]["shares"]
        assert all(shares[name] > 0.01 for name in EARTHVQA_CLASSES), shares


@pytest.mark.parametrize("seed", range(5))
def test_two_validation_tiles_are_enough_for_every_class(seed):
    masks = [draw_tile("Val", index, seed, 96)[1] for index in range(2)]
    assert set(np.unique(masks)) >= set(range(1, 9))


def test_a_quarter_of_the_tiles_has_a_black_strip_of_no_data(full_set):
    directory, _ = full_set
    edged = [(image, mask) for image, mask in load(directory, "Train") if (mask == 0).any()]
    assert len(edged) == 24
    assert all((image[mask == 0] == 0).all() for image, mask in edged)


def test_the_manifest_counts_the_pixels_of_every_class(full_set):
    directory, summary = full_set
    manifest = json.loads((directory / "manifest.json").read_text())
    counts = sum(np.bincount(mask.ravel(), minlength=9) for _, mask in load(directory, "Val"))
    assert list(manifest["splits"]["Val"]["pixels"].values()) == counts.tolist()
    assert list(manifest["splits"]["Val"]["pixels"]) == list(VALUES)
    assert manifest["splits"] == summary["splits"]


def test_colour_alone_does_not_tell_the_classes(full_set):
    """The best guess from the colour of a pixel, counted on the training tiles, stays below 0.5 mIoU."""
    directory, _ = full_set
    votes = np.zeros((4096, 9), np.int64)
    for image, mask in load(directory, "Train"):
        np.add.at(votes, ((image // 16).astype(int) @ [256, 16, 1], mask), 1)
    guess = votes.argmax(axis=1)
    confusion = np.zeros((9, 9), np.int64)
    for image, mask in load(directory, "Val"):
        np.add.at(confusion, (mask, guess[(image // 16).astype(int) @ [256, 16, 1]]), 1)
    confusion = confusion[1:, :]
    hits = confusion[:, 1:].diagonal()
    iou = hits / (confusion.sum(axis=1) + confusion[:, 1:].sum(axis=0) - hits)
    assert 0.15 < iou.mean() < 0.5


def test_a_tile_is_the_same_in_any_subset_and_in_another_process(tmp_path):
    write_sample_data(tmp_path / "few", **SMALL)
    write_sample_data(tmp_path / "more", **(SMALL | {"train": 8, "val": 3}))
    code = f"""from pathlib import Path
from mapsage.samples import write_sample_data
write_sample_data(Path({str(tmp_path / "again")!r}), **{SMALL!r})"""
    subprocess.run([sys.executable, "-c", code], check=True)
    few, more, again = (pixels_of(tmp_path / name) for name in ("few", "more", "again"))
    assert few == again
    assert few.items() <= more.items()


def test_split_index_and_seed_each_change_the_tile():
    tiles = [("Train", 0, 0), ("Val", 0, 0), ("Train", 2, 0), ("Train", 0, 1)]
    assert len({draw_tile(*tile, 64)[0].tobytes() for tile in tiles}) == 4


def test_drawing_touches_no_global_generator():
    before = np.random.get_state()[1].copy()
    draw_tile("Train", 0, 0, 64)
    assert (np.random.get_state()[1] == before).all()


def test_a_repeated_call_writes_nothing_and_says_so(tmp_path):
    first = write_sample_data(tmp_path, **SMALL)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = write_sample_data(tmp_path, **SMALL)
    assert second["written"] == 0
    assert second["message"].startswith("Nothing to do: 5 training and 2 validation tiles")
    assert second["splits"] == first["splits"]
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"in use.* found other files\. Choose another directory"):
        write_sample_data(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(UsageError, match="in use"):
        write_sample_data(tmp_path / "data", **SMALL)


def test_sample_data_of_other_parameters_is_refused_with_what_they_are(tmp_path):
    write_sample_data(tmp_path, **SMALL)
    before = pixels_of(tmp_path)
    with pytest.raises(UsageError, match=r"found sample data of train 5, val 2, size_px 64, .*seed 0"):
        write_sample_data(tmp_path, **SMALL, seed=1)
    assert pixels_of(tmp_path) == before


class Killed(BaseException):
    """Stands for a signal between two tiles."""


@pytest.mark.parametrize("at", [1, 4, 7])
def test_after_a_kill_the_same_call_completes_the_data(tmp_path, at):
    def kill(done, total):
        assert total == 7
        if done == at:
            raise Killed

    with pytest.raises(Killed):
        write_sample_data(tmp_path / "data", **SMALL, progress=kill)
    assert write_sample_data(tmp_path / "data", **SMALL)["written"] == 7
    write_sample_data(tmp_path / "whole", **SMALL)
    assert pixels_of(tmp_path / "data") == pixels_of(tmp_path / "whole")


@pytest.mark.parametrize("torn", ["settings.json", "manifest.json", "Train/masks_png/tile_0003.png"])
def test_a_torn_file_is_written_again(tmp_path, torn):
    write_sample_data(tmp_path / "whole", **SMALL)
    data = (tmp_path / "whole" / torn).read_bytes()
    if torn == "settings.json":  # the first write: nothing else is there yet
        (tmp_path / "data").mkdir()
    else:
        write_sample_data(tmp_path / "data", **SMALL)
    (tmp_path / "data" / torn).write_bytes(data[: len(data) // 2])
    assert write_sample_data(tmp_path / "data", **SMALL)["written"] == 7
    assert (tmp_path / "data" / torn).read_bytes() == data


def test_too_few_or_too_small_tiles_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"too few tiles.* found train 4, val 1"):
        write_sample_data(tmp_path, train=4, val=1)
    with pytest.raises(UsageError, match=r"too small.* found 32 and 192"):
        write_sample_data(tmp_path, size_px=32)


def test_the_generator_loads_neither_torch_nor_opencv():
    code = "import sys, mapsage.samples; sys.exit(bool({'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.cwd()).returncode == 0
