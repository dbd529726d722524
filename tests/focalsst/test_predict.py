"""From batches to named boxes: modes come back, and suppression is that of the geometry."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from focalsst.dataset.folder import Batch
from focalsst.evaluation import predict, suppress
from focalsst.geometry import nms_bev
from tests.focalsst.detectors import NANO

from .model_inputs import detector, scene


def batch_of(*, samples=2, names=("1000000", "a_1000001")):
    points, owner = scene(samples=samples)
    counts = torch.zeros(samples, dtype=torch.int64)
    return Batch(points=points, owner=owner, boxes=torch.zeros(samples, 0, 8), counts=counts, names=names)


def eager(**changes):
    """A detector that finds many boxes although it has learnt nothing."""
    return detector(replace(NANO, decode=replace(NANO.decode, score_threshold=0.0, max_boxes=200, **changes)))


def test_suppression_is_that_of_the_geometry_whatever_it_considers_by_default():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 30, (1500, 3)), rng.uniform(0.5, 3, (1500, 4))], axis=1).astype(np.float32)
    scores = np.sort(rng.random(1500).astype(np.float32))[::-1].copy()
    kept = suppress(torch.from_numpy(boxes), torch.from_numpy(scores), overlap=0.2)
    wanted = nms_bev(boxes, scores, iou_threshold=0.2, consider=1500, keep=1500)
    assert kept.dtype == torch.int64
    assert kept.tolist() == wanted.tolist()
    assert len(kept) > 83
    assert len(suppress(torch.zeros(0, 7), torch.zeros(0), overlap=0.2)) == 0


def test_detections_are_named_after_the_frames_and_classes_and_come_best_first():
    found = predict(eager(), batch_of(), overlap=0.2)
    assert [of_frame.frame_id for of_frame in found] == ["1000000", "a_1000001"]
    for of_frame in found:
        assert 0 < len(of_frame.names) <= 2 * NANO.decode.nms_post
        assert set(of_frame.names) == {"Box", "Diver"}
        assert of_frame.boxes_N7.dtype == of_frame.scores_N.dtype == np.float32
        assert (np.diff(of_frame.scores_N) <= 0).all()


def test_less_overlap_leaves_fewer_boxes():
    many, few = (predict(eager(peaks_only=False, nms_post=200), batch_of(), overlap=overlap) for overlap in (0.9, 0.01))
    assert sum(len(of_frame.names) for of_frame in few) < sum(len(of_frame.names) for of_frame in many)


def test_a_prediction_is_repeatable_and_the_same_within_autocast():
    model, batch = eager(), batch_of()
    first, again = predict(model, batch, overlap=0.2), predict(model, batch, overlap=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = predict(model, batch, overlap=0.2)
    for other in (again, mixed):
        for a, b in zip(first, other, strict=True):
            assert a.names == b.names
            assert (a.boxes_N7 == b.boxes_N7).all()
            assert (a.scores_N == b.scores_N).all()


def test_a_prediction_changes_nothing_in_the_model_and_draws_nothing():
    model = eager().train()
    model.backbone_2d.eval()  # a frozen part stays one
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    predict(model, batch_of(), overlap=0.2)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_the_modes_come_back_after_an_error():
    model = eager().train()
    with pytest.raises(Exception, match="width"):
        predict(
            model, replace(batch_of(), points=torch.zeros(4, 3), owner=torch.zeros(4, dtype=torch.int64)), overlap=0.2
        )
    assert model.training


def test_a_frame_without_points_has_detections_of_its_own():
    batch = batch_of()
    alone = replace(batch, points=batch.points[batch.owner == 1], owner=batch.owner[batch.owner == 1])
    found = predict(eager(), alone, overlap=0.2)
    assert [of_frame.frame_id for of_frame in found] == ["1000000", "a_1000001"]
    assert found[1].boxes_N7 == pytest.approx(predict(eager(), batch, overlap=0.2)[1].boxes_N7, abs=1e-4)


def test_the_adapter_serves_the_detector_as_it_is():
    model, batch = eager(nms_post=3).eval(), batch_of()
    with torch.no_grad():
        prediction = model(batch.points, batch.owner, len(batch))
        found = model.detect(prediction, partial(suppress, overlap=0.2))
    assert all((of_sample.labels_N == label).sum() <= 3 for of_sample in found for label in (1, 2))
