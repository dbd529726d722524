"""The original's two files, written anew from the specification: every key of it, with the values of `focal_sst`."""

from __future__ import annotations

from pathlib import Path

DATASET = """\
DATASET: 'SonarDataset'
DATA_PATH: '../data/sonar'
POINT_CLOUD_RANGE: [0, -20, -20, 50, 20, 15]
CACHE_ALL_DATA: True
USE_DISK_CACHE: False
USE_BINARY_FORMAT: True
MAP_CLASS_TO_KITTI: {'Box': 'Car', 'Diver': 'Pedestrian'}
DATA_SPLIT: {'train': 'train', 'test': 'val'}
INFO_PATH: {
    'train': [sonar_infos_train.pkl],
    'test': [sonar_infos_val.pkl],
}
POINT_FEATURE_ENCODING: {
    encoding_type: absolute_coordinates_encoding,
    used_feature_list: ['x', 'y', 'z', 'intensity'],
    src_feature_list: ['x', 'y', 'z', 'intensity'],
}
DATA_AUGMENTOR:
    DISABLE_AUG_LIST: ['random_world_flip', 'random_world_rotation', 'random_world_scaling']
    AUG_CONFIG_LIST: []
DATA_PROCESSOR:
    - NAME: mask_points_and_boxes_outside_range
      REMOVE_OUTSIDE_BOXES: True
    - NAME: shuffle_points
      SHUFFLE_ENABLED: {'train': True, 'test': False}
    - NAME: transform_points_to_voxels
      VOXEL_SIZE: [0.1, 0.2, 0.2]
      MAX_POINTS_PER_VOXEL: 64
      MAX_NUMBER_OF_VOXELS: {'train': 30000, 'test': 30000}
"""

