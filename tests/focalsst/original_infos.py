"""Infos as the original pickled them."""

from __future__ import annotations

import pickle

import numpy as np


def originals_infos(annotations, protocol=4):
    infos = [
        {
            "point_cloud": {"lidar_idx": known.frame},
            "annos": {
                "name": np.array(known.names) if known.names else np.zeros(0),
                "gt_boxes_lidar": known.boxes if known.names else np.zeros((0, 7)),
            },
        }
        for known in annotations
    ]
    return pickle.dumps(infos, protocol=protocol)
