"""Map to BEV, 2-D backbone, and the centre head: targets, losses, decoding."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from focalsst.model.bev import BaseBEVBackbone, BevMap, HeightAwareToBev, MaxToBev
from focalsst.model.center_head import (
    CenterHead,
    HeadMaps,
    assign_targets,
    best_cells,
    decode,
    gaussian_radius,
    heatmap_loss,
    location_loss,
)
from focalsst.model.detector import build_detector
from focalsst.model.focal_encoder import importance_targets
from focalsst.model.settings import BevSettings, DecodeSettings, Geometry, HeadSettings
from focalsst.model.voxels import SparseVoxels
from tests.focalsst.detectors import NANO

from .model_inputs import KEEP_ALL, LABELLED, random_cells

GEOMETRY = Geometry(point_cloud_range=(0.0, -10.0, -8.0, 32.0, 10.0, 4.0), voxel_size=(0.5, 0.5, 0.5))
MAP = (40, 64)
HEAD = HeadSettings(shared_channels=8)
DECODE = DecodeSettings()


def targets_of(boxes=LABELLED, *, head=HEAD, stride=1):
    size = (MAP[0] // stride, MAP[1] // stride)
    return assign_targets(boxes, geometry=GEOMETRY, stride=stride, map_YX=size, settings=head)


def voxels(count=200):
    return SparseVoxels(
        features_VC=torch.randn(count, 5, generator=torch.Generator().manual_seed(0)),
        cells_V4=random_cells(count, GEOMETRY.grid_zyx),
        batch_size=2,
    )


# -- map


def columns(given):
    found: dict[tuple[int, int, int], list[int]] = {}
    for row, (b, _, y, x) in enumerate(given.cells_V4.tolist()):
        found.setdefault((b, y, x), []).append(row)
    return found


def test_a_column_is_the_maximum_of_its_voxels_and_an_empty_one_is_zero():
    given = voxels()
    bev = MaxToBev(GEOMETRY)(given)
    expected = torch.zeros(2, 5, *MAP)
    for (b, y, x), rows in columns(given).items():
        expected[b, :, y, x] = given.features_VC[rows].amax(0)
    assert torch.equal(bev.features_BCYX, expected)
    assert not bev.height_B1YX.any()


def test_the_height_aware_map_adds_the_weighed_mean_height():
    given = voxels()
    torch.manual_seed(0)
    module = HeightAwareToBev(GEOMETRY, 5, window=3)
    bev = module(given)
    weight = module.weigh(given.features_VC).sigmoid()[:, 0]
    z = (given.cells_V4[:, 1] + 0.5) / 12 - 1
    plain = MaxToBev(GEOMETRY)(given).features_BCYX
    for (b, y, x), rows in list(columns(given).items())[::20]:
        total = weight[rows].sum()
        hints = torch.stack(((weight[rows] * z[rows]).sum() / total, total.log1p()))
        expected = plain[b, :, y, x] + module.mix(hints.view(1, 2, 1, 1)).flatten()
        assert torch.allclose(bev.features_BCYX[b, :, y, x], expected, atol=1e-5)


def test_the_height_of_a_lonely_voxel_is_its_centre_and_of_nothing_the_middle():
    given = SparseVoxels(features_VC=torch.ones(1, 5), cells_V4=torch.tensor([[0, 20, 10, 30]]), batch_size=1)
    height = HeightAwareToBev(GEOMETRY, 5, window=3)(given).height_B1YX[0, 0]
    assert torch.allclose(height[9:12, 29:32], torch.full((3, 3), 2.25))
    assert torch.allclose(height[0], torch.full((64,), -2.0))


def test_a_wider_window_finds_the_height_of_voxels_further_away():
    given = SparseVoxels(features_VC=torch.ones(1, 5), cells_V4=torch.tensor([[0, 20, 10, 30]]), batch_size=1)
    height = HeightAwareToBev(GEOMETRY, 5, window=5)(given).height_B1YX[0, 0]
    assert torch.allclose(height[8:13, 28:33], torch.full((5, 5), 2.25))
    assert torch.allclose(height[7], torch.full((64,), -2.0))


def test_the_height_loss_teaches_that_voxels_in_boxes_count():
    settings = replace(NANO, bev=replace(NANO.bev, height_loss_weight=0.5))
    torch.manual_seed(0)
    model = build_detector(settings)
    points = torch.cat(
        (torch.rand(200, 3) * torch.tensor([20.0, 14.0, 7.0]) - torch.tensor([0.0, 7.0, 5.0]), torch.rand(200, 1)), 1
    )
    boxes = torch.tensor([[[10.0, 0.0, -1.0, 4.0, 4.0, 4.0, 0.3, 1.0]]])
    prediction = model(points, torch.zeros(200, dtype=torch.int64), 1)
    losses = model.losses(prediction, boxes)
    weights = prediction.height_weights
    assert weights is not None and len(weights.logits_VK) == prediction.voxels
    inside = importance_targets(weights.cells_V4, boxes, settings.geometry)[:, -1:]
    (gradient,) = torch.autograd.grad(losses.height, weights.logits_VK, retain_graph=True)
    assert inside.any() and (gradient[inside] < 0).all() and (gradient[~inside] > 0).all()
    assert torch.allclose(losses.total, losses.heatmap + losses.location + losses.importance + losses.height)
    silent = build_detector(NANO).losses(prediction, boxes)
    assert silent.height == 0


def test_the_2d_backbone_brings_all_stages_to_one_size_and_is_named_as_in_openpcdet():
    settings = BevSettings(layer_nums=(1, 2), filters=(6, 8), upsample_filters=(4, 3))
    backbone = BaseBEVBackbone(settings, in_channels=5, eps=1e-3, momentum=0.01)
    assert backbone(torch.randn(2, 5, *MAP)).shape == (2, 7, *MAP)
    names = set(backbone.state_dict())
    assert {"blocks.0.1.weight", "blocks.1.7.weight", "blocks.1.8.running_var", "deblocks.1.0.weight"} <= names


# -- targets


def test_a_peak_is_exactly_one_at_the_cell_of_each_centre_and_nowhere_else():
    targets = targets_of()
    peaks = (targets.heatmap_BKYX == 1).nonzero().tolist()
    assert peaks == [[0, 0, 22, 16], [0, 1, 11, 30], [1, 0, 26, 24]]
    assert targets.cell_G.tolist() == [22 * 64 + 16, 11 * 64 + 30, (40 + 26) * 64 + 24]


def test_the_heatmap_is_that_of_a_loop_also_where_gaussians_meet_and_at_the_edge():
    boxes = torch.tensor(
        [[[0.1, -9.9, 0, 4, 3, 1, 0, 1], [1.6, -9.2, 0, 2, 2, 1, 0, 1], [31.9, 9.9, 0, 9, 9, 1, 0, 2.0]]]
    )
    found = targets_of(boxes).heatmap_BKYX[0]
    expected = torch.zeros_like(found)
    for x, y, _, dx, dy, _, _, label in boxes[0].tolist():
        column, row = int(x / 0.5), int((y + 10) / 0.5)
        radius = max(int(radius_by_formula(dx / 0.5, dy / 0.5)), 2)
        sigma = (2 * radius + 1) / 6
        for i in range(max(row - radius, 0), min(row + radius + 1, 40)):
            for j in range(max(column - radius, 0), min(column + radius + 1, 64)):
                value = math.exp(-((i - row) ** 2 + (j - column) ** 2) / (2 * sigma**2))
                expected[int(label) - 1, i, j] = max(expected[int(label) - 1, i, j].item(), value)
    assert torch.allclose(found, expected, atol=1e-6)


def radius_by_formula(h, w, overlap=0.15):
    roots = []
    for a, b, c in (
        (1, h + w, w * h * (1 - overlap) / (1 + overlap)),
        (4, 2 * (h + w), (1 - overlap) * w * h),
        (4 * overlap, -2 * overlap * (h + w), (overlap - 1) * w * h),
    ):
        roots.append((b + math.sqrt(b * b - 4 * a * c)) / 2)
    return min(roots)


def test_radii_follow_the_formula():
    sizes = torch.tensor([[10.24, 5.4], [4.4, 1.9], [1.0, 1.0]])
    expected = [radius_by_formula(h, w) for h, w in sizes.tolist()]
    assert gaussian_radius(sizes, 0.15).tolist() == pytest.approx(expected, rel=1e-4)


def test_a_centre_beyond_the_map_is_drawn_at_its_edge():
    boxes = torch.tensor([[[99.0, -99.0, 0, 2, 2, 2, 0, 1.0]]])
    targets = targets_of(boxes)
    assert (targets.heatmap_BKYX == 1).nonzero().tolist() == [[0, 0, 0, 63]]
    assert targets.codes_G8[0, :2].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("boxes", [torch.zeros(2, 0, 8), torch.zeros(2, 3, 8)])
def test_a_batch_without_boxes_has_an_empty_heatmap_and_a_finite_loss(boxes):
    targets = targets_of(boxes)
    assert not targets.heatmap_BKYX.any()
    maps = HeadMaps(
        heatmap_BKYX=torch.zeros(2, 2, *MAP, requires_grad=True),
        codes_B8YX=torch.zeros(2, 8, *MAP, requires_grad=True),
    )
    heatmap = heatmap_loss(maps.heatmap_BKYX, targets.heatmap_BKYX)
    location = location_loss(maps.codes_B8YX, targets, HEAD.code_weights)
    assert heatmap.item() == pytest.approx(0.25 * math.log(2) * 2 * 2 * 40 * 64, rel=1e-4)
    assert location.item() == 0
    (heatmap + location).backward()


# -- loss


def test_the_heatmap_loss_is_that_of_the_formula():
    logits = torch.randn(2, 2, *MAP, generator=torch.Generator().manual_seed(0))
    target = targets_of().heatmap_BKYX
    p, total = logits.sigmoid(), 0.0
    total -= ((1 - p) ** 2 * p.log())[target == 1].sum()
    total -= ((1 - target) ** 4 * p**2 * (1 - p).log())[target < 1].sum()
    assert heatmap_loss(logits, target).item() == pytest.approx(total.item() / 3, rel=1e-5)


def test_the_heatmap_loss_stays_finite_in_half_precision_and_at_saturation():
    logits = torch.full((1, 2, *MAP), 60.0, dtype=torch.half, requires_grad=True)
    loss = heatmap_loss(logits, targets_of().heatmap_BKYX[:1])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_the_location_loss_is_the_mean_over_all_boxes_of_the_weighed_codes():
    targets = targets_of()
    codes = torch.zeros(2, 8, *MAP)
    weights = (1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5)
    expected = (targets.codes_G8.abs().mean(0) * torch.tensor(weights)).sum()
    assert location_loss(codes, targets, weights).item() == pytest.approx(expected.item())


# -- decoding


def perfect_maps(targets, stride=1):
    height, width = MAP[0] // stride, MAP[1] // stride
    codes = torch.zeros(2 * height * width, 8)
    codes[targets.cell_G] = targets.codes_G8
    heatmap = targets.heatmap_BKYX.clamp(1e-4, 1 - 1e-4).logit()
    return HeadMaps(heatmap_BKYX=heatmap, codes_B8YX=codes.view(2, height, width, 8).permute(0, 3, 1, 2))


def detect(maps, *, settings=DECODE, head=HEAD, stride=1, suppress=KEEP_ALL):
    return decode(maps, geometry=GEOMETRY, stride=stride, head=head, settings=settings, suppress=suppress)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("heading", ["axis", "direction"])
def test_boxes_come_back_from_their_own_targets(heading, stride):
    head = replace(HEAD, heading=heading)
    found = detect(perfect_maps(targets_of(head=head, stride=stride), stride), head=head, stride=stride)
    for detections, boxes in zip(found, LABELLED):
        labelled = boxes[boxes[:, 7] > 0]
        order = detections.labels_N.argsort()
        assert detections.labels_N[order].tolist() == labelled[:, 7].tolist()
        away = (detections.boxes_N7[order] - labelled[:, :7]).abs()
        if heading == "axis":  # a heading and its opposite are the same axis
            away[:, 6] = torch.minimum(away[:, 6], (away[:, 6] - math.pi).abs())
        assert away.max() < 1e-4
        assert (detections.scores_N > 0.99).all()


def test_headings_half_a_turn_apart_have_the_same_target_on_an_axis_only():
    turned = LABELLED.clone()
    turned[..., 6] += math.pi
    assert torch.allclose(targets_of().codes_G8, targets_of(turned).codes_G8, atol=1e-5)
    direction = replace(HEAD, heading="direction")
    assert not torch.allclose(targets_of(head=direction).codes_G8, targets_of(turned, head=direction).codes_G8)


def test_without_the_peak_rule_neighbours_of_a_centre_are_candidates_too():
    maps = perfect_maps(targets_of())
    loose = detect(maps, settings=replace(DECODE, peaks_only=False, center_limit_range=(-99.0,) * 3 + (99.0,) * 3))
    assert len(loose[0].scores_N) > 2 == len(detect(maps)[0].scores_N)


def test_boxes_beyond_the_limit_or_below_the_score_are_left_out():
    maps = perfect_maps(targets_of())
    near = replace(DECODE, center_limit_range=(0.0, -50.0, -20.0, 10.0, 50.0, 20.0))
    assert [len(d.scores_N) for d in detect(maps, settings=near)] == [1, 0]
    assert [len(d.scores_N) for d in detect(maps, settings=replace(DECODE, score_threshold=1.0))] == [0, 0]


def test_suppression_is_asked_per_class_or_once_and_its_order_is_that_of_scores():
    maps, asked = perfect_maps(targets_of()), []

    def first_only(boxes, scores):
        asked.append(len(scores))
        return torch.arange(len(scores))[:1]

    assert [len(d.scores_N) for d in detect(maps, suppress=first_only)] == [2, 1]
    assert asked == [1, 1, 1]
    asked.clear()
    together = detect(maps, settings=replace(DECODE, per_class=False), suppress=first_only)
    assert [len(d.scores_N) for d in together] == [1, 1]
    assert asked == [2, 1]


def test_the_numbers_before_and_after_suppression_are_limited():
    settings = replace(DECODE, peaks_only=False, score_threshold=0.0, nms_pre=7, nms_post=5, max_boxes=9999)
    settings = replace(settings, center_limit_range=(-999.0,) * 3 + (999.0,) * 3)
    seen = []
    found = detect(
        HeadMaps(heatmap_BKYX=torch.randn(1, 2, *MAP), codes_B8YX=torch.zeros(1, 8, *MAP)),
        settings=settings,
        suppress=lambda boxes, scores: seen.append(len(scores)) or torch.arange(len(scores)),
    )
    assert seen == [7, 7]
    assert len(found[0].scores_N) == 10
    assert (found[0].scores_N.diff() <= 0).all()


def test_the_best_cells_are_first_of_each_class_and_then_of_all():
    heatmap = torch.full((1, 2, 4, 5), -9.0)
    heatmap[0, 0, 1, 2], heatmap[0, 1, 3, 4], heatmap[0, 1, 0, 0] = 1.0, 2.0, 0.5
    scores, labels, cells = best_cells(heatmap, replace(DECODE, max_boxes=3))
    assert labels.tolist() == [[2, 1, 2]]
    assert cells.tolist() == [[19, 7, 0]]
    assert torch.allclose(scores, torch.tensor([[2.0, 1.0, 0.5]]).sigmoid())


def test_the_head_starts_at_background_and_adds_the_height_to_z():
    torch.manual_seed(0)
    head = CenterHead(HEAD, in_channels=6).eval()
    x = torch.randn(1, 6, *MAP)
    lifted = BevMap(features_BCYX=x, height_B1YX=torch.full((1, 1, *MAP), 3.0))
    flat = BevMap(features_BCYX=x, height_B1YX=torch.zeros(1, 1, 1, 1))
    above, below = head(x, lifted), head(x, flat)
    difference = above.codes_B8YX - below.codes_B8YX
    assert torch.allclose(difference.mean((0, 2, 3)), torch.tensor([0, 0, 3.0, 0, 0, 0, 0, 0]), atol=1e-5)
    assert head.heads_list[0].hm[-1].bias.tolist() == pytest.approx([-2.19, -2.19])
    assert not head.heads_list[0].dim[-1].bias.any()
