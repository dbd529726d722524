"""The configs that come with MapSage, and one that the real MMEngine wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.clocks import Ahead

import mapsage
from mapsage.config import MapSageConfig
from unbroken.config import Validated, changes, effects, read_config, validate, validate_cached
from unbroken.storage import Cache

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "apps/mapsage/configs"
DUMPED = ROOT.parent / "shared/fixtures/mmengine/20261121_221310.py"
SHIPPED = sorted(path.name for path in CONFIGS.glob("*.py"))


def load(name: str) -> Validated[MapSageConfig]:
    return validate(MapSageConfig, read_config(CONFIGS / name))


def test_there_are_configs_and_this_package_is_the_one_beside_them():
    assert "resume_earthvqa_kaggle.py" in SHIPPED
    assert Path(mapsage.__file__).is_relative_to(CONFIGS.parent)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_is_valid_and_has_no_key_that_does_nothing(name: str):
    found = load(name)
    assert tuple(found.ignored) == ()
    assert len(found.value.class_names) == 8


@pytest.mark.parametrize("name", SHIPPED)
def test_a_config_that_is_known_to_fit_is_the_same_as_one_that_was_just_checked(name: str, tmp_path: Path):
    cache, file = Cache(tmp_path, clock=Ahead()), read_config(CONFIGS / name)
    first, second = (validate_cached("mapsage.config:MapSageConfig", file, cache) for _ in range(2))
    assert len(list((tmp_path / "known").iterdir())) == 1
    assert first == second and first.value == second.value and second.effects == effects(MapSageConfig)


def test_the_guides_job_is_forty_thousand_iterations_saved_every_four_thousand():
    config = load("segformer_b2_earthvqa_40k.py").value
    assert config.train_cfg.max_iters == 40_000
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == 4_000
    assert config.train_dataloader.batch_size == 4
    assert config.model.backbone.widths == (64, 128, 320, 512)
    assert config.param_scheduler[-1].end == config.train_cfg.max_iters


def test_resuming_differs_from_the_job_in_where_it_starts_only():
    job, resumed = load("segformer_b2_earthvqa_40k.py"), load("resume_earthvqa_kaggle.py")
    found = changes(job.canonical, resumed.canonical, effects(MapSageConfig))
    assert [str(change) for change in found] == [
        "load_from: None -> '/kaggle/input/temp-8000tier/iter_8000.pth' (free)",
        "resume: False -> True (free)",
    ]


def test_the_tiny_job_is_the_one_that_was_measured():
    config = load("aerial_tiny.py").value
    assert config.model.backbone.widths == (16, 32, 64, 128)
    assert config.model.backbone.num_layers == (1, 1, 1, 1)
    assert config.model.decode_head.channels == 64
    assert config.model.test_cfg.stride == (96, 96)
    assert config.train_size_px == (64, 64)
    assert config.optim_wrapper.optimizer.lr == 2e-3
    assert (config.train_cfg.max_iters, config.train_cfg.val_interval) == (400, 80)
    assert {dataset.data_root for dataset in config.train_dataloader.datasets} == {"data/aerial"}


def test_the_real_job_trains_with_dropout():
    config = load("aerial_real.py").value
    assert config.model.backbone.drop_path_rate == config.model.decode_head.dropout_ratio == 0.1
    assert config.train_dataloader.datasets[0].data_root == "data/aerial_mini"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_pipelines_of_a_canonical_config_are_those_that_the_data_room_runs(name: str):
    from mapsage.dataset.pipeline import Pipeline

    canonical = load(name).canonical
    for loader in ("train_dataloader", "val_dataloader"):
        assert Pipeline(canonical[loader]["dataset"]["pipeline"]).steps


@pytest.mark.skipif(not DUMPED.exists(), reason="the files that MMEngine wrote are not here")
def test_a_config_that_mmengine_dumped_is_valid():
    found = validate(MapSageConfig, read_config(DUMPED))
    assert found.value.model.decode_head.num_classes == 8
    assert found.value.work_dir == "/kaggle/working/work_dirs/nano"
    assert tuple(found.ignored) == (
        "default_scope",
        "model.train_cfg",
        "default_hooks.logger.log_metric_by_epoch",
        "log_processor.by_epoch",
    )
