"""Killed trainings go on with all that is declared free changed at once, and end as one that nobody touched."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from focalsst.config import SonarConfig
from focalsst.recipes import read as read_sonar
from mapsage.config import MapSageConfig
from mapsage.recipes import HOW_TO_START
from mapsage.recipes import read as read_aerial
from tests.config_edits import Edit, as_python, dotted, edited, leaves, others, split, words_of
from tests.twin import aerial, sonar
from tests.twin.changed_settings import FREE, STEPS
from tests.twin.killing import events, kill_after_steps, python, run_to_end, step_records
from unbroken import Job
from unbroken.config import ConfigError, Section, effects, read_config, validate
from unbroken.launch import Environment, Resume, decide, gather
from unbroken.train import differences, read_checkpoint


def free_edits(
    tree: dict[str, Any], schema: type[Section], by_hand: dict[str, Any], linked: Sequence[Edit] = ()
) -> tuple[list[Edit], set[str]]:
    """Another value for every key that the schema declares free, all of which it accepts together; and the keys that
    can have no other value."""
    config, what = validate(schema, tree).value, effects(schema)
    found, alone = list(linked), set[str]()
    for place, value in leaves({key: part for key, part in tree.items() if key not in HOW_TO_START}):
        key = dotted(place)
        if what.find(key) is not FREE or any(place in edit.places for edit in linked):
            continue
        values = [by_hand[key]] if key in by_hand else others(value, words_of(config, place))
        edits = (Edit(key, ((place, new),)) for new in values)
        chosen = next((edit for edit in edits if accepts(schema, edited(tree, [*found, edit]))), None)
        if chosen is None:
            alone.add(key)
        else:
            found.append(chosen)
    return found, alone


def accepts(schema: type[Section], tree: dict[str, Any]) -> bool:
    try:
        validate(schema, tree)
    except ConfigError:
        return False
    return True


def without_what_follows_from_free_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint but for the config in it, and for what evaluations found, which are judged otherwise now."""
    own = {
        key: value
        for key, value in tree["unbroken"].items()
        if key not in ("config", "best", "metrics", "evaluated_step")
    }
    kept = {key: value for key, value in tree.items() if key not in ("meta", "message_hub")}
    return {**kept, "unbroken": own}


def assert_same_training(run: Path, twin: Path, file: str) -> None:
    one, other = (without_what_follows_from_free_keys(read_checkpoint(folder / file)) for folder in (run, twin))
    assert differences(one, other) == []
    assert step_records(run) == step_records(twin)


def assert_only_free(job: Job, keys: set[str]) -> None:
    plan = decide(job, gather(job))
    assert isinstance(plan, Resume)
    assert {change.effect for change in plan.changes} == {FREE}
    assert {change.key for change in plan.changes} == keys
    assert not any("anew" in reason for reason in plan.reasons)


SONAR_FREE = {
    "DATA_CONFIG.DATA_PATH": "data/elsewhere",
    "DATA_CONFIG.MAP_CLASS_TO_KITTI.Box": "Cyclist",
    "DATA_CONFIG.MAP_CLASS_TO_KITTI.Diver": "Car",
    "OPTIMIZATION.EVAL_INTERVAL": 2,
    "MODEL.DENSE_HEAD.POST_PROCESSING.POST_CENTER_LIMIT_RANGE": [-1.0, -60.0, -30.0, 90.0, 60.0, 30.0],
}
SONAR_OTHERWISE = ["--workers", "2", "--logger_iter_interval", "3", "--ckpt_save_interval", "2", "--save_to_file"]
SONAR_OTHERWISE += ["--ckpt_save_time_interval", "2", "--max_ckpt_save_num", "5", "--on-bad-frame", "skip"]
SONAR_OTHERWISE += ["--num_epochs_to_eval", "1", "--session", "2h", "--reserve", "1m"]


def test_a_killed_sonar_training_with_all_that_is_free_changed_is_its_twin(tmp_path: Path) -> None:
    sonar.write_job(tmp_path, epochs=3, accumulate=2)
    shutil.copytree(tmp_path / "data/sonar", tmp_path / "data/elsewhere")
    config = tmp_path / "cfgs/sonar_models/tiny.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        tree = validate(SonarConfig, read_config(config, environment={})).canonical
    edits, alone = free_edits(tree, SonarConfig, SONAR_FREE)
    print(f"changed: {[repr(edit) for edit in edits]}; without another value: {sorted(alone)}")
    assert alone == set()

    def arguments(place: str, *options: str) -> list[str]:
        kept = ["--cfg_file", str(config), "--output", str(tmp_path / place), "--extra_tag", "run", "--device", "cpu"]
        return [*kept, "--pictures", "0", *(options or ["--workers", "0", "--ckpt_save_time_interval", "1"])]

    def command(place: str, *options: str) -> list[str]:
        return python("-m", "unbroken", "train", "focalsst", *arguments(place, *options))

    run, twin = (read_sonar(arguments(place), Environment()).directory for place in ("cut", "whole"))
    whole = run_to_end(command("whole"))
    assert whole.returncode == 0, whole.output
    kill_after_steps(run, command("cut"), steps=11)  # an epoch has six
    config.write_text(yaml.safe_dump(edited(tree, edits), sort_keys=False), "utf-8")
    otherwise = read_sonar(arguments("cut", *SONAR_OTHERWISE), Environment())
    assert_only_free(otherwise, {dotted(place) for edit in edits for place in edit.places})

    ended = run_to_end(command("cut", *SONAR_OTHERWISE))

    assert ended.returncode == 0, ended.output
    assert "starts anew" not in ended.output
    assert_same_training(run, twin, "ckpt/checkpoint_epoch_3.pth")
    assert [event["verdict"] for event in events(run, "replayed") if "bit-identical" not in event["verdict"]] == []


