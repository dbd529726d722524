"""The whole detector: parameter counts, names, gradients, exact repetition and scenes with nothing in them."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from focalsst.dataset.folder import Sample, SonarFolder, collate
from focalsst.model.detector import build_detector
from focalsst.optimizer import build_adam
from focalsst.samples import write_sample_data
from tests.focalsst.detectors import FOCAL_SST, MICRO, NANO, NO_FOCAL, PRESETS, SMALL, as_published
from unbroken.errors import ConfigError

from .model_inputs import KEEP_ALL, LABELLED, detector, scene


def numel(module):
    return sum(parameter.numel() for parameter in module.parameters())


def without_memory(settings):
    with torch.device("meta"):  # shapes only: no time, no memory
        return build_detector(settings)


def cloud(seed):
    """Points and boxes of one frame."""
    return scene(samples=1, seed=seed)[0], LABELLED[seed % 2]


def batch_of(*frames):
    return collate([Sample(points=points, boxes=boxes, name="") for points, boxes in frames])


def step(model, *, samples=2, seed=0):
    """Losses and gradients of one batch."""
    prediction = model(*scene(samples=samples, seed=seed), samples)
    losses = model.losses(prediction, LABELLED[:samples])
    losses.total.backward()
    return prediction, losses


def test_the_published_detector_has_3655434_parameters_part_by_part():
    model = without_memory(FOCAL_SST)
    assert numel(model) == 3_655_434
    assert numel(model.vfe) == 13_312
    assert numel(model.backbone_3d.focal_encoder) == 378_880
    assert numel(model.backbone_3d.dsvt.input_layer) == 138_240
    assert numel(model.backbone_3d.dsvt) == 138_240 + 931_328
    assert numel(model.backbone_2d.blocks[0]) == numel(model.backbone_2d.blocks[1]) == 886_272
    assert [numel(deblock) for deblock in model.backbone_2d.deblocks] == [16_640, 65_792]
    assert numel(model.dense_head) == 147_648 + 191_050


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("no_focal", 3_655_434),
        ("voxel_015", 3_655_434),
        ("small", 3_173_322),
        ("micro", 269_850 + 129),
        ("nano", 52_035),
    ],
)
def test_other_presets_have_their_numbers_of_parameters(name, parameters):
    assert numel(without_memory(PRESETS[name])) == parameters


def test_taking_the_repairs_back_changes_no_shape():
    ours, original = without_memory(FOCAL_SST), without_memory(as_published(FOCAL_SST))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in original.state_dict().items()}
    assert numel(original) == 3_655_434
    assert numel(without_memory(as_published(MICRO))) == 269_850


def test_parts_are_named_as_in_openpcdet():
    names = set(without_memory(SMALL).state_dict())
    assert {
        "vfe.pfn_layers.1.linear.weight",
        "backbone_3d.focal_encoder.conv_input.0.weight",
        "backbone_3d.focal_encoder.conv_imp.weight",
        "backbone_3d.dsvt.input_layer.posembed_layers.0.3.1.position_embedding_head.3.bias",
        "backbone_3d.dsvt.stage_0.3.encoder_list.1.win_attn.self_attn.in_proj_weight",
        "backbone_3d.dsvt.stage_0.0.encoder_list.0.win_attn.linear2.bias",
        "backbone_3d.dsvt.stage_0.0.encoder_list.0.norm.weight",
        "backbone_3d.dsvt.residual_norm_stage_0.3.weight",
        "backbone_2d.blocks.1.16.weight",
        "backbone_2d.deblocks.0.0.weight",
        "dense_head.shared_conv.0.bias",
        "dense_head.heads_list.0.center_z.0.0.weight",
        "dense_head.heads_list.0.hm.1.bias",
    } <= names


def test_norms_have_the_published_constants():
    model = without_memory(FOCAL_SST)
    norms = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)}
    for name, norm in norms.items():
        plain = name.startswith("dense_head") or "posembed" in name
        assert (norm.eps, norm.momentum) == ((1e-5, 0.1) if plain else (1e-3, 0.01)), name


def silent_and_unmoved(model, batch):
    """Names of the parameters without a gradient, and of those that a step of Adam without decay leaves as they are.

    The number of boxes is odd: the gradient of an L1 loss to a bias is a sum of signs, and those of an even number can
    cancel out.
    """
    assert (batch.boxes[..., 7] > 0).sum() % 2 == 1
    optimizer = build_adam(model, lr=1e-3, weight_decay=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    losses = model.losses(model(batch.points, batch.owner, len(batch)), batch.boxes)
    losses.total.backward()
    assert torch.isfinite(torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0))
    optimizer.step()
    named = dict(model.named_parameters()).items()
    silent = [name for name, p in named if p.grad is None or not p.grad.any()]
    return silent, [name for (name, p), old in zip(named, before) if torch.equal(p, old)]


@pytest.mark.parametrize("settings", [NANO, replace(NANO, dsvt=replace(NANO.dsvt, blocks=2)), MICRO])
def test_every_parameter_receives_a_gradient_and_moves(settings):
    assert silent_and_unmoved(detector(settings), batch_of(cloud(0), cloud(1))) == ([], [])


@pytest.fixture
def memory_given_back() -> Iterator[None]:
    """A session tells glibc to keep what it freed: this process has other tests to run, with seven gigabytes less."""
    yield
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("memory_given_back")
def frames(folder, points):
    """Two frames of the whole reach, as a training gets them, with an odd number of boxes."""
    write_sample_data(folder / "data", train=2, val=1, points=points, reach_m=48.0)
    data = SonarFolder(root=folder / "data", split="train", infos="sonar_infos_train.npz", training=True)
    batch = collate([data.sample(index, np.random.default_rng(index)) for index in range(2)])
    assert len(batch.points) > 2 * 0.98 * points
    batch.boxes[0, : 1 - int(batch.counts.sum()) % 2] = 0
    return batch


def test_a_step_of_the_published_detector_moves_every_parameter(tmp_path):
    assert silent_and_unmoved(detector(FOCAL_SST), frames(tmp_path, points=3_000)) == ([], [])


def test_the_published_detector_takes_full_frames(tmp_path):
    """Without gradients: their activations are 7 GB."""
    model, batch = detector(FOCAL_SST), frames(tmp_path, points=38_552)
    with torch.no_grad():
        prediction = model(batch.points, batch.owner, len(batch))
        losses = model.losses(prediction, batch.boxes)
    assert 40_000 < prediction.voxels <= 80_000
    assert torch.isfinite(losses.total) and losses.importance > 0


def test_as_published_the_importance_receives_none():
    model = detector(as_published(NANO))
    _, losses = step(model)
    assert [name for name, p in model.named_parameters() if p.grad is None] == [
        "backbone_3d.focal_encoder.conv_imp.weight"
    ]
    assert losses.importance.item() > 0
    assert losses.total.item() == pytest.approx((losses.heatmap + losses.location).item())


def test_the_total_is_the_sum_of_its_weighed_parts():
    settings = replace(NANO, focal=replace(NANO.focal, loss_weight=3.0))
    _, losses = step(detector(settings))
    _, plain = step(detector(NANO))
    assert losses.importance.item() == pytest.approx(3 * plain.importance.item())
    assert losses.total.item() == pytest.approx((losses.heatmap + losses.location + losses.importance).item())


def test_without_focal_no_voxel_is_added_and_nothing_is_learned_about_importance():
    focal = replace(NANO.focal, threshold=NO_FOCAL.focal.threshold, loss_weight=NO_FOCAL.focal.loss_weight)
    model = detector(replace(NANO, focal=focal))
    prediction, losses = step(model)
    assert prediction.voxels == len(prediction.importance.cells_V4)
    assert losses.importance.item() == 0
    assert not model.backbone_3d.focal_encoder.conv_imp.weight.grad.any()


def test_two_runs_are_bit_identical_forwards_and_backwards():
    runs = []
    for _ in range(2):
        model = detector()
        prediction, losses = step(model)
        gradients = [p.grad for p in model.parameters()]
        runs.append([losses.total, prediction.maps.codes_B8YX, *gradients, *model.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*runs))


def test_five_steps_are_bit_identical_and_lower_the_loss():
    def train():
        model = detector()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        totals = []
        for _ in range(5):
            optimizer.zero_grad()
            totals.append(step(model)[1].total.item())
            optimizer.step()
        return totals, model.state_dict()

    (totals, weights), (again, same) = train(), train()
    assert totals == again
    assert all(torch.equal(a, b) for a, b in zip(weights.values(), same.values()))
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("points", [0, 1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_scenes_with_almost_nothing_in_them_are_finite(points, training):
    model = detector().train(training)
    cloud = torch.tensor([[5.0, 1.0, -1.0, 0.5], [9.0, 1.0, -1.0, 0.5]])[:points]
    prediction = model(cloud, torch.zeros(points, dtype=torch.long), 2)
    losses = model.losses(prediction, torch.zeros(2, 0, 8))
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())
    assert len(model.detect(prediction, KEEP_ALL)) == 2


@pytest.mark.parametrize("settings", [NANO, MICRO])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frames", ["ordinary, empty, without objects", "all empty", "empty but labelled"])
def test_frames_without_points_or_objects_are_frames_like_others(settings, training, frames):
    nothing, no_boxes = torch.zeros(0, 4), torch.zeros(0, 8)
    match frames:
        case "all empty":
            batch = batch_of((nothing, no_boxes), (nothing, no_boxes))
        case "empty but labelled":
            batch = batch_of((nothing, LABELLED[0]), (nothing, LABELLED[0]))
        case _:
            batch = batch_of(cloud(0), (nothing, no_boxes), (cloud(1)[0], no_boxes))
    model = detector(settings).train(training)
    prediction = model(batch.points, batch.owner, len(batch))
    losses = model.losses(prediction, batch.boxes)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())
    assert len(model.detect(prediction, KEEP_ALL)) == len(batch)


def test_an_empty_sample_between_others_changes_nothing_for_them():
    model = detector().eval()
    points, sample = scene()
    apart = model(points, sample * 2, 3).maps
    together = model(points, sample, 2).maps
    assert torch.allclose(apart.heatmap_BKYX[[0, 2]], together.heatmap_BKYX, atol=1e-5)
    assert torch.allclose(apart.codes_B8YX[[0, 2]], together.codes_B8YX, atol=1e-4)


def test_the_order_of_points_does_not_matter_beyond_rounding():
    model = detector().eval()
    points, sample = scene()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(5))
    shuffled, plain = model(points[order], sample[order], 2), model(points, sample, 2)
    assert torch.allclose(shuffled.maps.codes_B8YX, plain.maps.codes_B8YX, atol=1e-4)


def test_it_runs_under_bfloat16_autocast_with_losses_in_float32():
    model = detector()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model(*scene(), 2)
        losses = model.losses(prediction, LABELLED)
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert torch.isfinite(losses.total)


def test_detections_are_boxes_with_scores_and_labels():
    settings = replace(NANO, decode=replace(NANO.decode, score_threshold=0.0))
    model = detector(settings).eval()
    found = model.detect(model(*scene(), 2), KEEP_ALL)
    for detections in found:
        assert detections.boxes_N7.shape == (len(detections.scores_N), 7)
        assert not detections.boxes_N7.requires_grad
        assert set(detections.labels_N.tolist()) <= {1, 2}


def test_points_of_another_width_are_refused():
    with pytest.raises(ConfigError, match="another width"):
        detector()(torch.zeros(3, 5), torch.zeros(3, dtype=torch.long), 1)
