"""Folders on disk: order, coding of the labels, determinism, and what is said when something is wrong."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mapsage.dataset.folders import AerialFolder, Concatenation
from mapsage.dataset.palette import EARTHVQA_CLASSES, EARTHVQA_PALETTE, LOVEDA_CLASSES, LOVEDA_PALETTE
from mapsage.dataset.pipeline import Pipeline
from mapsage.dataset.reading import reduce_zero
from unbroken.errors import ConfigError, DamagedFile, UsageError

REAL_TILES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "aerial_mini"

PLAIN = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
TRAINING = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomResize", "scale": (64, 64), "ratio_range": (0.5, 2.0), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (32, 32), "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackSegInputs"},
]
VALIDATION = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "scale": (32, 32), "keep_ratio": True},
    {"type": "LoadAnnotations"},
    {"type": "PackSegInputs"},
]


def write_tile(root, name, *, mask=None, size=(40, 48), folders=("images_png", "masks_png")):
    rng = np.random.default_rng(len(name))
    image, label = root / folders[0] / f"{name}.png", root / folders[1] / f"{name}.png"
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(image)
    mask = rng.integers(0, 9, size, dtype=np.uint8) if mask is None else mask
    Image.fromarray(mask).save(label)
    return image, label


def a_folder(root, *, steps=PLAIN, **changes):
    settings = {
        "img_path": "images_png",
        "seg_map_path": "masks_png",
        "classes": EARTHVQA_CLASSES,
        "pipeline": Pipeline(steps),
    }
    return AerialFolder(data_root=root, **(settings | changes))


def rng(seed=0):
    return np.random.default_rng(seed)


def digest(sample):
    return hashlib.sha256(sample.image.numpy().tobytes() + sample.label.numpy().tobytes()).hexdigest()


def message(raised):
    return str(raised.value)


def test_pictures_are_found_in_every_depth_and_sorted_by_full_path(tmp_path):
    for name in ("b/2", "a", "b/10", "b-side", "c"):
        write_tile(tmp_path, name)
    (tmp_path / "images_png" / "._a.png").write_bytes(b"left by a file manager")
    (tmp_path / "images_png" / "notes.txt").write_text("no picture")
    folder = a_folder(tmp_path)
    assert folder.names == ("a", "b-side", "b/10", "b/2", "c")  # "-" and "." sort before "/"
    assert len(folder) == 5
    assert folder.sample(2, rng()).name == "b/10"


def test_suffixes_may_differ_between_pictures_and_masks(tmp_path):
    image, mask = write_tile(tmp_path, "t")
    image.rename(image.with_name("t_rgb.png"))
    mask.rename(mask.with_name("t_mask.png"))
    folder = a_folder(tmp_path, img_suffix="_rgb.png", seg_map_suffix="_mask.png")
    assert folder.names == ("t",)
    assert folder.sample(0, rng()).label.shape == (40, 48)


def test_the_loveda_layout_is_two_folders_joined(tmp_path):
    for area in ("Rural", "Urban"):
        for number in (1, 2):
            mask = np.full((40, 48), number, np.uint8)
            write_tile(tmp_path / "Train" / area, f"{area}{number}", mask=mask)
    folders = [
        a_folder(
            tmp_path,
            img_path=f"Train/{area}/images_png",
            seg_map_path=f"Train/{area}/masks_png",
            classes=LOVEDA_CLASSES,
        )
        for area in ("Rural", "Urban")
    ]
    joined = Concatenation(folders)
    assert joined.names == ("Rural1", "Rural2", "Urban1", "Urban2")
    assert [joined.sample(i, rng()).name for i in range(len(joined))] == list(joined.names)
    assert joined.sample(-1, rng()).name == "Urban2"
    assert joined.classes == LOVEDA_CLASSES
    assert joined.fingerprint() != Concatenation(folders[::-1]).fingerprint()
    with pytest.raises(IndexError):
        joined.sample(4, rng())


def test_folders_of_other_classes_are_not_joined(tmp_path):
    write_tile(tmp_path, "t")
    with pytest.raises(ConfigError, match="other classes"):
        Concatenation([a_folder(tmp_path), a_folder(tmp_path, classes=LOVEDA_CLASSES)])


def test_every_mask_value_is_reduced_by_one_and_no_data_is_255():
    values = np.arange(256, dtype=np.uint8)
    expected = [255, *range(254), 255]
    assert reduce_zero(values).tolist() == expected


def test_raw_labels_are_kept_without_reduction(tmp_path):
    mask = np.array([[0, 7], [255, 3]], np.uint8)
    write_tile(tmp_path, "t", mask=mask, size=(2, 2))
    kept = a_folder(tmp_path, reduce_zero_label=False).sample(0, rng()).label
    reduced = a_folder(tmp_path).sample(0, rng()).label
    assert kept.tolist() == [[0, 7], [255, 3]]
    assert reduced.tolist() == [[255, 6], [255, 2]]


def test_a_palette_mask_gives_its_indices_not_its_colours(tmp_path):
    _, path = write_tile(tmp_path, "t")
    picture = Image.fromarray(np.array([[0, 1], [8, 3]], np.uint8).repeat(20, 0).repeat(24, 1))
    picture.putpalette([255, 0, 0] * 256)
    picture.save(path)
    with Image.open(path) as saved:
        assert saved.mode == "P"
    assert a_folder(tmp_path).sample(0, rng()).label.unique().tolist() == [0, 2, 7, 255]


def test_the_image_is_bgr_and_channels_come_first(tmp_path):
    path, _ = write_tile(tmp_path, "t")
    sample = a_folder(tmp_path).sample(0, rng())
    with Image.open(path) as picture:
        rgb_HWC = np.array(picture)
    assert sample.image.dtype == torch.uint8
    assert sample.label.dtype == torch.int64
    assert (sample.image.numpy() == rgb_HWC[..., ::-1].transpose(2, 0, 1)).all()
    assert (sample.ori_shape, sample.flipped) == ((40, 48), False)


def test_a_mask_loaded_after_the_resize_keeps_the_size_of_its_file(tmp_path):
    write_tile(tmp_path, "t")
    sample = a_folder(tmp_path, steps=VALIDATION).sample(0, rng())
    assert sample.image.shape == (3, 27, 32)
    assert sample.label.shape == sample.ori_shape == (40, 48)


def test_a_folder_without_masks_gives_samples_without_labels(tmp_path):
    write_tile(tmp_path, "t")
    assert a_folder(tmp_path, seg_map_path=None, steps=VALIDATION).sample(0, rng()).label is None


def test_a_sample_depends_on_its_generator_and_on_nothing_drawn_before(tmp_path):
    for name in ("a", "bb", "ccc"):
        write_tile(tmp_path, name)
    folder = a_folder(tmp_path, steps=TRAINING)
    alone = digest(folder.sample(1, rng(5)))
    np.random.seed(0)
    states = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    for index in (2, 0, 0, 2):
        folder.sample(index, rng(index))
    assert digest(folder.sample(1, rng(5))) == alone
    assert digest(folder.sample(1, rng(6))) != alone
    assert (np.random.get_state()[1] == states[0]).all()
    assert random.getstate() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def _digest_elsewhere(folder):
    return digest(folder.sample(1, rng(5)))


def test_a_sample_is_the_same_in_another_process(tmp_path):
    for name in ("a", "bb"):
        write_tile(tmp_path, name)
    folder = a_folder(tmp_path, steps=TRAINING)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_digest_elsewhere, (folder,)) == _digest_elsewhere(folder)


def test_the_fingerprint_tells_names_and_sizes_but_not_the_place(tmp_path):
    for place in ("here", "there"):
        write_tile(tmp_path / place, "a")
        write_tile(tmp_path / place, "bb")
    first = a_folder(tmp_path / "here").fingerprint()
    assert len(first) == 64
    assert a_folder(tmp_path / "there").fingerprint() == first
    with (tmp_path / "there" / "masks_png" / "a.png").open("ab") as file:
        file.write(b"\0")
    assert a_folder(tmp_path / "there").fingerprint() != first
    write_tile(tmp_path / "here", "c")
    assert a_folder(tmp_path / "here").fingerprint() != first


def test_a_missing_folder_is_named_with_what_is_nearby(tmp_path):
    write_tile(tmp_path / "Train", "t")
    with pytest.raises(UsageError) as raised:
        a_folder(tmp_path, img_path="Train/Rural/images_png")
    assert str(tmp_path / "Train" / "Rural" / "images_png") in message(raised)
    assert f"in {tmp_path / 'Train'}: images_png, masks_png" in message(raised)


def test_pictures_without_masks_are_listed(tmp_path):
    for number in range(8):
        write_tile(tmp_path, f"t{number}")[1].unlink()
    write_tile(tmp_path, "whole")
    with pytest.raises(UsageError, match=r"8 of 9 pictures have no mask.* t0, t1, t2, t3, t4 and 3 more"):
        a_folder(tmp_path)


def test_a_folder_without_pictures_says_what_is_there_instead(tmp_path):
    write_tile(tmp_path, "t")
    with pytest.raises(UsageError, match=r"no pictures.* \*\.jpg, found files ending in \.png"):
        a_folder(tmp_path, img_suffix=".jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"found no files"):
        a_folder(tmp_path, img_path="empty")


def test_a_mask_of_another_size_is_named_even_if_the_picture_was_resized(tmp_path):
    write_tile(tmp_path, "t", mask=np.ones((32, 32), np.uint8))
    for steps in (PLAIN, VALIDATION):
        with pytest.raises(DamagedFile, match=r"t\.png: the mask and .* Expected 40x48 px .* found 32x32"):
            a_folder(tmp_path, steps=steps).sample(0, rng())


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, which, keep):
    path = write_tile(tmp_path, "torn")[which]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DamagedFile) as raised:
        a_folder(tmp_path).sample(0, rng())
    assert message(raised).startswith(f"{path}: ")
    assert raised.value.exit_code == 12


@pytest.mark.parametrize(("which", "what"), [(0, "the picture"), (1, "the mask")])
def test_an_altered_file_is_named(tmp_path, which, what):
    path = write_tile(tmp_path, "bent")[which]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=f"bent.png: {what} cannot be decoded"):
        a_folder(tmp_path).sample(0, rng())


def test_a_file_that_vanished_is_named(tmp_path):
    path, _ = write_tile(tmp_path, "gone")
    folder = a_folder(tmp_path)
    path.unlink()
    with pytest.raises(DamagedFile, match=r"gone\.png: the file cannot be read\. Found No such file"):
        folder.sample(0, rng())


def test_a_mask_of_colours_is_refused(tmp_path):
    _, path = write_tile(tmp_path, "t")
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(path)
    with pytest.raises(DamagedFile, match=r"not a class map.* found mode RGB"):
        a_folder(tmp_path).sample(0, rng())


def test_a_label_beyond_the_classes_is_named_with_the_coding(tmp_path):
    mask = np.ones((40, 48), np.uint8)
    mask[:2, :3] = 8
    write_tile(tmp_path, "playground", mask=mask)
    with pytest.raises(UsageError) as raised:
        a_folder(tmp_path, classes=LOVEDA_CLASSES).sample(0, rng())
    for words in (
        "playground.png",
        "0..6 or 255 with 7 classes",
        "label 7 (value 8 in the file) on 6 pixels",
    ):
        assert words in message(raised)
    assert "EarthVQA masks hold 0 = no data and 1..8 = the eight classes" in message(raised)
    with pytest.raises(UsageError, match=r"label 8 on 6 pixels\..* Set reduce_zero_label"):
        a_folder(tmp_path, reduce_zero_label=False).sample(0, rng())


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            [*PLAIN[:1], {"type": "RandomCorp"}, *PLAIN[1:]],
            r"pipeline\[1\].*not known.*RandomCrop.*'RandomCorp'",
        ),
        ([*PLAIN[:1], {"type": "RandomCrop"}, *PLAIN[1:]], r"pipeline\[1\] \(RandomCrop\).*'crop_size'"),
        ([*PLAIN[:1], {"type": "RandomFlip", "p": 1}, *PLAIN[1:]], r"\(RandomFlip\).*'p'"),
        ([], r"no steps"),
        (
            PLAIN[::-1],
            r"LoadImageFromFile first and PackSegInputs last.*found PackSegInputs, LoadAnnotations",
        ),
    ],
)
def test_a_pipeline_that_cannot_run_is_refused_before_any_sample(steps, words):
    with pytest.raises(ConfigError, match=words):
        Pipeline(steps)


def test_a_pipeline_runs_on_two_files_alone(tmp_path):
    image, mask = write_tile(tmp_path, "t")
    sample = Pipeline(PLAIN).run(image, mask, rng())
    assert sample.name == "t"
    assert sample.label.max() == 8  # raw values: only a folder knows the coding


def test_palettes_name_eight_and_seven_classes():
    assert len(EARTHVQA_CLASSES) == len(EARTHVQA_PALETTE) == 8
    assert len(LOVEDA_CLASSES) == len(LOVEDA_PALETTE) == 7
    assert EARTHVQA_CLASSES[:6] == LOVEDA_CLASSES[:6]
    assert (LOVEDA_CLASSES[6], EARTHVQA_CLASSES[6]) == ("agricultural", "agriculture")
    assert EARTHVQA_PALETTE[:7] == LOVEDA_PALETTE


@pytest.mark.skipif(not REAL_TILES.is_dir(), reason="the real tiles are not beside this checkout")
@pytest.mark.parametrize(("split", "count"), [("Train", 35), ("Val", 9)])
def test_real_tiles_load(split, count):
    folder = a_folder(REAL_TILES, img_path=f"{split}/images_png", seg_map_path=f"{split}/masks_png")
    assert len(folder) == count
    seen = set()
    for index in range(count):
        sample = folder.sample(index, rng())
        seen |= set(sample.label.unique().tolist())
        assert sample.image.shape == (3, 512, 512)
        raw = cv2.imread(str(REAL_TILES / split / "masks_png" / f"{sample.name}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(sample.label.numpy(), np.where(raw == 0, 255, raw.astype(np.int64) - 1))
    assert seen == {1, 2, 3, 4, 5, 255}


@pytest.mark.skipif(not REAL_TILES.is_dir(), reason="the real tiles are not beside this checkout")
def test_real_tiles_train_at_the_crop_size():
    steps = [dict(step) for step in TRAINING]
    steps[2]["scale"], steps[3]["crop_size"] = (512, 512), (256, 256)
    folder = a_folder(REAL_TILES, img_path="Train/images_png", seg_map_path="Train/masks_png", steps=steps)
    for index in range(len(folder)):
        sample = folder.sample(index, rng(index))
        assert sample.image.shape == (3, 256, 256)
        assert sample.label.shape == (256, 256)
