"""Windows, sets and set attention against loops over voxels."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from focalsst.model.dsvt import DSVT, PositionEmbedding, SelfAttention, find_windows, make_sets
from focalsst.model.settings import DsvtSettings, Geometry
from focalsst.model.voxels import SparseVoxels

from .model_inputs import random_cells

GEOMETRY = Geometry(point_cloud_range=(0.0, 0.0, 0.0, 10.0, 9.0, 6.0), voxel_size=(1.0, 1.0, 1.0))
SETTINGS = DsvtSettings(d_model=8, heads=2, feedforward=12, blocks=2, set_size=5, window=(4, 3, 3), shift=(2, 1, 2))


def windows(voxels=150, *, shift=(0, 0, 0), size=(4, 3, 3)):
    return find_windows(random_cells(voxels, GEOMETRY.grid_zyx), GEOMETRY.grid_xyz, size=size, shift=shift)


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 1, 2)])
def test_windows_are_those_of_a_loop(shift):
    cells = random_cells(150, GEOMETRY.grid_zyx)
    found = windows(shift=shift)
    seen: dict[int, tuple[int, ...]] = {}
    for (b, z, y, x), number, inside in zip(cells.tolist(), found.window_V.tolist(), found.inside_V3.tolist()):
        moved = (x + shift[0], y + shift[1], z + shift[2])
        assert inside == [at % size for at, size in zip(moved, (4, 3, 3))]
        place = (b, *(at // size for at, size in zip(moved, (4, 3, 3))))
        assert seen.setdefault(number, place) == place
    assert len(set(seen.values())) == len(seen)


def test_a_window_as_high_as_the_grid_is_not_shifted_in_z():
    assert torch.equal(windows(size=(4, 3, 6), shift=(0, 0, 2)).inside_V3, windows(size=(4, 3, 6)).inside_V3)


@pytest.mark.parametrize("voxels", [1, 7, 150, 500])
@pytest.mark.parametrize("order", ["yxz", "xyz"])
def test_sets_are_those_of_a_loop_and_hold_every_voxel_once(voxels, order):
    found = windows(voxels, shift=(2, 1, 2))
    sets = make_sets(found, set_size=5, order=order)
    axes = {"yxz": (1, 0, 2), "xyz": (0, 1, 2)}[order]
    expected = []
    for number in sorted(set(found.window_V.tolist())):
        members = (found.window_V == number).nonzero()[:, 0].tolist()
        members.sort(key=lambda v: [found.inside_V3[v, axis].item() for axis in axes])
        count = math.ceil(len(members) / 5)
        for j in range(count):
            expected.append([members[(j * 5 + k) * len(members) // (count * 5)] for k in range(5)])
    assert sets.voxel_TK.tolist() == expected
    assert sorted(sets.voxel_TK[~sets.repeated_TK].tolist()) == list(range(voxels))
    assert torch.equal(sets.voxel_TK.flatten()[sets.slot_V], torch.arange(voxels))
    assert not sets.repeated_TK[:, 0].any()


def test_attention_within_sets_is_that_of_torch_set_by_set():
    sets = make_sets(windows(60), set_size=5, order="yxz")
    torch.manual_seed(0)
    ours, theirs = SelfAttention(8, 2).double(), nn.MultiheadAttention(8, 2, batch_first=True).double()
    nn.init.normal_(ours.in_proj_bias)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x, position = torch.randn(60, 8).double(), torch.randn(60, 8).double()
    out = ours(x, position, sets)
    for row, repeated in zip(sets.voxel_TK, sets.repeated_TK):
        members = row[~repeated]
        query = (x + position)[members][None]
        expected, _ = theirs(query, query, x[members][None])
        assert torch.allclose(out[members], expected[0], atol=1e-12)


def test_a_layer_is_two_norms_inside_and_one_around():
    torch.manual_seed(0)
    layer = DSVT(SETTINGS, GEOMETRY).stage_0[0].encoder_list[0]
    sets = make_sets(windows(60), set_size=5, order="yxz")
    x, position = torch.randn(60, 8), torch.randn(60, 8)
    inner = layer.win_attn
    y = inner.norm1(x + inner.self_attn(x, position, sets))
    y = inner.norm2(y + inner.linear2(nn.functional.gelu(inner.linear1(y))))
    assert torch.allclose(layer(x, position, sets), layer.norm(y + x))


def test_a_block_takes_the_positions_of_its_own_shift_and_the_original_those_of_the_layers_number():
    cells = random_cells(60, GEOMETRY.grid_zyx)
    for paired, expected in ((True, [0, 0, 1, 1]), (False, [0, 1, 0, 1])):
        model = DSVT(replace(SETTINGS, paired_positions=paired), GEOMETRY).eval()
        both = model.windows_of(cells)
        for number, shift in enumerate(expected):
            block, layer = divmod(number, 2)
            head = model.input_layer.posembed_layers[0][block][layer].position_embedding_head
            by_voxel = head(both[shift].inside_V3 - torch.tensor([2.0, 1.5, 1.5]))
            assert torch.allclose(model._embedded(both, block, layer), by_voxel, atol=1e-6)


@pytest.mark.parametrize("voxels", [0, 1, 2, 400])
def test_embedding_each_place_once_is_embedding_each_voxel(voxels):
    found = windows(voxels)
    places = DSVT(SETTINGS, GEOMETRY).places_of(found.size)
    assert torch.equal(places[found.place_V], found.inside_V3 - torch.tensor([2.0, 1.5, 1.5]))
    torch.manual_seed(0)
    ours = PositionEmbedding(8).double()
    theirs = copy.deepcopy(ours)
    upstream = torch.randn(voxels, 8).double()
    once = ours(places.double(), found.place_V)
    each = theirs.position_embedding_head(places[found.place_V].double())
    once.backward(upstream)
    each.backward(upstream)
    assert torch.allclose(once, each, atol=1e-12)
    assert all(torch.allclose(a.grad, b.grad, atol=1e-9) for a, b in zip(ours.parameters(), theirs.parameters()))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours.buffers(), theirs.buffers()))


def test_normalised_positions_stay_within_pi_and_hybrid_windows_grow():
    model = DSVT(replace(SETTINGS, normalise_positions=True, hybrid_factor=(2, 2, 1)), GEOMETRY)
    both = model.windows_of(random_cells(60, GEOMETRY.grid_zyx))
    assert both[1].size == (8, 6, 3)
    assert model.places_of(both[1].size).abs().max() <= math.pi + 1e-6


@pytest.mark.parametrize("voxels", [0, 1, 60])
def test_it_takes_any_number_of_voxels(voxels):
    torch.manual_seed(0)
    given = SparseVoxels(
        features_VC=torch.randn(voxels, 8), cells_V4=random_cells(voxels, GEOMETRY.grid_zyx), batch_size=2
    )
    out = DSVT(SETTINGS, GEOMETRY)(given)
    assert out.features_VC.shape == (voxels, 8)
    assert torch.isfinite(out.features_VC).all()


def test_samples_do_not_attend_to_each_other():
    torch.manual_seed(0)
    model = DSVT(SETTINGS, GEOMETRY).eval()
    cells, features = random_cells(80, GEOMETRY.grid_zyx), torch.randn(80, 8)
    both = model(SparseVoxels(features_VC=features, cells_V4=cells, batch_size=2)).features_VC
    first = cells[:, 0] == 0
    alone = model(SparseVoxels(features_VC=features[first], cells_V4=cells[first], batch_size=1)).features_VC
    assert torch.allclose(both[first], alone, atol=1e-6)
