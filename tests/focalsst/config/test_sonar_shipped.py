"""The configs that come with the sonar application: each is the detector it says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import focalsst
from focalsst.config import SonarConfig, detector_settings
from focalsst.config.data import RandomWorldFlip
from focalsst.config.original import MASK, STEPS, SWITCHES, VOXELS
from tests.focalsst.detectors import PRESETS, as_published
from unbroken.config import (
    Validated,
    changes,
    check_schema,
    effects,
    merge_options,
    read_config,
    set_values,
    validate,
)

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "apps/focal_sst/cfgs/sonar_models"
PRESET = {
    "focal_sst": "focal_sst",
    "focal_sst_gt_sampling": "focal_sst",
    "focal_sst_no_focal": "no_focal",
    "focal_sst_small": "small",
    "focal_sst_voxel_015": "voxel_015",
    "micro": "micro",
    "nano": "nano",
}


def load(name: str, *words: str) -> Validated[SonarConfig]:
    file = read_config(CONFIGS / f"{name}.yaml")
    return validate(SonarConfig, file.with_tree(set_values(file.tree, words)))


def test_there_is_a_config_for_every_preset_and_this_package_is_the_one_beside_them():
    assert sorted(PRESET) == sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    assert set(PRESET.values()) == set(PRESETS)
    assert Path(focalsst.__file__).is_relative_to(CONFIGS.parents[1])


def test_every_leaf_of_the_schema_says_what_changing_it_does():
    check_schema(SonarConfig)


@pytest.mark.parametrize("name", PRESET)
def test_a_shipped_config_describes_its_preset(name: str):
    assert detector_settings(load(name).value) == PRESETS[PRESET[name]]


@pytest.mark.parametrize("name", PRESET)
def test_as_published_turns_every_repair_back(name: str):
    config = load(name, "AS_PUBLISHED", "True").value
    assert detector_settings(config) == as_published(PRESETS[PRESET[name]])
    assert config.DATA_CONFIG.POINT_FEATURE_ENCODING.INTENSITY == "original" and not config.DATA_CONFIG.mask.MASK_Z


@pytest.mark.parametrize("name", PRESET)
def test_every_key_of_a_shipped_config_does_something(name: str):
    assert not load(name).ignored


@pytest.mark.parametrize("name", PRESET)
def test_a_canonical_config_is_a_config(name: str):
    found = load(name)
    assert validate(SonarConfig, found.canonical).canonical == found.canonical


def test_a_config_is_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = load("micro").canonical
    for folder, typed in ((CONFIGS.parents[1], "cfgs/sonar_models/micro.yaml"), (tmp_path, CONFIGS / "micro.yaml")):
        monkeypatch.chdir(folder)
        assert validate(SonarConfig, read_config(Path(typed))).canonical == expected


def test_the_published_recipe_is_twenty_four_epochs_of_batches_of_four():
    config = load("focal_sst").value
    rates, data = config.OPTIMIZATION, config.DATA_CONFIG
    assert (rates.BATCH_SIZE_PER_GPU, rates.GRAD_ACCUMULATION_STEPS, rates.NUM_EPOCHS) == (4, 1, 24)
    assert (rates.LR, rates.DIV_FACTOR, rates.PCT_START, rates.MOMS) == (5e-4, 10.0, 0.4, (0.95, 0.85))
    assert (rates.WEIGHT_DECAY, rates.GRAD_NORM_CLIP) == (0.01, 10.0)
    assert config.MODEL.DENSE_HEAD.POST_PROCESSING.NMS_CONFIG.NMS_THRESH == 0.2
    assert (rates.SEED, rates.FP16, rates.EVAL_INTERVAL, rates.LOSS_SCALE_FP16) == (0, False, 10, 65536.0)
    assert (data.POINT_FEATURE_ENCODING.INTENSITY, data.USE_BINARY_FORMAT, data.mask.MASK_Z) == ("standard", True, True)
    assert data.DATA_PATH == "data/sonar"
    assert (data.DATA_SPLIT.train, data.DATA_SPLIT.test) == ("train", "val")
    assert (data.INFO_PATH.train, data.INFO_PATH.test) == (("sonar_infos_train.npz",), ("sonar_infos_val.npz",))
    assert config.class_names == ("Box", "Diver")
    assert config.map_class_to_kitti == {"Box": "Car", "Diver": "Pedestrian"}
    assert config.MODEL.POST_PROCESSING.RECALL_THRESH_LIST == (0.3, 0.5, 0.7)
    assert data.DATA_AUGMENTOR.enabled == ()


@pytest.mark.parametrize(("name", "epochs"), [("micro", 10), ("nano", 3)])
def test_the_small_recipes_are_those_that_were_measured(name: str, epochs: int):
    config = load(name).value
    rates = config.OPTIMIZATION
    assert (rates.LR, rates.BATCH_SIZE_PER_GPU, rates.WEIGHT_DECAY) == (4e-3, 4, 0.01)
    assert epochs == rates.NUM_EPOCHS
    assert (rates.GRAD_NORM_CLIP, rates.PCT_START) == (10.0, 0.4)
    assert config.DATA_CONFIG.DATA_AUGMENTOR.enabled[0] == RandomWorldFlip(ALONG_AXIS_LIST=("x",))


def test_the_ablations_differ_from_the_base_in_what_their_names_say():
    base, known = load("focal_sst").canonical, effects(SonarConfig)

    def differing(name: str) -> list[str]:
        return [change.key.rpartition("DATA_PROCESSOR.")[2] for change in changes(base, load(name).canonical, known)]

    dsvt, encoder = "MODEL.BACKBONE_3D.DSVT", "MODEL.BACKBONE_3D.FOCAL_ENCODER"
    assert differing("focal_sst_small") == [f"{dsvt}.d_model", f"{dsvt}.nhead"]
    assert differing("focal_sst_no_focal") == [f"{encoder}.FOCAL_THRESHOLD", f"{encoder}.LOSS_CONFIG.LOSS_WEIGHT"]
    assert differing("focal_sst_voxel_015") == ["2.VOXEL_SIZE", "DATA_CONFIG.POINT_CLOUD_RANGE"]
    assert differing("focal_sst_gt_sampling") == ["DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST"]


@pytest.mark.parametrize("name", PRESET)
def test_the_data_room_and_the_metrics_take_what_a_config_says(name: str):
    from focalsst.config.data import GtSampling
    from focalsst.dataset.database import Database
    from focalsst.dataset.points import require_encoding
    from focalsst.datasets import augmentations_of
    from focalsst.metrics import class_rules
    from focalsst.schedule import OneCycle

    config = load(name).value
    encoding = config.DATA_CONFIG.POINT_FEATURE_ENCODING.INTENSITY
    database = Database(objects=dict.fromkeys(config.class_names, ()), encoding=encoding)
    entries = config.DATA_CONFIG.DATA_AUGMENTOR.enabled
    assert len(augmentations_of(entries, database)) == len(entries)
    pasted = [entry for entry in entries if isinstance(entry, GtSampling)]
    assert [entry.least_points for entry in pasted] == [{"Box": 70, "Diver": 70}] * len(pasted)
    assert [rule.kitti_name for rule in class_rules(config.class_names, config.map_class_to_kitti)] == [
        "Car",
        "Pedestrian",
    ]
    require_encoding(encoding)
    rates = config.OPTIMIZATION
    cycle = OneCycle(horizon=100, lr=rates.LR, moms=rates.MOMS, div_factor=rates.DIV_FACTOR, pct_start=rates.PCT_START)
    assert cycle.peak == int(100 * rates.PCT_START)


def test_each_repair_has_a_switch_of_its_own():
    repaired = load("micro")
    tree, known = repaired.canonical, effects(SonarConfig)
    for key, value in SWITCHES.items():
        place = key.replace(MASK, f"{STEPS}.0").replace(VOXELS, f"{STEPS}.2")
        turned = validate(SonarConfig, merge_options(tree, [f"{place}={value!r}"])).canonical
        assert [change.key for change in changes(tree, turned, known)] == [place]
        tree = turned
    found = validate(SonarConfig, tree).value
    assert detector_settings(found) == as_published(detector_settings(repaired.value))
    assert validate(SonarConfig, {**repaired.canonical, "AS_PUBLISHED": True}).canonical == {
        **tree, "AS_PUBLISHED": True
    }  # fmt: skip


def test_simple_vfe_is_the_one_without_gates():
    config = load("focal_sst", "MODEL.VFE.NAME", "SimpleVFE").value
    settings = PRESETS["focal_sst"]
    assert detector_settings(config) == replace(settings, vfe=replace(settings.vfe, gates=False))


def test_the_schema_is_imported_without_torch():
    code = "import sys, focalsst.config; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
