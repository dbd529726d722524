"""What is wrong with a sonar config is said with its line, and with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from focalsst.config import SonarConfig, detector_settings
from tests.focalsst.detectors import FOCAL_SST, as_published
from unbroken.config import ConfigError, Validated, merge_options, read_config, validate

from .original_files import DATASET, MODEL, line_of, write_original

SHIPPED = Path(__file__).parents[3] / "apps/focal_sst/cfgs/sonar_models/focal_sst.yaml"
COPIES = (
    "MODEL.VFE.VOXEL_SIZE",
    "MODEL.VFE.POINT_CLOUD_RANGE",
    "MODEL.BACKBONE_3D.FOCAL_ENCODER.VOXEL_SIZE",
    "MODEL.BACKBONE_3D.FOCAL_ENCODER.POINT_CLOUD_RANGE",
    "MODEL.BACKBONE_3D.DSVT.INPUT_LAYER.sparse_shape",
    "MODEL.BACKBONE_3D.DSVT.output_shape",
    "MODEL.MAP_TO_BEV.NUM_BEV_FEATURES",
    "MODEL.DENSE_HEAD.CLASS_NAMES_EACH_HEAD",
)


def load(path: Path) -> Validated[SonarConfig]:
    return validate(SonarConfig, read_config(path))


def complaint(folder: Path, *edits: tuple[str, str], dataset: str = DATASET) -> str:
    text = MODEL
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(ConfigError) as caught:
        load(write_original(folder, model=text, dataset=dataset))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_originals_own_files_are_the_published_detector(tmp_path: Path):
    found = load(write_original(tmp_path))
    assert detector_settings(found.value) == as_published(FOCAL_SST)
    data = found.value.DATA_CONFIG
    assert found.value.AS_PUBLISHED and found.value.OPTIMIZATION.FREEZE_IN_PROJ
    assert data.POINT_FEATURE_ENCODING.INTENSITY == "original"
    assert (data.INFO_PATH.train, data.INFO_PATH.test) == (("sonar_infos_train.pkl",), ("sonar_infos_val.pkl",))
    assert not data.mask.MASK_Z
    assert set(COPIES) <= set(found.ignored)
    assert {"OPTIMIZATION.WARMUP_EPOCH", "MODEL.POST_PROCESSING.SCORE_THRESH", "HOOK"} <= set(found.ignored)


def test_the_originals_file_and_ours_differ_in_what_ours_changed_only(tmp_path: Path):
    ours = read_config(SHIPPED).tree
    theirs = load(write_original(tmp_path)).canonical
    canonical = validate(SonarConfig, {**ours, "AS_PUBLISHED": True}).canonical
    assert canonical["MODEL"] == theirs["MODEL"] and canonical["OPTIMIZATION"] == theirs["OPTIMIZATION"]
    steps = [each["DATA_CONFIG"]["DATA_PROCESSOR"] for each in (canonical, theirs)]
    assert steps[0] == steps[1]


def test_another_voxel_size_lists_every_copy_with_its_line_and_what_to_write(tmp_path: Path):
    deciding = "          VOXEL_SIZE: [0.25, 0.4, 0.35]"
    before = MODEL.partition(deciding)[0]
    said = complaint(tmp_path, (before + deciding, before + deciding.replace("0.25, 0.4, 0.35", "0.2, 0.25, 0.25")))
    assert "4 settings are wrong" in said
    for key, right in (
        ("MODEL.VFE.VOXEL_SIZE", "[0.2, 0.25, 0.25]"),
        ("MODEL.BACKBONE_3D.FOCAL_ENCODER.VOXEL_SIZE", "[0.2, 0.25, 0.25]"),
        ("MODEL.BACKBONE_3D.DSVT.INPUT_LAYER.sparse_shape", "[250, 160, 140]"),
        ("MODEL.BACKBONE_3D.DSVT.output_shape", "[250, 160]"),
    ):
        assert f"`{key}` disagrees with" in said
        assert f"Write {right} here, or remove this line" in said
    assert f"focal_sst.yaml:{line_of(MODEL, 'sparse_shape')}: " in said
    assert "DATA_CONFIG.DATA_PROCESSOR.2.VOXEL_SIZE" in said


def test_a_voxel_size_that_does_not_divide_the_range_names_an_end_that_fits(tmp_path: Path):
    said = complaint(tmp_path, ("VOXEL_SIZE: [0.25, 0.4, 0.35]", "VOXEL_SIZE: [0.15, 0.25, 0.25]"))
    line = line_of(MODEL, "VOXEL_SIZE")
    assert f"focal_sst.yaml:{line}: `DATA_CONFIG.DATA_PROCESSOR.2.VOXEL_SIZE` and DATA_CONFIG.POINT_CLOUD_RANGE" in said
    assert "along x" in said and "333.3333 cells" in said and "50.1 would fit" in said


@pytest.mark.parametrize(
    ("old", "new", "key", "part"),
    [
        (
            "set_info: [[32, 4]]\n            d",
            "set_info: [[32, 3]]\n            d",
            "set_info",
            "Write [[32, 3]] here",
        ),
        ("d_model: [128]\n            n", "d_model: [96]\n            n", "INPUT_LAYER.d_model", "Write [96] here"),
        ("NUM_BEV_FEATURES: 128", "NUM_BEV_FEATURES: 64", "NUM_BEV_FEATURES", "Write 128 here"),
        ("['Box', 'Diver']\n        ]", "['Box'], ['Diver']\n        ]", "CLASS_NAMES_EACH_HEAD", "one head for all"),
        ("STRIDE: 1", "STRIDE: 2", "FEATURE_MAP_STRIDE", "Write 1 here"),
        ("output_shape: [200, 100]", "output_shape: [100, 200]", "output_shape", "Write [200, 100] here"),
        ("nhead: [8]", "nhead: [6]", "nhead", "does not divide d_model 128"),
        ("nhead: [8]", "nhead: [8, 8]", "nhead", "several stages is not built here"),
        ("downsample_stride: []", "downsample_stride: [[1, 1, 2]]", "downsample_stride", "is not built here"),
        ("[[[0, 0, 0], [10, 5, 5]]]", "[[[1, 0, 0], [10, 5, 5]]]", "shifts_list", "without a shift"),
        ("dropout: 0.0", "dropout: 0.1", "dropout", "nothing else is built here"),
        ("NAME: CenterPoint", "NAME: FocalSSTVoxelNeXt", "MODEL.NAME", "CenterPoint: other parts are not built here"),
        ("NAME: CenterHead", "NAME: VoxelNeXtHeadSonar", "DENSE_HEAD.NAME", "CenterHead: other parts are not built"),
        ("NAME: DsvtToDenseBEV", "NAME: SparseToDenseDirect", "MAP_TO_BEV.NAME", "DsvtToDenseBEV: other parts"),
        ("NAME: SDAVFE", "NAME: MeanVFE", "VFE.NAME", "SDAVFE or SimpleVFE: other parts are not built here"),
        ("OPTIMIZER: adam_onecycle", "OPTIMIZER: adam", "OPTIMIZER", "adam_onecycle: other parts"),
        (
            "'rot': {'out_channels': 2, 'num_conv': 2}",
            "'rot': {'out_channels': 2, 'num_conv': 1}",
            "num_conv",
            "NUM_HM",
        ),
        ("UPSAMPLE_STRIDES: [1, 2]", "UPSAMPLE_STRIDES: [1, 1]", "BACKBONE_2D", "do not come back to one size"),
        ("NUM_FILTERS: [128, 128]", "NUM_FILTERS: [128]", "BACKBONE_2D.NUM_FILTERS", "one number per stage"),
        ("'test': 20000", "'test': 10000", "MAX_NUMBER_OF_VOXELS.test", "differs from `train`"),
        ("NAME: shuffle_points", "NAME: shufle_points", "DATA_PROCESSOR.1.NAME", "Did you mean `shuffle_points`?"),
        ("nhead: [8]", "nheads: [8]", "nheads", "Did you mean `nhead`?"),
        ("FOCAL_THRESHOLD: 0.5", "FOCAL_TRESHOLD: 0.5", "FOCAL_TRESHOLD", "Did you mean `FOCAL_THRESHOLD`?"),
        ("WARMUP_EPOCH: 2", "WARMUP_EPOCHS: 2", "WARMUP_EPOCHS", "Did you mean `WARMUP_EPOCH`?"),
        ("LR: 0.0005", "LR: fast", "OPTIMIZATION.LR", "a number"),
        ("CLASS_NAMES: ['Box', 'Diver']", "CLASS_NAMES: ['Box', 'Divers']", "CLASS_NAMES", "Did you mean `Diver`?"),
        ("CLASS_NAMES: ['Box', 'Diver']", "CLASS_NAMES: ['Box', 'Fish']", "CLASS_NAMES", "how the class is judged"),
        ("CLASS_NAMES: ['Box', 'Diver']", "CLASS_NAMES: ['Box', 'Box']", "CLASS_NAMES", "each class once"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(tmp_path: Path, old: str, new: str, key: str, part: str):
    said = complaint(tmp_path, (old, new))
    assert key in said and part in said
    assert "focal_sst.yaml:" in said


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("'Diver': 'Pedestrian'", "'Diver': 'Fish'", "'Car', 'Pedestrian' or 'Cyclist'"),
        ("'Diver': 'Pedestrian'", "'Diver': 'Car'", "judges two classes of CLASS_NAMES as one"),
        ("[sonar_infos_train.pkl]", "[a.pkl, b.pkl]", "one name that ends in"),
        ("[sonar_infos_train.pkl]", "[infos.txt]", "one name that ends in"),
        ("'intensity'],\n    src", "'intensity', 'class'],\n    src", "is not what the loader gives"),
    ],
)
def test_what_is_wrong_in_the_base_is_placed_in_the_base(tmp_path: Path, old: str, new: str, part: str):
    assert old in DATASET
    said = complaint(tmp_path, dataset=DATASET.replace(old, new))
    assert part in said and "sonar_dataset.yaml:" in said


def test_a_misspelt_class_in_the_table_of_classes_is_named(tmp_path: Path):
    said = complaint(tmp_path, dataset=DATASET.replace("'Diver': 'Ped", "'Divr': 'Ped"))
    assert "names `Diver`, which is not in DATA_CONFIG.MAP_CLASS_TO_KITTI" in said and "Did you mean `Divr`?" in said


AUGMENTED = DATASET.replace("AUG_CONFIG_LIST: []", "AUG_CONFIG_LIST: [{entry}]")


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("{NAME: random_world_flip, ALONG_AXIS_LIST: ['x', 'y']}", "mirrors what lies ahead to behind the sensor"),
        ("{NAME: random_world_rotation, WORLD_ROT_ANGLE: [0.4, -0.4]}", "WORLD_ROT_ANGLE` is no range"),
        ("{NAME: random_world_scaling, WORLD_SCALE_RANGE: [1.1, 0.9]}", "WORLD_SCALE_RANGE` is no range"),
        ("{NAME: gt_sampling, SAMPLE_GROUPS: ['Fish:3']}", "names a class that is not in CLASS_NAMES"),
        ("{NAME: gt_sampling, SAMPLE_GROUPS: ['Box']}", "SAMPLE_GROUPS.0` has a wrong value"),
        ("{NAME: random_noise}", "AUG_CONFIG_LIST.0.NAME` names nothing that is known"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused(tmp_path: Path, entry: str, part: str):
    dataset = AUGMENTED.replace("{entry}", entry).replace("DISABLE_AUG_LIST: [", "DISABLE_AUG_LIST: []  # [")
    said = complaint(tmp_path, dataset=dataset)
    assert part in said
    assert f"sonar_dataset.yaml:{line_of(dataset, 'AUG_CONFIG_LIST')}" in said


def test_a_disabled_augmentation_is_left_out_and_may_be_anything_known(tmp_path: Path):
    dataset = AUGMENTED.replace("{entry}", "{NAME: random_world_flip, ALONG_AXIS_LIST: ['x', 'y']}")
    assert load(write_original(tmp_path, dataset=dataset)).value.DATA_CONFIG.DATA_AUGMENTOR.enabled == ()


def test_one_fault_is_said_once(tmp_path: Path):
    assert "settings are wrong" not in complaint(tmp_path, ("nhead: [8]", "nhead: [6]"))


def test_a_config_without_a_part_that_decides_says_what_is_missing():
    with pytest.raises(ConfigError) as caught:
        validate(SonarConfig, {"CLASS_NAMES": ["Box", "Diver"], "MODEL": {}, "OPTIMIZATION": {"LR": 1e-3}})
    said = str(caught.value)
    for key in ("DATA_CONFIG", "OPTIMIZATION.BATCH_SIZE_PER_GPU", "OPTIMIZATION.NUM_EPOCHS"):
        assert f"`{key}` is missing" in said


# Of each config of the original what its parts are called, and in how many stages its DSVT is.
OTHERS = {
    "dsvt_sonar": ({"MODEL.BACKBONE_3D.NAME": "DSVT"}, 1),
    "voxelnext, v2, v3, 1stage": (
        {
            "MODEL.NAME": "FocalSSTVoxelNeXt",
            "MODEL.MAP_TO_BEV.NAME": "FocalToVoxelNeXtBridge",
            "MODEL.DENSE_HEAD.NAME": "VoxelNeXtHeadSonar",
        },
        1,
    ),
    "v4, v4.1, v4.2, v4.3, no_iou, no_focal, simplevfe": (
        {
            "MODEL.NAME": "FocalSSTVoxelNeXt",
            "MODEL.MAP_TO_BEV.NAME": "FocalToVoxelNeXtBridge",
            "MODEL.DENSE_HEAD.NAME": "VoxelNeXtHeadSonar",
        },
        2,
    ),
    "two stages of the same network": ({}, 2),
}


@pytest.mark.parametrize(("names", "stages"), OTHERS.values(), ids=OTHERS)
def test_a_config_of_another_network_is_refused_in_one_line_that_says_so(names: dict[str, str], stages: int):
    tree = merge_options(read_config(SHIPPED).tree, [f"{key}={name}" for key, name in names.items()])
    tree["MODEL"]["BACKBONE_3D"]["DSVT"] |= {"set_info": [[32, 4]] * stages, "nhead": [8] * stages, "KERNEL_SIZE": 1}
    tree["MODEL"]["DENSE_HEAD"] |= {"GAUSSIAN_RATIO": [0.5], "IOU_BRANCH": True}
    with pytest.raises(ConfigError) as caught:
        validate(SonarConfig, tree)
    said = str(caught.value)
    assert "is of another network" in said and "not built here" in said and "\n" not in said
    assert all(name in said for name in names.values()) and ("DSVT in 2 stages" in said) == (stages == 2)
    assert len(said) < 300


def test_a_misspelt_part_is_no_other_network():
    tree = merge_options(read_config(SHIPPED).tree, ["MODEL.NAME=CentrePoint", "MODEL.VFE.NAME=SDAVFe"])
    with pytest.raises(ConfigError, match="2 settings are wrong"):
        validate(SonarConfig, tree)
