"""What changing each key of a sonar config does, and how keys are set from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from focalsst.config import SonarConfig, detector_settings
from unbroken.config import (
    ConfigError,
    Effect,
    changes,
    effects,
    merge_options,
    read_config,
    set_values,
    validate,
    worst,
)

from .original_files import write_original

CONFIGS = Path(__file__).parents[3] / "apps/focal_sst/cfgs/sonar_models"
SHAPE, MEANING, DATA = Effect.SHAPE, Effect.MEANING, Effect.DATA
SCHEDULE, FREE, NONE = Effect.SCHEDULE, Effect.FREE, None

D, P = "DATA_CONFIG", "DATA_CONFIG.DATA_PROCESSOR"
VFE, ENC = "MODEL.VFE", "MODEL.BACKBONE_3D.FOCAL_ENCODER"
DSVT, WIN = "MODEL.BACKBONE_3D.DSVT", "MODEL.BACKBONE_3D.DSVT.INPUT_LAYER"
BEV, HEAD, OPT = "MODEL.BACKBONE_2D", "MODEL.DENSE_HEAD", "OPTIMIZATION"
FLIP = "[{'NAME':'random_world_flip','ALONG_AXIS_LIST':['x']}]"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    tree = read_config(write_original(tmp_path_factory.mktemp("original"))).tree
    return {**tree, "AS_PUBLISHED": False}


# One row per key of the specification; what stands in several places is changed in all of them.
TABLE: list[tuple[str, list[str], Effect | None]] = [
    ("another class", ["CLASS_NAMES=['Box']", f"{HEAD}.CLASS_NAMES_EACH_HEAD=[['Box']]"], SHAPE),
    ("classes in another order", ["CLASS_NAMES=['Diver','Box']", f"{HEAD}.CLASS_NAMES_EACH_HEAD=None"], MEANING),
    ("DATA_PATH", [f"{D}.DATA_PATH=/elsewhere"], FREE),
    ("INFO_PATH", [f"{D}.INFO_PATH.train=['other.npz']"], DATA),
    ("DATA_SPLIT", [f"{D}.DATA_SPLIT.train=trainval"], DATA),
    ("USE_BINARY_FORMAT", [f"{D}.USE_BINARY_FORMAT=False"], DATA),
    ("CACHE_ALL_DATA", [f"{D}.CACHE_ALL_DATA=False"], NONE),
    ("USE_DISK_CACHE", [f"{D}.USE_DISK_CACHE=True"], NONE),
    (
        "POINT_CLOUD_RANGE",
        [f"{key}.POINT_CLOUD_RANGE=[0,-20,-20,60,20,15]" for key in (D, VFE, ENC)]
        + [f"{WIN}.sparse_shape=[240,100,100]", f"{DSVT}.output_shape=[240,100]"],
        MEANING,
    ),
    ("MAP_CLASS_TO_KITTI", [f"{D}.MAP_CLASS_TO_KITTI.Diver=Cyclist"], FREE),
    ("INTENSITY", [f"{D}.POINT_FEATURE_ENCODING.INTENSITY=original"], MEANING),
    ("AUG_CONFIG_LIST", [f"{D}.DATA_AUGMENTOR.AUG_CONFIG_LIST={FLIP}"], DATA),
    ("DISABLE_AUG_LIST", [f"{D}.DATA_AUGMENTOR.DISABLE_AUG_LIST=[]"], DATA),
    ("MASK_Z", [f"{P}.0.MASK_Z=True"], MEANING),
    ("min_num_corners", [f"{P}.0.min_num_corners=2"], NONE),
    (
        "VOXEL_SIZE",
        [f"{key}.VOXEL_SIZE=[0.25,0.4,0.25]" for key in (f"{P}.2", VFE, ENC)] + [f"{WIN}.sparse_shape=[200,100,140]"],
        MEANING,
    ),
    ("MAX_POINTS_PER_VOXEL", [f"{P}.2.MAX_POINTS_PER_VOXEL=32"], MEANING),
    ("MAX_NUMBER_OF_VOXELS", [f"{P}.2.MAX_NUMBER_OF_VOXELS={{'train':9,'test':9}}"], MEANING),
    ("VFE.NAME", [f"{VFE}.NAME=SimpleVFE"], SHAPE),
    ("VFE.NUM_FILTERS", [f"{VFE}.NUM_FILTERS=[64,128]"], SHAPE),
    ("USE_ABSLOTE_XYZ", [f"{VFE}.USE_ABSLOTE_XYZ=False"], SHAPE),
    ("WITH_DISTANCE", [f"{VFE}.WITH_DISTANCE=True"], NONE),
    ("a copy that is left out", [f"{VFE}.VOXEL_SIZE=None"], NONE),
    ("FOCAL_ENCODER.LOSS_WEIGHT", [f"{ENC}.LOSS_CONFIG.LOSS_WEIGHT=0.5"], SCHEDULE),
    ("FOCAL_ENCODER.ALPHA", [f"{ENC}.LOSS_CONFIG.ALPHA=0.5"], SCHEDULE),
    ("FOCAL_ENCODER.GAMMA", [f"{ENC}.LOSS_CONFIG.GAMMA=1"], SCHEDULE),
    ("ADD_TO_TOTAL", [f"{ENC}.LOSS_CONFIG.ADD_TO_TOTAL=False"], MEANING),
    ("FOCAL_THRESHOLD", [f"{ENC}.FOCAL_THRESHOLD=1.1"], MEANING),
    ("window_shape", [f"{WIN}.window_shape=[[10,10,10]]"], MEANING),
    ("hybrid_factor", [f"{WIN}.hybrid_factor=[2,2,1]"], MEANING),
    ("shifts_list", [f"{WIN}.shifts_list=[[[0,0,0],[5,5,5]]]"], MEANING),
    ("normalize_pos", [f"{WIN}.normalize_pos=True"], MEANING),
    ("d_model", [f"{DSVT}.d_model=[96]", f"{WIN}.d_model=[96]", "MODEL.MAP_TO_BEV.NUM_BEV_FEATURES=96"], SHAPE),
    ("set_info, the size", [f"{DSVT}.set_info=[[36,4]]", f"{WIN}.set_info=[[36,4]]"], MEANING),
    ("set_info, the blocks", [f"{DSVT}.set_info=[[32,3]]", f"{WIN}.set_info=[[32,3]]"], SHAPE),
    ("nhead", [f"{DSVT}.nhead=[4]"], MEANING),
    ("dim_feedforward", [f"{DSVT}.dim_feedforward=[256]"], SHAPE),
    ("conv_out_channel", [f"{DSVT}.conv_out_channel=64"], NONE),
    ("reduction_type", [f"{DSVT}.reduction_type=none"], NONE),
    ("ues_checkpoint", [f"{DSVT}.ues_checkpoint=True"], NONE),
    ("HEIGHT_AWARE", ["MODEL.MAP_TO_BEV.HEIGHT_AWARE=True"], SHAPE),
    ("LAYER_NUMS", [f"{BEV}.LAYER_NUMS=[3,5]"], SHAPE),
    (
        "LAYER_STRIDES",
        [f"{BEV}.LAYER_STRIDES=[2,2]", f"{HEAD}.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE=2"],
        MEANING,
    ),
    ("NUM_FILTERS", [f"{BEV}.NUM_FILTERS=[128,256]"], SHAPE),
    ("NUM_UPSAMPLE_FILTERS", [f"{BEV}.NUM_UPSAMPLE_FILTERS=[128,256]"], SHAPE),
    ("SHARED_CONV_CHANNEL", [f"{HEAD}.SHARED_CONV_CHANNEL=32"], SHAPE),
    ("USE_BIAS_BEFORE_NORM", [f"{HEAD}.USE_BIAS_BEFORE_NORM=False"], SHAPE),
    ("HEADING", [f"{HEAD}.HEADING=direction"], MEANING),
    ("CLASS_AGNOSTIC", [f"{HEAD}.CLASS_AGNOSTIC=True"], NONE),
    ("NUM_MAX_OBJS", [f"{HEAD}.TARGET_ASSIGNER_CONFIG.NUM_MAX_OBJS=100"], NONE),
    ("GAUSSIAN_OVERLAP", [f"{HEAD}.TARGET_ASSIGNER_CONFIG.GAUSSIAN_OVERLAP=0.1"], MEANING),
    ("MIN_RADIUS", [f"{HEAD}.TARGET_ASSIGNER_CONFIG.MIN_RADIUS=1"], MEANING),
    ("cls_weight", [f"{HEAD}.LOSS_CONFIG.LOSS_WEIGHTS.cls_weight=2"], SCHEDULE),
    ("loc_weight", [f"{HEAD}.LOSS_CONFIG.LOSS_WEIGHTS.loc_weight=1"], SCHEDULE),
    ("code_weights", [f"{HEAD}.LOSS_CONFIG.LOSS_WEIGHTS.code_weights=[1,1,2,1,1,1,1,1]"], SCHEDULE),
    ("the head's SCORE_THRESH", [f"{HEAD}.POST_PROCESSING.SCORE_THRESH=0.15"], FREE),
    ("POST_CENTER_LIMIT_RANGE", [f"{HEAD}.POST_PROCESSING.POST_CENTER_LIMIT_RANGE=[0,-9,-9,9,9,9]"], FREE),
    ("MAX_OBJ_PER_SAMPLE", [f"{HEAD}.POST_PROCESSING.MAX_OBJ_PER_SAMPLE=100"], FREE),
    ("NMS_TYPE", [f"{HEAD}.POST_PROCESSING.NMS_CONFIG.NMS_TYPE=nms_cpu"], NONE),
    ("NMS_THRESH", [f"{HEAD}.POST_PROCESSING.NMS_CONFIG.NMS_THRESH=0.3"], FREE),
    ("NMS_PRE_MAXSIZE", [f"{HEAD}.POST_PROCESSING.NMS_CONFIG.NMS_PRE_MAXSIZE=10"], FREE),
    ("NMS_POST_MAXSIZE", [f"{HEAD}.POST_PROCESSING.NMS_CONFIG.NMS_POST_MAXSIZE=10"], FREE),
    ("PER_CLASS", [f"{HEAD}.POST_PROCESSING.NMS_CONFIG.PER_CLASS=False"], FREE),
    ("RECALL_THRESH_LIST", ["MODEL.POST_PROCESSING.RECALL_THRESH_LIST=[0.5]"], FREE),
    ("the dead SCORE_THRESH", ["MODEL.POST_PROCESSING.SCORE_THRESH=0.5"], NONE),
    ("OUTPUT_RAW_SCORE", ["MODEL.POST_PROCESSING.OUTPUT_RAW_SCORE=True"], NONE),
    ("EVAL_METRIC", ["MODEL.POST_PROCESSING.EVAL_METRIC=other"], NONE),
    ("BATCH_NORM", ["MODEL.BATCH_NORM.MOMENTUM=0.1"], MEANING),
    ("AS_PUBLISHED", ["AS_PUBLISHED=True"], MEANING),
    ("PADDED_ROWS", [f"{VFE}.PADDED_ROWS=True"], MEANING),
    ("EDGE_CELLS", [f"{ENC}.EDGE_CELLS=False"], MEANING),
    ("OVERFLOW", [f"{P}.2.OVERFLOW=first"], MEANING),
    ("FREEZE_IN_PROJ", [f"{OPT}.FREEZE_IN_PROJ=True"], MEANING),
    *((key, [f"{OPT}.{key}={value}"], SCHEDULE) for key, value in {
        "BATCH_SIZE_PER_GPU": "2", "NUM_EPOCHS": "80", "GRAD_ACCUMULATION_STEPS": "4", "LR": "0.002",
        "WEIGHT_DECAY": "0.05", "MOMS": "[0.9,0.8]", "PCT_START": "0.3", "DIV_FACTOR": "25", "GRAD_NORM_CLIP": "35",
        "LOSS_SCALE_FP16": "1024",
    }.items()),
    *((key, [f"{OPT}.{key}={value}"], NONE) for key, value in {
        "MOMENTUM": "0.8", "DECAY_STEP_LIST": "[1]", "LR_DECAY": "0.5", "LR_CLIP": "0.1", "LR_WARMUP": "False",
        "WARMUP_EPOCH": "5",
    }.items()),
    ("SEED", [f"{OPT}.SEED=1"], DATA),
    ("FP16", [f"{OPT}.FP16=True"], DATA),
    ("EVAL_INTERVAL", [f"{OPT}.EVAL_INTERVAL=1"], FREE),
    ("HOOK", ["HOOK=None"], NONE),
]  # fmt: skip


@pytest.mark.parametrize(("options", "effect"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_changing_a_key_does_what_the_specification_says(
    original: dict[str, Any], options: list[str], effect: Effect | None
):
    before = validate(SonarConfig, original).canonical
    after = validate(SonarConfig, merge_options(original, options)).canonical
    assert worst(changes(before, after, effects(SonarConfig))) is effect


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("MODEL.NAME", SHAPE),
        ("MODEL.BACKBONE_3D.NAME", SHAPE),
        ("MODEL.DENSE_HEAD.NAME", SHAPE),
        ("MODEL.VFE.USE_NORM", SHAPE),
        (f"{DSVT}.block_name", SHAPE),
        (f"{DSVT}.dropout", MEANING),
        (f"{DSVT}.activation", MEANING),
        (f"{WIN}.downsample_stride", SHAPE),
        (f"{ENC}.FOCAL_TOPK", MEANING),
        (f"{HEAD}.SEPARATE_HEAD_CFG.HEAD_DICT.dim.num_conv", SHAPE),
        (f"{HEAD}.NUM_HM_CONV", SHAPE),
        (f"{HEAD}.UPSAMPLE", SHAPE),
        (f"{HEAD}.BN_MOM", MEANING),
        (f"{BEV}.UPSAMPLE_STRIDES", SHAPE),
        (f"{D}.DATASET", DATA),
        (f"{D}.POINT_FEATURE_ENCODING.used_feature_list", SHAPE),
        (f"{P}.1.SHUFFLE_ENABLED.train", MEANING),
        (f"{OPT}.OPTIMIZER", SCHEDULE),
    ],
)
def test_a_key_with_one_value_that_is_built_has_its_effect_too(key: str, effect: Effect):
    assert effects(SonarConfig).of(key) is effect


def test_a_change_of_a_set_or_a_class_is_named_by_what_it_is(original: dict[str, Any]):
    options = [f"{DSVT}.set_info=[[36,4]]", f"{WIN}.set_info=None", "CLASS_NAMES=['Diver','Box']"]
    changed = merge_options(original, [*options, f"{HEAD}.CLASS_NAMES_EACH_HEAD=[['Diver','Box']]"])
    found = changes(
        validate(SonarConfig, original).canonical, validate(SonarConfig, changed).canonical, effects(SonarConfig)
    )
    assert [str(change) for change in found] == [
        "CLASS_NAMES.0.name: 'Box' -> 'Diver' (meaning)",
        "CLASS_NAMES.1.name: 'Diver' -> 'Box' (meaning)",
        f"{DSVT}.set_info.0.size: 32 -> 36 (meaning)",
    ]


def settings(*words: str) -> SonarConfig:
    tree = read_config(CONFIGS / "focal_sst.yaml").tree
    return validate(SonarConfig, set_values(tree, words)).value


def test_what_guides_set_from_the_command_line_is_set():
    config = settings(
        "OPTIMIZATION.GRAD_ACCUMULATION_STEPS", "4", "OPTIMIZATION.LR", "0.002", "OPTIMIZATION.GRAD_NORM_CLIP", "35",
        "OPTIMIZATION.NUM_EPOCHS", "80", "DATA_CONFIG.DATA_PATH", "/data",
    )  # fmt: skip
    rates = config.OPTIMIZATION
    assert (rates.GRAD_ACCUMULATION_STEPS, rates.LR, rates.GRAD_NORM_CLIP, rates.NUM_EPOCHS) == (4, 0.002, 35.0, 80)
    assert config.DATA_CONFIG.DATA_PATH == "/data"


def test_parts_of_the_network_are_set_as_lists_or_with_commas():
    dsvt = "MODEL.BACKBONE_3D.DSVT"
    config = settings(f"{dsvt}.d_model", "[96]", f"{dsvt}.nhead", "6", f"{dsvt}.set_info", "[[36, 2]]")
    found = detector_settings(config).dsvt
    assert (found.d_model, found.heads, found.set_size, found.blocks) == (96, 6, 36, 2)
    processor = "DATA_CONFIG.DATA_PROCESSOR.2"
    changed = settings(
        f"{processor}.VOXEL_SIZE", "0.25,0.4,0.25", f"{processor}.MAX_NUMBER_OF_VOXELS", "train:9,test:9"
    )
    assert detector_settings(changed).geometry.grid_xyz == (200, 100, 140)
    assert detector_settings(changed).voxels.max_voxels == 9


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["OPTIMIZATION.GRAD_ACCUMULATION", "4"], "Did you mean `GRAD_ACCUMULATION_STEPS`?"),
        (["OPTIMIZATION.NUM_EPOCHS", "many"], "an integer like 24"),
        (["MODEL.BACKBONE_3D.DSVT.nheads", "[4]"], "Did you mean `nhead`?"),
        (["DATA_CONFIG.DATA_PROCESSOR.3.VOXEL_SIZE", "[1,1,1]"], "a list of 3"),
    ],
)
def test_what_cannot_be_set_is_refused_with_what_could_be(words: list[str], part: str):
    with pytest.raises(ConfigError) as caught:
        settings(*words)
    assert part in str(caught.value)
