"""MapSage's schema: what fits together, what is said when it does not, and what each change does."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest

from mapsage.config import MapSageConfig
from mapsage.config.model import CrossEntropyLoss
from mapsage.dataset.palette import EARTHVQA_CLASSES, EARTHVQA_PALETTE
from unbroken.config import ConfigError, Effect, check_schema, effects, merge_options, validate

SHORT: dict[str, Any] = {
    "model": {"decode_head": {"in_channels": [64, 128, 256, 512], "num_classes": 8}},
    "train_dataloader": {
        "dataset": {
            "type": "EarthVQADataset",
            "data_prefix": {"img_path": "Train/images_png", "seg_map_path": "Train/masks_png"},
            "pipeline": [
                {"type": "LoadImageFromFile"},
                {"type": "LoadAnnotations"},
                {"type": "RandomCrop", "crop_size": 64},
                {"type": "PackSegInputs"},
            ],
        }
    },
    "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 1e-3}},
    "train_cfg": {"max_iters": 10},
}
VAL = {"dataset": {**SHORT["train_dataloader"]["dataset"], "type": "EarthVQADataset"}}


def given(*options: str, base: dict[str, Any] = SHORT) -> dict[str, Any]:
    return merge_options(base, options)


def value(*options: str) -> MapSageConfig:
    return validate(MapSageConfig, given(*options)).value


def complaint(*options: str) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(MapSageConfig, given(*options))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_short_config_is_enough():
    config = value()
    assert config.class_names == EARTHVQA_CLASSES
    assert config.train_dataloader.datasets[0].palette == EARTHVQA_PALETTE
    assert config.train_dataloader.datasets[0].zero_is_no_data
    assert config.train_size_px == (64, 64)
    assert config.model.backbone.num_layers == (3, 4, 6, 3)
    assert config.model.decode_head.loss_decode == (CrossEntropyLoss(),)
    assert config.default_hooks.checkpoint.save_best == "mIoU"
    assert config.randomness.seed == 0


def test_every_leaf_of_the_schema_says_what_changing_it_does():
    check_schema(MapSageConfig)


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("model.backbone.embed_dims", Effect.SHAPE),
        ("model.backbone.num_layers", Effect.SHAPE),
        ("model.backbone.qkv_bias", Effect.SHAPE),
        ("model.decode_head.num_classes", Effect.SHAPE),
        ("model.decode_head.norm_cfg.type", Effect.SHAPE),
        ("model.decode_head.norm_cfg.requires_grad", Effect.MEANING),
        ("model.decode_head.dropout_ratio", Effect.MEANING),
        ("model.decode_head.loss_decode.0.loss_weight", Effect.MEANING),
        ("model.decode_head.loss_decode", Effect.MEANING),
        ("model.backbone.drop_path_rate", Effect.MEANING),
        ("model.data_preprocessor.mean", Effect.MEANING),
        ("model.test_cfg.stride", Effect.MEANING),
        ("model.backbone.with_cp", Effect.FREE),
        ("gradient_checkpointing", Effect.FREE),
        ("train_dataloader.dataset.type", Effect.MEANING),
        ("train_dataloader.dataset.reduce_zero_label", Effect.MEANING),
        ("train_dataloader.dataset.metainfo.classes", Effect.MEANING),
        ("train_dataloader.dataset.datasets.1.metainfo", Effect.MEANING),
        ("train_dataloader.dataset.data_root", Effect.FREE),
        ("train_dataloader.dataset.data_prefix.img_path", Effect.FREE),
        ("train_dataloader.dataset.pipeline.2.scale", Effect.DATA),
        ("train_dataloader.dataset.pipeline", Effect.DATA),
        ("train_dataloader.batch_size", Effect.DATA),
        ("train_dataloader.sampler.shuffle", Effect.DATA),
        ("train_dataloader.num_workers", Effect.FREE),
        ("val_dataloader.batch_size", Effect.FREE),
        ("val_dataloader", Effect.FREE),
        ("optim_wrapper.optimizer.lr", Effect.SCHEDULE),
        ("optim_wrapper.accumulative_counts", Effect.SCHEDULE),
        ("optim_wrapper.paramwise_cfg.custom_keys.decode_head.lr_mult", Effect.SCHEDULE),
        ("optim_wrapper.clip_grad", Effect.SCHEDULE),
        ("param_scheduler.1.end", Effect.SCHEDULE),
        ("train_cfg.max_iters", Effect.SCHEDULE),
        ("train_cfg.val_interval", Effect.FREE),
        ("randomness.seed", Effect.DATA),
        ("work_dir", Effect.FREE),
        ("resume", Effect.FREE),
        ("default_hooks.checkpoint.interval", Effect.FREE),
        ("dataset_type", Effect.IGNORED),
        ("default_hooks.timer", Effect.IGNORED),
    ],
)
def test_every_key_does_what_the_guide_says_when_it_changes(key: str, effect: Effect):
    assert effects(MapSageConfig).of(key) is effect


def test_nine_outputs_for_eight_classes_are_refused_with_what_the_masks_hold():
    for outputs in (7, 9):
        text = complaint(f"model.decode_head.num_classes={outputs}")
        assert "`model.decode_head.num_classes`" in text
        assert f"found {outputs}" in text
        assert "8 (background, building," in text
        assert "0 is no data" in text and "8 classes" in text


def test_no_data_trained_as_a_class_is_refused():
    text = complaint("train_dataloader.dataset.reduce_zero_label=False")
    assert "reduce_zero_label" in text and "9 names for the values 0 to 8" in text


def test_a_plain_dataset_must_name_its_classes():
    text = complaint("train_dataloader.dataset.type=BaseSegDataset")
    assert "`train_dataloader.dataset.metainfo` is missing" in text


@pytest.mark.parametrize(
    ("kind", "masks", "reduced"),
    [
        ("EarthVQADataset", "anything", True),
        ("LoveDADataset", "anything", True),
        ("BaseSegDataset", "Train/masks_png", False),
        ("BaseSegDataset", "labels", False),
    ],
)
def test_zero_is_no_data_by_the_kind_of_the_data_set_whatever_its_folders_are_called(
    kind: str, masks: str, reduced: bool
):
    seven = "'background','building','road','water','barren','forest','agriculture'"
    loveda = kind == "LoveDADataset"
    names = f"({seven})" if loveda else f"({seven},'playground')"
    config = value(
        f"train_dataloader.dataset.type={kind}",
        f"train_dataloader.dataset.data_prefix.seg_map_path={masks}",
        f"train_dataloader.dataset.metainfo.classes={names}",
        f"model.decode_head.num_classes={7 if loveda else 8}",
    )
    assert config.train_dataloader.datasets[0].zero_is_no_data is reduced


def test_validation_with_other_classes_than_training_is_refused():
    loader = copy.deepcopy(VAL)
    loader["dataset"]["metainfo"] = {"classes": ["a", "b", "c", "d", "e", "f", "g", "h"]}
    tree = {**SHORT, "val_dataloader": loader, "val_cfg": {}, "val_evaluator": {}}
    with pytest.raises(ConfigError, match=r"`val_dataloader\.dataset\.metainfo` names other classes"):
        validate(MapSageConfig, tree)


def test_the_parts_of_validation_go_together():
    with pytest.raises(ConfigError, match="`val_evaluator` is missing"):
        validate(MapSageConfig, {**SHORT, "val_dataloader": VAL, "val_cfg": {}})


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["model.backbone.embed_dims=32"], "[32, 64, 128, 256]"),
        (["model.backbone.num_heads=[1,2,5]"], "`model.backbone.num_heads` needs one number per stage"),
        (["model.decode_head.in_index=[0,1,2,4]"], "`model.decode_head.in_index`"),
        (["model.test_cfg.mode=slide"], "`model.test_cfg.crop_size` is missing"),
        (
            ["model.test_cfg={'mode':'slide','crop_size':(64,64),'stride':(65,64)}"],
            "`model.test_cfg.stride` leaves gaps",
        ),
        (["model.data_preprocessor.size=(32,64)"], "`model.data_preprocessor.size` is smaller than the crop"),
        (["train_dataloader.dataset.pipeline=[]"], "does not lead from a file to a sample"),
        (["model.decode_head.loss_decode={'type':'CrossEntropyLoss','class_weight':[1,2]}"], "one weight per class"),
        (["model.decode_head.loss_decode={'type':'CrossEntropyLoss','use_sigmoid':True}"], "use_sigmoid"),
        (["model.decode_head.loss_decode={'type':'FocalLoss'}"], "CrossEntropyLoss, DiceLoss or LovaszLoss"),
        (["model.decode_head.loss_decode=[]"], "loss_decode"),
        (["param_scheduler={'type':'PolyLR','begin':5,'end':5}"], "makes this phase empty"),
        (["param_scheduler={'type':'PolyLR','end':5,'by_epoch':True}"], "by_epoch"),
        (["param_scheduler={'type':'StepLR'}"], "LinearLR or PolyLR"),
        (["optim_wrapper.dtype=bfloat16"], "AmpOptimWrapper"),
        (["optim_wrapper.optimizer.lr=0"], "greater than 0"),
        (["default_hooks.checkpoint.max_keep_ckpts=0"], "would keep no checkpoint"),
        (["train_dataloader.dataset.data_prefix.seg_map_path=None"], "Training needs masks"),
        (["gradient_checkpoint=True"], "Did you mean `gradient_checkpointing`?"),
        (["model.backbone.embed_dim=32"], "Did you mean `embed_dims`?"),
        (["model.auxiliary_head={}"], "`model.auxiliary_head`"),
        (["train_dataloader.dataset.pipeline.2.type=RandomCropp"], "Did you mean `RandomCrop`?"),
        (["train_dataloader.dataset.ann_file=x.txt"], "`train_dataloader.dataset.ann_file` is not a known key"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(options: list[str], part: str):
    assert part in complaint(*options)


def test_a_schedule_may_end_before_or_after_the_training():
    phases = "[{'type':'LinearLR','end':500},{'type':'PolyLR','begin':500,'end':%d}]"
    for end in (600, 90_000):
        config = value(f"param_scheduler={phases % end}", "train_cfg.max_iters=20000")
        assert [phase.end for phase in config.param_scheduler] == [500, end]


def test_one_loss_and_a_list_of_losses_are_both_welcome():
    one = validate(MapSageConfig, given("model.decode_head.loss_decode={'type':'DiceLoss'}"))
    many = validate(MapSageConfig, given("model.decode_head.loss_decode=[{'type':'DiceLoss'}]"))
    assert one.canonical == many.canonical
    losses = value(
        "model.decode_head.loss_decode=[{'type':'CrossEntropyLoss','loss_weight':0.6},"
        "{'type':'DiceLoss','loss_weight':0.3},{'type':'LovaszLoss','loss_weight':0.1,'reduction':'none'}]"
    ).model.decode_head.loss_decode
    assert [loss.loss_weight for loss in losses] == [0.6, 0.3, 0.1]


def test_one_number_stands_for_both_sides_of_a_size():
    assert value("model.data_preprocessor.size=96").train_size_px == (96, 96)
    assert validate(MapSageConfig, given()).canonical["train_dataloader"]["dataset"]["pipeline"][2] == {
        "type": "RandomCrop",
        "crop_size": [64, 64],
        "cat_max_ratio": 1.0,
    }


def test_several_folders_are_one_dataset():
    one = SHORT["train_dataloader"]["dataset"]
    tree = {**SHORT, "train_dataloader": {"dataset": {"type": "ConcatDataset", "datasets": [one, one]}}}
    config = validate(MapSageConfig, tree).value
    assert len(config.train_dataloader.datasets) == 2
    with pytest.raises(ConfigError, match=r"train_dataloader\.dataset\.datasets\.0"):
        validate(MapSageConfig, merge_options(tree, ["train_dataloader.dataset.datasets.0.reduce_zero_label=False"]))


@pytest.mark.parametrize("key", ["gradient_checkpointing", "model.gradient_checkpointing", "model.backbone.with_cp"])
def test_each_spelling_of_gradient_checkpointing_switches_it_on(key: str):
    assert not value().uses_gradient_checkpointing
    assert value(f"{key}=True").uses_gradient_checkpointing


def test_leftovers_are_accepted_listed_and_left_out():
    options = ["dataset_type=X", "train_pipeline=[1,2]", "model.train_cfg={}", "default_hooks.timer={'type':'T'}"]
    found = validate(MapSageConfig, given(*options))
    assert tuple(found.ignored) == ("dataset_type", "train_pipeline", "model.train_cfg", "default_hooks.timer")
    assert found.canonical == validate(MapSageConfig, SHORT).canonical


def test_only_the_parameter_rules_that_are_given_are_rules():
    assert value("optim_wrapper.paramwise_cfg.norm_decay_mult=0").optim_wrapper.paramwise_cfg is not None
    config = value("optim_wrapper.paramwise_cfg={'norm_decay_mult':0,'custom_keys':{'head':{'lr_mult':10}}}")
    assert config.optim_wrapper.paramwise_cfg is not None
    assert config.optim_wrapper.paramwise_cfg.rules == {
        "norm_decay_mult": 0.0,
        "custom_keys": {"head": {"lr_mult": 10.0}},
    }


def test_the_schema_is_imported_without_torch():
    code = "import sys, mapsage.config; print([name for name in ('torch', 'numpy', 'cv2') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
