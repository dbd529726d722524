"""A checkpoint of MMEngine holds its own config and classes: labels that mean something else are never trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine_files import FOLDER, needs_files
from nano_job import job, session, write_nano_job

from mapsage.config import MapSageConfig
from mapsage.dataset.palette import EARTHVQA_PALETTE
from unbroken import Job
from unbroken.config import read_config, validate
from unbroken.errors import Incompatible, UnbrokenError
from unbroken.launch import Plan, Refuse, Resume, decide, gather
from unbroken.train import read_checkpoint

TEN = FOLDER / "iter_10.pth"
CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture", "playground")
SWAPPED = ("background", "road", "building", *CLASSES[3:])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def foreign(path: Path, *edits: Callable[[dict[str, Any]], object]) -> Path:
    """The file that the real MMEngine wrote, with another `meta`."""
    tree = read_checkpoint(TEN)
    for edit in edits:
        edit(tree["meta"])
    torch.save(tree, path)
    return path


def cfg(old: str, new: str) -> Callable[[dict[str, Any]], object]:
    def edit(meta: dict[str, Any]) -> None:
        assert old in meta["cfg"]
        meta["cfg"] = meta["cfg"].replace(old, new)

    return edit


def data(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda meta: meta["dataset_meta"].update(changes)


def asked(folder: Path, load_from: Path, *options: str, dataset: str = "") -> Job:
    lines = f"load_from = {str(load_from)!r}\nresume = True"
    config = write_nano_job(folder, more=lines)
    if dataset:
        config.write_text(config.read_text().replace('type="EarthVQADataset"', dataset))
    return job(config, *(["--cfg-options", *options] if options else []))


def plan_of(each: Job) -> Plan:
    return decide(each, gather(each))


def named(classes: tuple[str, ...], more: str = "reduce_zero_label=True") -> str:
    return f"type='BaseSegDataset', metainfo=dict(classes={classes!r}), img_suffix='.png'{more and ', ' + more}"


@needs_files
@pytest.mark.parametrize("dataset", ["", named(CLASSES)], ids=["a known data set", "classes by name"])
def test_the_same_labels_under_another_name_of_the_data_set_go_on(tmp_path: Path, dataset: str) -> None:
    plan = plan_of(asked(tmp_path, TEN, dataset=dataset))
    assert isinstance(plan, Resume) and plan.config_known
    assert plan.changes == ()
    assert any("holds the config and the classes that it was written with" in reason for reason in plan.reasons)
    assert not any("not known" in reason for reason in plan.reasons)


@needs_files
def test_labels_that_shift_by_one_are_refused_in_every_form(tmp_path: Path) -> None:
    key = "train_dataloader.dataset.reduce_zero_label"
    silent = cfg("reduce_zero_label=True,", "")
    plans = {
        "left out here": plan_of(asked(tmp_path, TEN, dataset=named(CLASSES, ""))),
        "False here": plan_of(asked(tmp_path, TEN, dataset=named(CLASSES, "reduce_zero_label=False"))),
        "False there": plan_of(asked(tmp_path, foreign(tmp_path / "a.pth", data(reduce_zero_label=False)))),
        "left out there": plan_of(asked(tmp_path, foreign(tmp_path / "b.pth", silent, without("dataset_meta")))),
    }
    for name, plan in plans.items():
        assert isinstance(plan, Refuse) and plan.exit_code == 13, name
        assert [change.key for change in plan.changes] == [key], name


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda meta: meta.pop(key)


@needs_files
def test_swapped_class_names_are_refused_as_in_our_own_files(tmp_path: Path) -> None:
    here = plan_of(asked(tmp_path, TEN, dataset=named(SWAPPED)))
    there = plan_of(asked(tmp_path, foreign(tmp_path / "swapped.pth", data(classes=SWAPPED)), dataset=named(CLASSES)))
    for plan in (here, there):
        assert isinstance(plan, Refuse) and plan.exit_code == 13
        assert [change.key for change in plan.changes] == ["train_dataloader.dataset.metainfo.classes"]
    by_type = plan_of(asked(tmp_path, foreign(tmp_path / "again.pth", data(classes=list(SWAPPED)))))
    assert isinstance(by_type, Refuse)
    assert [change.key for change in by_type.changes] == ["train_dataloader.dataset.metainfo"]
    with pytest.raises(UnbrokenError) as refused:
        session(asked(tmp_path, TEN, dataset=named(SWAPPED)))
    assert refused.value.exit_code == 13 and "metainfo.classes" in str(refused.value)
    assert not list(tmp_path.glob("work_dirs/**/*.pth"))


@needs_files
@pytest.mark.parametrize("dataset", ["", named(CLASSES)], ids=["a known data set", "classes by name"])
def test_colours_that_are_swapped_under_the_same_names_are_refused_as_names_are(tmp_path: Path, dataset: str) -> None:
    """The colours of a legend go with the labels: those of two classes swapped say that the labels are."""
    white, building, road, *rest = (list(colour) for colour in EARTHVQA_PALETTE)
    swapped = foreign(tmp_path / "swapped.pth", data(palette=[white, road, building, *rest]))
    if dataset:
        dataset = dataset.replace("metainfo=dict(", f"metainfo=dict(palette={list(EARTHVQA_PALETTE)!r}, ")
    plan = plan_of(asked(tmp_path, swapped, dataset=dataset))
    assert isinstance(plan, Refuse) and plan.exit_code == 13
    (change,) = plan.changes
    assert change.key.startswith("train_dataloader.dataset.metainfo")
    assert "'background', 'road', 'building'" in str(change.old)
    told = " ".join([*plan.reasons, *plan.notes, *plan.warnings])
    assert "its palette gives building and road each other's colours" in told


@needs_files
@pytest.mark.parametrize(
    "palette",
    [
        [[1, 2, number] for number in range(8)],  # what MMEngine draws where a config has none
        [],
        [[255, 255, 255]] * 8,
        [list(colour) for colour in EARTHVQA_PALETTE[:7]],
        "ours",
        [["red"]] * 8,
        [[1]] * 8,
        {},
    ],
    ids=str,
)
def test_other_colours_mean_nothing(tmp_path: Path, palette: object) -> None:
    plan = plan_of(asked(tmp_path, foreign(tmp_path / "other.pth", data(palette=palette))))
    assert isinstance(plan, Resume) and plan.changes == ()


@needs_files
def test_another_number_of_classes_is_refused_before_the_network_is_built(tmp_path: Path) -> None:
    seven = foreign(tmp_path / "seven.pth", data(classes=CLASSES[:7]), without("cfg"))
    plan = plan_of(asked(tmp_path, seven))
    assert isinstance(plan, Refuse) and plan.exit_code == 13
    assert "model.decode_head.num_classes" in [change.key for change in plan.changes]


@needs_files
@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("align_corners=False", "align_corners=True", "model.decode_head.align_corners"),
        ("dropout_ratio=0.1", "dropout_ratio=0.2", "model.decode_head.dropout_ratio"),
        ("123.675", "103.5", "model.data_preprocessor.mean"),
        ("bgr_to_rgb=True", "bgr_to_rgb=False", "model.data_preprocessor.bgr_to_rgb"),
        ("bgr_to_rgb=True,", "", "model.data_preprocessor.bgr_to_rgb"),
        ("loss_weight=1.0", "loss_weight=0.5", "model.decode_head.loss_decode.0.loss_weight"),
        ("norm_cfg=dict(requires_grad=True, type='BN'),", "", "model.decode_head.norm_cfg"),
    ],
)
def test_what_it_was_trained_with_is_compared_key_by_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    plan = plan_of(asked(tmp_path, foreign(tmp_path / "other.pth", cfg(old, new))))
    assert isinstance(plan, Refuse) and plan.exit_code == 13
    assert [change.key for change in plan.changes] == [key]


@needs_files
def test_a_schedule_and_a_pipeline_of_its_own_are_listed_and_go_on(tmp_path: Path) -> None:
    other = foreign(tmp_path / "other.pth", cfg("prob=0.5", "prob=0.25"), cfg("weight_decay=0.01", "weight_decay=0.05"))
    plan = plan_of(asked(tmp_path, other))
    assert isinstance(plan, Resume)
    assert [change.key for change in plan.changes] == [
        "train_dataloader.dataset.pipeline.4.prob",
        "optim_wrapper.optimizer.weight_decay",
    ]


@needs_files
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (cfg("optim_wrapper = dict(", "optim_wrapper = dict(constructor='LayerDecay', "), "its `optim_wrapper` holds"),
        (lambda meta: meta.update(cfg="__import__('os').mkdir('it_ran')"), "its classes alone were compared"),
        (lambda meta: meta.update(cfg="_base_ = './nano.py'"), "based on other files"),
        (lambda meta: meta.update(cfg="x = [0] * 10 ** 9"), "its classes alone were compared"),
    ],
    ids=["another optimizer", "code", "a base", "a bomb"],
)
def test_what_cannot_be_compared_is_said_and_the_classes_are(tmp_path: Path, edit: Any, words: str) -> None:
    plan = plan_of(asked(tmp_path, foreign(tmp_path / "odd.pth", edit)))
    assert isinstance(plan, Resume)
    assert any(words in reason for reason in plan.reasons)
    shifted = plan_of(asked(tmp_path, foreign(tmp_path / "shifted.pth", edit, data(reduce_zero_label=False))))
    assert isinstance(shifted, Refuse) and shifted.exit_code == 13
    assert not (tmp_path / "it_ran").exists()


@needs_files
@pytest.mark.parametrize("value", [None, 7, "text", {"classes": 5}, {"classes": [1, 2]}, {"reduce_zero_label": "no"}])
def test_a_meta_of_any_form_ends_in_a_plan(tmp_path: Path, value: object) -> None:
    odd = foreign(tmp_path / "odd.pth", lambda meta: meta.update(cfg=3, dataset_meta=value))
    assert isinstance(plan_of(asked(tmp_path, odd)), Resume)


def test_a_run_that_took_its_labels_from_a_folders_name_is_refused_and_says_which_key(tmp_path: Path) -> None:
    """As a version that guessed recorded it: True, in a config that leaves the key out."""
    config = write_nano_job(tmp_path)
    explicit = config.read_text().replace('type="EarthVQADataset"', named(CLASSES))
    config.write_text(explicit)
    assert session(job(config), stop_at=3)[0] == 75
    config.write_text(explicit.replace(", reduce_zero_label=True", ""))
    with pytest.raises(Incompatible) as refused:
        session(job(config))
    assert "train_dataloader.dataset.reduce_zero_label: True -> False (meaning)" in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "reduced"), [("BaseSegDataset", False), ("LoveDADataset", True), ("EarthVQADataset", True)]
)
def test_labels_mean_what_they_mean_in_mmsegmentation_and_files_say_what_was_used(
    tmp_path: Path, kind: str, reduced: bool
) -> None:
    names = CLASSES if kind != "LoveDADataset" else (*CLASSES[:6], "agricultural")
    config = write_nano_job(tmp_path, steps=1)
    text = config.read_text().replace('type="EarthVQADataset"', f"type={kind!r}, img_suffix='.png'")
    if kind == "BaseSegDataset":
        nine = ("no data", *CLASSES)
        text = text.replace("img_suffix=", f"metainfo=dict(classes={nine!r}), img_suffix=")
        text, names = text.replace("num_classes=8", "num_classes=9"), nine
    if kind == "LoveDADataset":
        text = text.replace("num_classes=8", "num_classes=7")
        without_playgrounds(tmp_path / "data")
    config.write_text(text)
    dataset = validate(MapSageConfig, read_config(config)).value.train_dataloader.datasets[0]
    assert dataset.zero_is_no_data is reduced
    asked_for = job(config)
    assert session(asked_for)[0] == 0
    meta = read_checkpoint(asked_for.directory / "iter_1.pth")["meta"]["dataset_meta"]
    assert meta["reduce_zero_label"] is reduced
    assert (tuple(meta["classes"]), meta["label_map"]) == (names, None)


def without_playgrounds(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    for path in folder.rglob("masks_png/*.png"):
        with Image.open(path) as picture:
            labels = np.array(picture)
        Image.fromarray(np.where(labels == 8, 0, labels).astype(np.uint8)).save(path)


def test_a_default_unlike_the_originals_is_said_at_launch(tmp_path: Path) -> None:
    plan = plan_of(job(write_nano_job(tmp_path)))
    (note,) = [note for note in plan.notes if "another default than in MMSegmentation" in note]
    assert "model.data_preprocessor.mean = [123.675, 116.28, 103.53] (there None)" in note
    assert "model.data_preprocessor.bgr_to_rgb = True (there False)" in note
    assert "norm_cfg" not in note and "by_epoch" not in note


def test_pictures_may_stay_as_they_are_and_the_head_without_normalisation(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path, steps=2)
    text = config.read_text().replace("size=_crop)", "size=_crop, mean=None, std=None, bgr_to_rgb=False)", 1)
    config.write_text(text.replace('norm_cfg=dict(type="BN", requires_grad=True)', "norm_cfg=None"))
    asked_for = job(config)
    assert session(asked_for)[0] == 0
    names = read_checkpoint(asked_for.directory / "iter_2.pth")["state_dict"]
    assert "decode_head.convs.0.conv.bias" in names and not any(".bn." in name for name in names)
    half = config.read_text().replace("mean=None, ", "")
    config.write_text(half)
    with pytest.raises(UnbrokenError, match="std"):
        job(config)


def test_masks_that_are_coded_otherwise_in_validation_are_said_before_the_first_step(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path, steps=1)
    text = config.read_text().replace('type="EarthVQADataset"', named(("no data", *CLASSES[:7]), ""))
    val = "val_dataloader = dict(num_workers=0, dataset=dict("
    text = text.replace(val, f"{val}reduce_zero_label=True, ")
    config.write_text(text)
    without_playgrounds(tmp_path / "data")
    code, said = session(job(config))
    assert code == 0
    assert "val_dataloader.dataset.reduce_zero_label is True, and False in training: their labels differ by one" in said
