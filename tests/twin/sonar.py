"""A small sonar job with everything random in it switched on, for twin tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from focalsst.conversion import main as convert
from focalsst.samples import write_sample_data

CFGS = Path(__file__).resolve().parents[2] / "apps" / "focal_sst" / "cfgs"
EPOCHS = 4
FRAMES = 21  # in twos: the last batch of an epoch holds one frame, its last group of four batches holds three
STEPS_PER_EPOCH = -(-FRAMES // 2)

AUGMENTED = """
            - NAME: gt_sampling
              SAMPLE_GROUPS: ['Box:2', 'Diver:2']
              PREPARE: {filter_by_min_points: ['Box:5', 'Diver:5']}
              LIMIT_WHOLE_SCENE: True
            - {NAME: random_world_flip, ALONG_AXIS_LIST: ['x']}
            - {NAME: random_world_rotation, WORLD_ROT_ANGLE: [-0.3927, 0.3927]}
            - {NAME: random_world_scaling, WORLD_SCALE_RANGE: [0.95, 1.05]}
"""

CONFIG = """
_BASE_CONFIG_: cfgs/sonar_models/nano.yaml
DATA_CONFIG:
    DATA_PATH: data/sonar
    DATA_AUGMENTOR:
        AUG_CONFIG_LIST:{augmented}
OPTIMIZATION:
    BATCH_SIZE_PER_GPU: 2
    GRAD_ACCUMULATION_STEPS: {accumulate}
    NUM_EPOCHS: {epochs}
    EVAL_INTERVAL: 1
"""


def write_job(
    folder: Path, *, accumulate: int = 1, frames: int = FRAMES, epochs: int = EPOCHS, pasting: bool = True
) -> Path:
    """The application's folder with data and config of a small job; returns the config's path."""
    shutil.copytree(CFGS, folder / "cfgs")
    for script in ("train.py", "convert.py"):
        shutil.copy(CFGS.parent / script, folder)
    data = folder / "data" / "sonar"
    write_sample_data(data, train=frames, val=5, points=600, reach_m=24.0, seed=3)
    if pasting:
        assert convert(["database", os.fspath(data)]) == 0
    config = folder / "cfgs" / "sonar_models" / "tiny.yaml"
    entries = AUGMENTED if pasting else " []"
    config.write_text(CONFIG.format(augmented=entries, accumulate=accumulate, epochs=epochs), "utf-8")
    return config
