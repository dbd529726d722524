"""Geometry, settings, grouping of points, and the voxel feature encoder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from focalsst.model.settings import (
    BevSettings,
    DetectorSettings,
    DsvtSettings,
    Geometry,
    HeadSettings,
    VfeSettings,
    VoxelSettings,
)
from focalsst.model.vfe import SDAVFE
from focalsst.model.voxels import RowNorm, cells_of, centres_of, group_max, group_points, keys_of
from tests.focalsst.detectors import NANO
from unbroken.errors import ConfigError

from .model_inputs import random_cells, scene

GEOMETRY = NANO.geometry
CAPS = VoxelSettings()


def group(points, sample, *, batch_size=2, caps=CAPS):
    return group_points(points, sample, batch_size=batch_size, geometry=GEOMETRY, caps=caps)


def test_the_published_grid_has_200_by_100_by_100_cells():
    assert Geometry().grid_xyz == (200, 100, 100)
    assert Geometry().grid_zyx == (100, 100, 200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxel_size": (0.15, 0.4, 0.35)}, "50.1 would fit"),
        ({"voxel_size": (0.0, 0.4, 0.35)}, "no extent"),
        ({"voxel_size": (0.5, 0.4)}, "six numbers"),
        ({"point_cloud_range": (0.0, 20.0, -20.0, 50.0, -20.0, 15.0)}, "y has no extent"),
        ({"voxel_size": (0.5, 0.4, 0.1)}, "fewer cells along z"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Geometry(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dsvt": DsvtSettings(d_model=100)}, "not divisible by heads"),
        ({"dsvt": DsvtSettings(set_size=0)}, "empty"),
        ({"bev": BevSettings(filters=(128,))}, "one value per stage"),
        ({"bev": BevSettings(upsample_strides=(1, 4))}, "one size"),
        ({"bev": BevSettings(layer_strides=(1, 3), upsample_strides=(1, 3))}, "does not fit the grid"),
        (
            {"bev": BevSettings(layer_strides=(2, 2), upsample_strides=(1, 2), height_aware=True)},
            "heights of columns",
        ),
        ({"head": HeadSettings(code_weights=(1.0,))}, "8 codes"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        DetectorSettings(**change)


def test_keys_and_cells_are_each_others_inverse_and_keep_the_order():
    cells = random_cells(200, GEOMETRY.grid_zyx)
    keys = keys_of(cells, GEOMETRY.grid_zyx)
    assert (keys[1:] > keys[:-1]).all()
    assert torch.equal(cells_of(keys, GEOMETRY.grid_zyx), cells)


def test_every_point_is_in_the_voxel_that_it_is_assigned_to():
    groups = group(*scene())
    away = (groups.points_PF[:, :3] - centres_of(groups.cells_V4, GEOMETRY)[groups.voxel_P]).abs()
    assert (away <= torch.tensor(GEOMETRY.voxel_size) / 2 + 1e-5).all()
    assert len(groups.points_PF) == 720
    assert len(groups.voxel_P.unique()) == len(groups.cells_V4)


def test_points_outside_the_range_and_those_that_are_no_numbers_are_left_out():
    nan, inf = float("nan"), float("inf")
    points = torch.tensor(
        [[1.0, 0, 0, 0], [-0.1, 0, 0, 0], [1, 9, 0, 0], [1, 0, 3.0, 0], [nan, 0, 0, 0], [inf, 0, 0, 0]]
    )
    groups = group(points, torch.zeros(6), batch_size=1)
    assert groups.points_PF.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert groups.cells_V4.tolist() == [[0, 8, 11, 1]]


def test_the_first_points_of_a_crowded_voxel_stay():
    points = torch.tensor([[1.0, 0.1, 0.1, i] for i in range(5)] + [[5.0, 0.1, 0.1, 9]])
    groups = group(points, torch.zeros(6), batch_size=1, caps=VoxelSettings(max_points_per_voxel=3))
    assert groups.points_PF[:, 3].tolist() == [0, 1, 2, 9]


def test_the_cap_on_voxels_is_per_sample_and_depends_on_nothing_but_the_cells():
    points, sample = scene()
    caps = VoxelSettings(max_voxels=50)
    both = group(points, sample, caps=caps)
    assert torch.bincount(both.cells_V4[:, 0]).tolist() == [50, 50]
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(3))
    assert torch.equal(group(points[order], sample[order], caps=caps).cells_V4, both.cells_V4)
    alone = group(points[sample == 1], torch.zeros(360), batch_size=1, caps=caps)
    assert torch.equal(alone.cells_V4[:, 1:], both.cells_V4[both.cells_V4[:, 0] == 1, 1:])
    assert both.cells_V4[:50, 3].float().mean() == pytest.approx(16, abs=4)  # spread over the whole range


def test_the_maximum_of_a_group_is_that_of_a_loop_even_below_zero():
    x, groups = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) - 5, torch.arange(20) % 4
    expected = torch.stack([x[groups == g].amax(0) for g in range(4)])
    assert torch.equal(group_max(x, groups, 5), torch.cat((expected, torch.zeros(1, 3))))


def test_a_single_row_is_normalised_by_the_running_statistics():
    norm = RowNorm(3)
    assert torch.allclose(norm(torch.ones(1, 3)), torch.ones(1, 3))
    assert norm(torch.ones(0, 3)).shape == (0, 3)
    assert norm.running_mean.tolist() == [0, 0, 0]


def vfe(**change):
    torch.manual_seed(0)
    settings = replace(VfeSettings(filters=(8, 16)), **change)
    return SDAVFE(settings, GEOMETRY, point_features=4, places=64, eps=1e-3, momentum=0.01)


def test_a_voxels_features_are_those_of_the_formula():
    encoder = vfe().eval()
    groups = group(*scene())
    described = encoder.describe(groups)
    features = encoder(groups).features_VC
    for voxel in range(0, len(features), 25):
        mine = groups.points_PF[groups.voxel_P == voxel]
        centre = centres_of(groups.cells_V4[voxel : voxel + 1], GEOMETRY)
        h = torch.cat((mine, mine[:, :3] - mine[:, :3].mean(0), mine[:, :3] - centre), dim=1)
        assert torch.allclose(described[groups.voxel_P == voxel], h, atol=1e-5)
        for layer in encoder.pfn_layers:
            h = layer.norm(layer.linear(h)).relu()
            channel = layer.ca_fc(h.amax(0))
            h = h * (1 + layer.pa_fc(h) * channel)
        assert torch.allclose(features[voxel], h.amax(0), atol=1e-5)


def test_normalised_points_are_fractions_and_plain_ones_can_do_without_places():
    groups = group(*scene())
    assert vfe(normalise=True).describe(groups)[:, [0, 1, 2, 7, 8, 9]].abs().max() <= 1.0001
    assert vfe(absolute_xyz=False).describe(groups).shape[1] == 7
    assert not any("gate" in name for name in vfe(gates=False).state_dict())
    assert vfe(gates=False, absolute_xyz=False)(groups).features_VC.shape == (len(groups.cells_V4), 16)


def test_settings_can_be_read_without_loading_torch():
    program = "import sys, focalsst.model.settings; sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program], check=False, env=environment).returncode == 0
