"""Configs as their authors left them: what a training does not read blocks nothing, and one reason is said first."""

from __future__ import annotations

from pathlib import Path

import pytest
from nano_job import job, session, write_nano_job

from unbroken.cli import main
from unbroken.errors import ConfigError, UsageError
from unbroken.launch import Fresh, decide, gather


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


OF_TESTS = {
    "a loader alone": "test_dataloader = dict(dataset=dict(type='LoveDADataset', data_prefix=dict(img_path='Test')))",
    "a data set that is not known": "test_dataloader = dict(dataset=dict(type='CityscapesDataset', split='val'))",
    "a metric that is not known": "test_evaluator = dict(type='CityscapesMetric', output_dir='x')",
    "a loop alone": "test_cfg = dict(type='TestLoop')",
    "other classes": "test_dataloader = dict(dataset=dict(type='LoveDADataset', data_prefix=dict(img_path='T'), "
    "pipeline=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]))\n"
    "test_cfg = dict(type='TestLoop')\ntest_evaluator = dict(type='IoUMetric')",
}


@pytest.mark.parametrize("lines", OF_TESTS.values(), ids=OF_TESTS.keys())
def test_a_test_set_that_no_training_reads_blocks_nothing_and_is_said_to_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str
) -> None:
    config = write_nano_job(tmp_path, steps=1, more=lines)
    assert main(["why", "mapsage", str(config)]) == 0
    assert "the test set is left out, as a training reads none" in capsys.readouterr().out
    code, said = session(job(config))
    assert code == 0 and "the test set is left out" in said


def test_what_is_wrong_in_training_is_said_without_the_test_set(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path, more=f"{OF_TESTS['a loop alone']}\nlog_level = 'LOUD'")
    with pytest.raises(ConfigError) as refused:
        job(config)
    assert "`log_level`" in str(refused.value) and "test_cfg" not in str(refused.value)


def test_a_print_in_a_config_changes_nothing_and_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_nano_job(tmp_path, more="print('loaded', f'{model}', __import__('os').mkdir('it_ran'))")
    asked = job(config)
    assert isinstance(decide(asked, gather(asked)), Fresh)
    assert "loaded" not in capsys.readouterr().out and not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('type="MixVisionTransformer"', 'type="DINOv3", arch="l", patch=16, frozen=True', "model.backbone.type"),
        ('type="SegformerHead"', 'type="FCNHead", num_convs=2, kernel_size=1', "model.decode_head.type"),
        ('type="EncoderDecoder"', 'type="SegmentationDistiller", teacher=1', "model.type"),
        ('type="AdamW"', 'type="SGD", momentum=0.9', "optim_wrapper.optimizer.type"),
        ('type="IterBasedTrainLoop"', 'type="EpochBasedTrainLoop", max_epochs=3', "train_cfg.type"),
        ("test_cfg=dict(mode", 'auxiliary_head=dict(type="FCNHead"), test_cfg=dict(mode', "model.auxiliary_head"),
    ],
)
def test_another_network_or_training_is_one_sentence(tmp_path: Path, old: str, new: str, key: str) -> None:
    config = write_nano_job(tmp_path)
    assert old in config.read_text("utf-8")
    config.write_text(config.read_text("utf-8").replace(old, new), "utf-8")
    with pytest.raises(ConfigError) as refused:
        job(config)
    assert len(str(refused.value).splitlines()) == 1
    found = new.partition('type="')[2].partition('"')[0]
    assert f"`{key}` is of another training" in str(refused.value) and f"found {found}" in str(refused.value)
    assert refused.value.exit_code == 2


def test_below_a_mount_that_is_missing_nothing_of_the_machine_is_listed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/iter_3.pth").write_bytes(b"")
    far = {
        Path("/no-such-mount/input/set/iter_8000.pth"): "nothing of that path but /.",
        tmp_path / "mount/input/set/iter_8000.pth": f"nothing of that path but {tmp_path}.",
    }
    for path, standing in far.items():
        config = write_nano_job(tmp_path, more=f"load_from = {str(path)!r}\nresume = True")
        with pytest.raises(UsageError) as missing:
            session(job(config))
        assert missing.value.exit_code == 2
        assert standing in str(missing.value) and ".pth" not in str(missing.value).replace(str(path), "")
        assert "attached" in str(missing.value)