MODEL = """\
CLASS_NAMES: ['Box', 'Diver']
DATA_CONFIG:
    _BASE_CONFIG_: cfgs/dataset_configs/sonar_dataset.yaml
    POINT_CLOUD_RANGE: [0, -20, -20, 50, 20, 15]
    DATA_PROCESSOR:
        - NAME: mask_points_and_boxes_outside_range
          REMOVE_OUTSIDE_BOXES: True
          MASK_Z: False
          USE_CENTER_TO_FILTER: True
          min_num_corners: 1
        - NAME: shuffle_points
          SHUFFLE_ENABLED: {'train': True, 'test': False}
        - NAME: transform_points_to_voxels
          VOXEL_SIZE: [0.25, 0.4, 0.35]
          MAX_POINTS_PER_VOXEL: 64
          MAX_NUMBER_OF_VOXELS: {'train': 20000, 'test': 20000}
MODEL:
    NAME: CenterPoint
    VFE:
        NAME: SDAVFE
        WITH_DISTANCE: False
        USE_ABSLOTE_XYZ: True
        USE_NORM: True
        NUM_FILTERS: [64, 64]
        VOXEL_SIZE: [0.25, 0.4, 0.35]
        POINT_CLOUD_RANGE: [0, -20, -20, 50, 20, 15]
    BACKBONE_3D:
        NAME: FocalDSVT
        FOCAL_ENCODER:
            NAME: FocalSparseEncoder
            LOSS_CONFIG: {LOSS_WEIGHT: 1.0, ALPHA: 0.25, GAMMA: 2.0}
            FOCAL_THRESHOLD: 0.5
            FOCAL_TOPK: False
            VOXEL_SIZE: [0.25, 0.4, 0.35]
            POINT_CLOUD_RANGE: [0, -20, -20, 50, 20, 15]
        DSVT:
            NAME: DSVT
            INPUT_LAYER:
                sparse_shape: [200, 100, 100]
                downsample_stride: []
                d_model: [128]
                set_info: [[32, 4]]
                window_shape: [[20, 10, 10]]
                hybrid_factor: [1, 1, 1]
                shifts_list: [[[0, 0, 0], [10, 5, 5]]]
                normalize_pos: False
            block_name: ['DSVTBlock']
            set_info: [[32, 4]]
            d_model: [128]
            nhead: [8]
            dim_feedforward: [192]
            dropout: 0.0
            activation: gelu
            reduction_type: attention
            output_shape: [200, 100]
            conv_out_channel: 128
            ues_checkpoint: False
    MAP_TO_BEV:
        NAME: DsvtToDenseBEV
        NUM_BEV_FEATURES: 128
    BACKBONE_2D:
        NAME: BaseBEVBackbone
        LAYER_NUMS: [5, 5]
        LAYER_STRIDES: [1, 2]
        NUM_FILTERS: [128, 128]
        UPSAMPLE_STRIDES: [1, 2]
        NUM_UPSAMPLE_FILTERS: [128, 128]
    DENSE_HEAD:
        NAME: CenterHead
        CLASS_AGNOSTIC: False
        CLASS_NAMES_EACH_HEAD: [
            ['Box', 'Diver']
        ]
        SHARED_CONV_CHANNEL: 64
        USE_BIAS_BEFORE_NORM: True
        NUM_HM_CONV: 2
        SEPARATE_HEAD_CFG:
            HEAD_ORDER: ['center', 'center_z', 'dim', 'rot']
            HEAD_DICT: {
                'center': {'out_channels': 2, 'num_conv': 2},
                'center_z': {'out_channels': 1, 'num_conv': 2},
                'dim': {'out_channels': 3, 'num_conv': 2},
                'rot': {'out_channels': 2, 'num_conv': 2},
            }
        TARGET_ASSIGNER_CONFIG: {FEATURE_MAP_STRIDE: 1, NUM_MAX_OBJS: 500, GAUSSIAN_OVERLAP: 0.15, MIN_RADIUS: 2}
        LOSS_CONFIG:
            LOSS_WEIGHTS: {
                'cls_weight': 1.0,
                'loc_weight': 0.25,
                'code_weights': [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
            }
        POST_PROCESSING:
            SCORE_THRESH: 0.1
            POST_CENTER_LIMIT_RANGE: [0, -50, -20, 100, 50, 20]
            MAX_OBJ_PER_SAMPLE: 500
            NMS_CONFIG: {NMS_TYPE: nms_gpu, NMS_THRESH: 0.2, NMS_PRE_MAXSIZE: 1000, NMS_POST_MAXSIZE: 83}
    POST_PROCESSING:
        RECALL_THRESH_LIST: [0.3, 0.5, 0.7]
        SCORE_THRESH: 0.1
        OUTPUT_RAW_SCORE: False
        EVAL_METRIC: kitti
OPTIMIZATION:
    BATCH_SIZE_PER_GPU: 4
    NUM_EPOCHS: 24
    OPTIMIZER: adam_onecycle
    LR: 0.0005
    WEIGHT_DECAY: 0.01
    MOMENTUM: 0.9
    MOMS: [0.95, 0.85]
    PCT_START: 0.4
    DIV_FACTOR: 10
    DECAY_STEP_LIST: [35, 45]
    LR_DECAY: 0.1
    LR_CLIP: 0.0000001
    LR_WARMUP: True
    WARMUP_EPOCH: 2
    GRAD_NORM_CLIP: 10
HOOK:
    DisableAugmentationHook: {DISABLE_AUG_LIST: ['gt_sampling'], NUM_LAST_EPOCHS: 5}
"""


def write_original(folder: Path, *, model: str = MODEL, dataset: str = DATASET) -> Path:
    """Write both files as the original's tree has them; return the model's."""
    for name, text in (("dataset_configs/sonar_dataset.yaml", dataset), ("sonar_models/focal_sst.yaml", model)):
        path = folder / "cfgs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "cfgs/sonar_models/focal_sst.yaml"


def line_of(text: str, part: str) -> int:
    """The number of the first line that contains a text."""
    return next(number for number, line in enumerate(text.splitlines(), start=1) if part in line)
