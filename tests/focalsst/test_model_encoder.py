"""Submanifold convolution, importance and dilation against dense and brute-force references."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from focalsst.model.focal_encoder import (
    NEIGHBOURS,
    FocalSparseEncoder,
    Importance,
    focal_terms,
    importance_loss,
    importance_targets,
    join,
    proposed_cells,
)
from focalsst.model.settings import FocalSettings, Geometry
from focalsst.model.voxels import OFFSETS, SparseVoxels, SubmanifoldConv3d, find_neighbours

from .model_inputs import random_cells

GRID = (4, 5, 7)
GEOMETRY = Geometry(point_cloud_range=(0.0, 0.0, 0.0, 7.0, 5.0, 4.0), voxel_size=(1.0, 1.0, 1.0))
FOCAL = FocalSettings(channels=(4, 6))
BOXES = torch.tensor(
    [[[3.0, 2.0, 2.0, 3.0, 1.4, 2.0, 0.5, 1.0], [0.0] * 8], [[0.0] * 8, [5.5, 3.5, 1.0, 2, 2, 2, 0, 2]]]
)


def dense(features, cells, grid=GRID, samples=2):
    volume = features.new_zeros(samples, features.shape[1], *grid)
    b, z, y, x = cells.unbind(1)
    volume = volume.permute(0, 2, 3, 4, 1).index_put((b, z, y, x), features)
    return volume.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("voxels", [1, 40, 280])
def test_it_equals_a_dense_convolution_read_at_the_active_cells(voxels):
    cells = random_cells(voxels, GRID)
    torch.manual_seed(0)
    conv = SubmanifoldConv3d(3, 5).double()
    x = torch.randn(voxels, 3, dtype=torch.double, requires_grad=True)
    b, z, y, ex = cells.unbind(1)
    reference = F.conv3d(dense(x, cells), conv.weight.permute(0, 4, 1, 2, 3), padding=1)[b, :, z, y, ex]
    out = conv(x, find_neighbours(cells, GRID))
    assert torch.allclose(out, reference, atol=1e-12)
    upstream = torch.randn_like(out)
    ours = torch.autograd.grad(out, (x, conv.weight), upstream)
    theirs = torch.autograd.grad(reference, (x, conv.weight), upstream)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs))


def test_neighbours_do_not_reach_round_the_edge_nor_into_the_next_sample():
    cells = torch.tensor([[0, 0, 0, 6], [0, 0, 1, 0], [0, 3, 4, 6], [1, 0, 0, 0]])
    neighbours = find_neighbours(cells, GRID)
    assert [len(to) for to in neighbours.to] == [4 if k == 13 else 0 for k in range(27)]


def test_no_voxels_have_no_neighbours():
    cells = torch.zeros(0, 4, dtype=torch.long)
    conv = SubmanifoldConv3d(3, 5)
    assert conv(torch.zeros(0, 3), find_neighbours(cells, GRID)).shape == (0, 5)


def proposed_by_a_loop(cells, logits, threshold, growth):
    active = {tuple(cell) for cell in cells.tolist()}
    score = logits.sigmoid()
    best = {}
    for voxel, (b, z, y, x) in enumerate(cells.tolist()):
        if score[voxel, 26] <= threshold:
            continue
        for k, (dz, dy, dx) in enumerate(NEIGHBOURS):
            cell = (b, z + dz, y + dy, x + dx)
            inside = all(0 <= at < size for at, size in zip(cell[1:], GRID))
            if inside and cell not in active and score[voxel, k] >= threshold:
                best[cell] = max(best.get(cell, 0.0), float(score[voxel, k]))
    chosen = []
    for sample in range(2):
        mine = sorted((cell for cell in best if cell[0] == sample), key=lambda cell: (-best[cell], cell))
        count = sum(cell[0] == sample for cell in active)
        chosen += mine if math.isinf(growth) else mine[: math.floor(growth * count)]
    return sorted(chosen)


@pytest.mark.parametrize("growth", [math.inf, 1.0, 0.25, 0.0])
@pytest.mark.parametrize("threshold", [0.5, 0.7, 1.1])
def test_proposed_cells_are_those_of_a_loop(growth, threshold):
    cells = random_cells(40, GRID)
    logits = torch.randn(40, 27, generator=torch.Generator().manual_seed(1))
    voxels = SparseVoxels(features_VC=torch.zeros(40, 2), cells_V4=cells, batch_size=2)
    found = proposed_cells(voxels, logits, threshold=threshold, max_growth=growth, grid_zyx=GRID)
    assert [tuple(cell) for cell in found.tolist()] == proposed_by_a_loop(cells, logits, threshold, growth)


def test_joined_voxels_are_sorted_and_new_ones_are_zero():
    voxels = SparseVoxels(features_VC=torch.ones(3, 2), cells_V4=random_cells(3, GRID, samples=1), batch_size=1)
    new = torch.tensor([[0, 3, 4, 6]])
    joined = join(voxels, new, GRID)
    assert joined.features_VC.sum() == 6
    assert joined.cells_V4.tolist() == sorted([*voxels.cells_V4.tolist(), *new.tolist()])


def test_targets_are_the_cells_whose_centres_lie_in_a_box_of_their_own_sample():
    cells = random_cells(100, GRID)
    targets = importance_targets(cells, BOXES, GEOMETRY)
    offsets = [*NEIGHBOURS, (0, 0, 0)]
    for voxel, (b, z, y, x) in enumerate(cells.tolist()):
        for k, (dz, dy, dx) in enumerate(offsets):
            place = (x + dx + 0.5, y + dy + 0.5, z + dz + 0.5)
            assert bool(targets[voxel, k]) == any(inside(place, box) for box in BOXES[b].tolist())
    assert 0 < targets[:, 26].sum() < 100


def inside(place, box):
    x, y, z, dx, dy, dz, heading, label = box
    away = complex(place[0] - x, place[1] - y) * complex(math.cos(heading), -math.sin(heading))
    return label > 0 and abs(away.real) <= dx / 2 and abs(away.imag) <= dy / 2 and abs(place[2] - z) <= dz / 2


def test_focal_terms_follow_the_formula_and_stay_finite():
    logits = torch.tensor([0.3, -2.0, 200.0, -200.0])
    target = torch.tensor([True, False, True, True])
    p = torch.tensor([0.3, -2.0]).sigmoid()
    expected = torch.stack((-0.25 * (1 - p[0]) ** 2 * p[0].log(), -0.25 * p[1] ** 2 * (1 - p[1]).log()))
    terms = focal_terms(logits, target, alpha_N=0.25, gamma=2.0)
    assert torch.allclose(terms[:2], expected)
    assert terms[2:].tolist() == [0.0, 50.0]


def test_the_original_loss_is_the_mean_over_voxels_and_the_balanced_one_is_per_positive():
    cells = random_cells(100, GRID)
    importance = Importance(logits_VK=torch.zeros(100, 27), cells_V4=cells)
    original = replace(FOCAL, balanced=False, supervise_neighbours=False)
    one = 0.25 * math.log(2)
    assert importance_loss(importance, BOXES, GEOMETRY, original).item() == pytest.approx(0.25 * one)
    targets = importance_targets(cells, BOXES, GEOMETRY)
    positive, negative = targets.sum().item(), (~targets).sum().item()
    expected = one * (0.25 * positive + 0.75 * negative) / positive
    assert importance_loss(importance, BOXES, GEOMETRY, FOCAL).item() == pytest.approx(expected)


def encoder(**change):
    torch.manual_seed(0)
    return FocalSparseEncoder(replace(FOCAL, **change), GEOMETRY, in_channels=3, out_channels=8, eps=1e-3, momentum=0.1)


def voxels(count=60):
    features = torch.randn(count, 3, generator=torch.Generator().manual_seed(2))
    return SparseVoxels(features_VC=features, cells_V4=random_cells(count, GRID), batch_size=2)


def test_the_straight_through_gate_changes_no_value_but_lets_gradient_reach_the_importance():
    outs = []
    for on in (True, False):
        model = encoder(straight_through=on)
        out, _ = model(voxels())
        outs.append(out.features_VC)
        out.features_VC.square().sum().backward()
        reached = model.conv_imp.weight.grad is not None and bool(model.conv_imp.weight.grad.any())
        assert reached is on
    assert torch.equal(outs[0], outs[1])


def test_dilation_adds_voxels_and_a_threshold_above_one_adds_none():
    assert len(encoder()(voxels())[0].cells_V4) > 60
    assert len(encoder(threshold=1.1)(voxels())[0].cells_V4) == 60
    assert len(encoder(max_growth=0.1)(voxels())[0].cells_V4) <= 66


def test_the_offsets_are_symmetric():
    assert all(tuple(-step for step in OFFSETS[k]) == OFFSETS[26 - k] for k in range(27))