COLOURS = [[number, 20, 30] for number in range(8)]
ONE_VALUE = {  # their kind, and what only one way of it is built
    "val_dataloader.sampler.shuffle",
    "val_cfg.fp16",
    "model.backbone.init_cfg.type",
    "default_hooks.checkpoint.type",
    "default_hooks.checkpoint.by_epoch",
    "default_hooks.checkpoint.save_last",
    "default_hooks.logger.type",
    "log_processor.type",
}


def test_a_killed_aerial_training_with_all_that_is_free_changed_is_its_twin(tmp_path: Path) -> None:
    config = aerial.write_job(tmp_path, steps=5)
    first = run_to_end(python("-m", "unbroken", "train", "mapsage", config, "--work-dir", tmp_path / "first"))
    assert first.returncode == 0, first.output
    for name in ("mit.pth", "other.pth"):
        shutil.copy(tmp_path / "first/iter_5.pth", tmp_path / name)
    config.unlink()
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    for part in ("Train", "Val"):
        for folder in ("images", "masks"):
            (tmp_path / "elsewhere" / part / f"{folder}_png").rename(tmp_path / "elsewhere" / part / folder)
    shutil.rmtree(tmp_path / "first")
    aerial_text = aerial.CONFIG.format(data=str(tmp_path / "data"), wrapper="OptimWrapper", steps=STEPS)
    config.write_text(aerial_text, "utf-8")
    tree = validate(MapSageConfig, read_config(config, environment={})).canonical
    names = ["background", "building", "road", "water", "barren", "forest", "agricultural", "playground"]
    for part in ("train", "val"):
        tree[f"{part}_dataloader"]["dataset"]["metainfo"] = {"classes": names, "palette": None}
    tree["model"]["backbone"]["init_cfg"] = {
        "type": "Pretrained", "checkpoint": str(tmp_path / "mit.pth"), "prefix": None,
    }  # fmt: skip
    by_hand: dict[str, Any] = {
        "model.backbone.init_cfg.checkpoint": str(tmp_path / "other.pth"),
        "model.backbone.init_cfg.prefix": "backbone.",
        "train_cfg.val_interval": 5,
    }
    for part, folder in (("train", "Train"), ("val", "Val")):
        dataset = f"{part}_dataloader.dataset"
        by_hand[f"{dataset}.data_root"] = str(tmp_path / "elsewhere")
        by_hand[f"{dataset}.data_prefix.img_path"] = f"{folder}/images"
        by_hand[f"{dataset}.data_prefix.seg_map_path"] = f"{folder}/masks"
        by_hand[f"{dataset}.metainfo.palette"] = COLOURS
    tests = {f"test_{name}": tree[f"val_{name}"] for name in ("dataloader", "cfg", "evaluator")}
    together = Edit("a test set", tuple((split(key), value) for key, value in tests.items()))
    edits, alone = free_edits(tree, MapSageConfig, by_hand, [together])
    print(f"changed: {[repr(edit) for edit in edits]}; without another value: {sorted(alone)}")
    assert alone == ONE_VALUE

    def arguments(place: str, *options: str) -> list[str]:
        return [str(config), "--work-dir", str(tmp_path / place), "--tag", "run", "--device", "cpu", *options]

    def command(place: str, *options: str) -> list[str]:
        return python("-m", "unbroken", "train", "mapsage", *arguments(place, *options))

    config.write_text(as_python(tree), "utf-8")
    whole = run_to_end(command("whole"))
    assert whole.returncode == 0, whole.output
    kill_after_steps(tmp_path / "cut", command("cut"), steps=11)
    config.write_text(as_python(edited(tree, edits)), "utf-8")
    otherwise = read_aerial(arguments("cut"), Environment())
    assert_only_free(otherwise, {dotted(place) for edit in edits for place in edit.places})

    ended = run_to_end(command("cut", "--session", "2h"))

    assert ended.returncode == 0, ended.output
    assert "starts anew" not in ended.output
    assert_same_training(tmp_path / "cut", tmp_path / "whole", f"iter_{STEPS}.pth")
    assert [
        event["verdict"] for event in events(tmp_path / "cut", "replayed") if "identical" not in event["verdict"]
    ] == []
