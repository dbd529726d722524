"""The config room: what a config of the sonar detector may say, what it means, and what changing it does.

schema          `SonarConfig`, the whole config, in the words of OpenPCDet's fork Focal-SST-Sonar; what must agree and
                fit in it; `detector_settings`, from a config to what the detector is built from
data            where the data lies, its classes of evaluation, its processing, its augmentation, and the one grid
model           voxel features, focal encoder, DSVT, bird's-eye view, centre head, from maps to boxes
original        what AS_PUBLISHED stands for, the original's defaults, and which networks are not built here

A *copy* is a value that the original's files repeat: voxel size and range in VFE and FOCAL_ENCODER, sparse_shape,
INPUT_LAYER's d_model and set_info, and so on. One place decides; a copy may be left out, and one that disagrees is
an error with the value to write. A *repair* is a switch of ours for a fault of the published code; AS_PUBLISHED turns
all of them back, and so does a file that does not say it.

Loads no torch and no numpy, so that a launch can be explained at once.

Touches nothing.
"""

from __future__ import annotations

from focalsst.config.schema import SonarConfig, detector_settings

__all__ = ["SonarConfig", "detector_settings"]
