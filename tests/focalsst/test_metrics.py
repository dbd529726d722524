"""Average precision and recall against a count object by object, at their edges, and as text."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest

from focalsst.geometry import iou_3d, iou_bev
from focalsst.metrics import Detections, Labels, Scores, class_rules, evaluate
from focalsst.results import named, report
from unbroken.errors import ConfigError, UsageError

RULES = class_rules(["Box", "Diver"], {"Box": "Car", "Diver": "Pedestrian"})


def labels(frame_id: str, *objects: tuple) -> Labels:
    boxes = np.array([box for _, box in objects], dtype=np.float32).reshape(-1, 7)
    return Labels(frame_id=frame_id, names=[name for name, _ in objects], boxes_N7=boxes)


def detections(frame_id: str, *found: tuple) -> Detections:
    boxes = np.array([box for _, box, _ in found], dtype=np.float32).reshape(-1, 7)
    scores = np.array([score for _, _, score in found], dtype=np.float32)
    return Detections(frame_id=frame_id, names=[name for name, _, _ in found], boxes_N7=boxes, scores_N=scores)


def random_boxes(random: np.random.Generator, count: int, spread: float = 3.0) -> np.ndarray:
    boxes = np.concatenate([random.normal(0, spread, (count, 3)), random.uniform(1, 3, (count, 4))], axis=1)
    boxes[:, 0] += 10
    boxes[:, 2] *= 0.1
    boxes[:, 6] = random.uniform(-math.pi, math.pi, count)
    return boxes


def random_frames(seed: int, frames: int) -> tuple[list[Labels], list[Detections]]:
    """Up to three objects of a class in a frame, found well, badly, twice or not, among false ones and equal scores."""
    random = np.random.default_rng(seed)
    truth, found = [], []
    for f in range(frames):
        objects, claims = [], []
        for name in ("Box", "Diver", "Fish"):
            boxes = random_boxes(random, random.integers(0, 4))
            objects += [(name, box) for box in boxes]
            for box in boxes[np.repeat(np.arange(len(boxes)), random.integers(0, 3, len(boxes)))]:
                claims.append((name, box + random.normal(0, 0.08, 7), random.integers(2, 20) / 20))
            claims += [(name, b, random.integers(0, 12) / 20) for b in random_boxes(random, random.integers(0, 3))]
        truth.append(labels(f"{f:07d}", *[objects[i] for i in random.permutation(len(objects))]))
        found.append(detections(f"{f:07d}", *[claims[i] for i in random.permutation(len(claims))]))
    return truth, [found[i] for i in random.permutation(frames)]


def one_by_one(truth: list[Labels], found: list[Detections], name: str, measure: str, above: float) -> tuple:
    """R11 and R40, and the same weighted by heading, counted with loops only."""
    by_id = {frame.frame_id: frame for frame in found}
    frames = []
    for frame in truth:
        other = by_id[frame.frame_id]
        a = frame.boxes_N7[[i for i, n in enumerate(frame.names) if n == name]].astype(float)
        own = [i for i, n in enumerate(other.names) if n == name]
        b = other.boxes_N7[own].astype(float)
        overlap = {"image": lambda a, b: np.ones((len(a), len(b))), "bev": iou_bev, "box": iou_3d}[measure](a, b)
        frames.append((a, b, other.scores_N[own].astype(float), overlap))
    objects = sum(len(a) for a, *_ in frames)
    matched = []
    for a, b, scores, overlap in frames:
        taken = set()
        for g in range(len(a)):
            open_ = [d for d in range(len(b)) if d not in taken and overlap[g, d] > above]
            if open_:
                best = max(open_, key=lambda d: (scores[d], -d))
                taken.add(best)
                matched.append(scores[best])
    thresholds, wanted = [], 0.0
    matched.sort(reverse=True)
    for i, score in enumerate(matched):
        left = (i + 1) / objects
        right = (i + 2) / objects if i < len(matched) - 1 else left
        if (right - wanted) < (wanted - left) and i < len(matched) - 1:
            continue
        thresholds.append(score)
        wanted += 1 / 40
    precision, alike = [0.0] * 41, [0.0] * 41
    for i, least in enumerate(thresholds):
        right_ones, wrong, likeness = 0, 0, 0.0
        for a, b, scores, overlap in frames:
            taken = set()
            for g in range(len(a)):
                open_ = [d for d in range(len(b)) if d not in taken and overlap[g, d] > above and scores[d] >= least]
                if open_:
                    best = max(open_, key=lambda d: (overlap[g, d], -d))
                    taken.add(best)
                    right_ones += 1
                    alpha_a, alpha_b = (math.atan2(x[1], x[0]) - x[6] - math.pi / 2 for x in (a[g], b[best]))
                    likeness += (1 + math.cos(alpha_a - alpha_b)) / 2
            wrong += sum(1 for d in range(len(b)) if d not in taken and scores[d] >= least)
        precision[i], alike[i] = right_ones / (right_ones + wrong), likeness / (right_ones + wrong)
    best_after = [[max(curve[i:]) for i in range(41)] for curve in (precision, alike)]
    return tuple(v for c in best_after for v in (sum(c[::4]) / 11 * 100, sum(c[1:]) / 40 * 100))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_precisions_are_those_of_a_count_object_by_object(seed):
    truth, found = random_frames(seed, 40)
    for scores in evaluate(truth, found, RULES).classes:
        for group in (scores.strict, scores.lenient):
            for measure in ("image", "bev", "box"):
                r11, r40, alike11, alike40 = one_by_one(
                    truth, found, scores.rule.name, measure, getattr(group.thresholds, measure)
                )
                assert 0 < r40 < 100
                assert getattr(group.R11, measure) == pytest.approx(r11, abs=1e-10)
                assert getattr(group.R40, measure) == pytest.approx(r40, abs=1e-10)
                if measure == "image":
                    assert (group.R11.aos, group.R40.aos) == pytest.approx((alike11, alike40), abs=1e-10)


def test_recall_asks_for_any_box_and_per_class_for_an_own_one():
    truth, found = random_frames(3, 30)
    by_id = {frame.frame_id: frame for frame in found}
    best, own = [], {"Box": [], "Diver": []}
    for frame in truth:
        other = by_id[frame.frame_id]
        overlap = iou_3d(frame.boxes_N7, other.boxes_N7)
        for g, name in enumerate(frame.names):
            if name in own:
                best.append(overlap[g].max(initial=0))
                own[name].append(max([overlap[g, d] for d, n in enumerate(other.names) if n == name], default=0))
    scores = evaluate(truth, found, RULES)
    assert scores.recall == {t: sum(b > t for b in best) / len(best) for t in (0.3, 0.5, 0.7)}
    for of_class in scores.classes:
        mine = own[of_class.rule.name]
        assert of_class.objects == len(mine)
        assert of_class.recall == {t: sum(b > t for b in mine) / len(mine) for t in (0.3, 0.5, 0.7)}
    assert scores.detections == sum(len(frame.names) for frame in found)


def perfect(frames: int) -> tuple[list[Labels], list[Detections]]:
    random = np.random.default_rng(4)
    truth, found = [], []
    for f in range(frames):
        box, diver = random_boxes(random, 2)
        truth.append(labels(str(f), ("Box", box), ("Diver", diver)))
        found.append(detections(str(f), ("Diver", diver, 0.5 + f / 200), ("Box", box, 0.5 + f / 300)))
    return truth, found


def test_perfect_boxes_have_precision_100_by_every_measure():
    scores = evaluate(*perfect(60), RULES)
    for of_class in scores.classes:
        for group in (of_class.strict, of_class.lenient):
            assert astuple(group.R11) == pytest.approx((100.0,) * 4, abs=1e-12)
            assert astuple(group.R40) == pytest.approx((100.0,) * 4, abs=1e-12)
    assert scores.mAP == scores.mAP_lenient == 100.0
    assert scores.recall == {0.3: 1.0, 0.5: 1.0, 0.7: 1.0}


@pytest.mark.parametrize(("frames", "best"), [(1, 0.0), (2, 2.5), (21, 50.0), (40, 97.5), (41, 100.0)])
def test_few_objects_reach_few_recalls(frames, best):
    assert evaluate(*perfect(frames), RULES).mAP == pytest.approx(best, abs=1e-12)


def test_a_turned_box_costs_heading_and_nothing_else():
    truth, found = perfect(60)
    for frame in found:
        frame.boxes_N7[:, 6] += np.float32(math.pi)
    scores = evaluate(truth, found, RULES)
    assert scores.mAP == 100.0
    assert scores.classes[0].strict.R40.aos == pytest.approx(0.0, abs=1e-9)


def test_a_match_must_overlap_by_more_than_the_threshold():
    (diver,) = random_boxes(np.random.default_rng(5), 1).astype(np.float32)
    diver[2:7] = [0, 2, 2, 2, 0]
    half = diver.copy()
    half[5] = 1  # half the height, within: IoU is exactly one half
    truth = [labels(str(f), ("Diver", diver)) for f in range(50)]
    found = [detections(str(f), ("Diver", half, 0.9)) for f in range(50)]
    diver_scores = evaluate(truth, found, RULES).classes[1]
    assert (diver_scores.strict.R40.box, diver_scores.strict.R40.bev) == (0.0, 100.0)
    assert diver_scores.lenient.R40.box == 100.0
    assert diver_scores.recall == {0.3: 1.0, 0.5: 0.0, 0.7: 0.0}


def without_scores(scores: Scores) -> bool:
    groups = [group for of_class in scores.classes for group in (of_class.strict, of_class.lenient)]
    return all(set(astuple(found)) == {0.0} for group in groups for found in (group.R11, group.R40))


def test_nothing_found_nothing_true_and_nothing_at_all_score_0():
    truth, found = perfect(5)
    no_truth = [labels(frame.frame_id) for frame in truth]
    no_found = [detections(frame.frame_id) for frame in found]
    for left, right in ((truth, no_found), (no_truth, found), (no_truth, no_found), ([], [])):
        scores = evaluate(left, right, RULES)
        assert without_scores(scores)
        assert set(scores.recall.values()) == {0.0}
        assert scores.mAP == 0.0
        assert "nan" not in report(scores)
    assert evaluate(no_truth, found, RULES).detections == 10


def test_a_false_box_in_a_frame_without_objects_costs_precision():
    truth, found = perfect(60)
    truth.append(labels("empty"))
    found.append(detections("empty", ("Box", truth[0].boxes_N7[0], 1.0)))
    box, diver = evaluate(truth, found, RULES).classes
    assert box.strict.R40.box == pytest.approx(100 * 60 / 61, abs=1e-9)
    assert diver.strict.R40.box == 100.0


def test_boxes_that_are_not_finite_are_false_and_no_error():
    truth, found = perfect(60)
    found[0].boxes_N7[:, 3] = np.inf
    found[1].boxes_N7[:, 0] = np.nan
    scores = evaluate(truth, found, RULES)
    assert 0 < scores.mAP < 100
    assert all(math.isfinite(value) for value in named(scores).values())


def test_the_order_of_frames_does_not_count_but_their_ids_do():
    truth, found = random_frames(6, 20)
    assert evaluate(truth, found, RULES) == evaluate(truth, sorted(found, key=lambda frame: frame.frame_id), RULES)
    with pytest.raises(UsageError, match="0000003"):
        evaluate(truth, [frame for frame in found if frame.frame_id != "0000003"], RULES)
    with pytest.raises(UsageError, match="same frames"):
        evaluate(truth, [*found, found[0]], RULES)
    with pytest.raises(UsageError, match="same frames"):
        evaluate([*truth, truth[0]], found, RULES)


def test_the_report_has_the_layout_of_the_public_tools():
    truth, found = perfect(60)
    found[0] = detections("0")
    lines = report(evaluate(truth, found, RULES)).splitlines()
    assert lines[:7] == [
        "recall_roi_0.3: 0.000000",
        "recall_rcnn_0.3: 0.983333",
        "recall_roi_0.5: 0.000000",
        "recall_rcnn_0.5: 0.983333",
        "recall_roi_0.7: 0.000000",
        "recall_rcnn_0.7: 0.983333",
        "Average predicted number of objects(60 samples): 1.967",
    ]
    blocks = [lines[i : i + 5] for i in range(7, len(lines), 5)]
    assert [block[0] for block in blocks] == [
        "Car AP@0.70, 0.70, 0.70:",
        "Car AP_R40@0.70, 0.70, 0.70:",
        "Car AP@0.70, 0.50, 0.50:",
        "Car AP_R40@0.70, 0.50, 0.50:",
        "Pedestrian AP@0.50, 0.50, 0.50:",
        "Pedestrian AP_R40@0.50, 0.50, 0.50:",
        "Pedestrian AP@0.50, 0.25, 0.25:",
        "Pedestrian AP_R40@0.50, 0.25, 0.25:",
    ]
    assert blocks[1][1:] == [
        "bbox AP:97.5000, 97.5000, 97.5000",
        "bev  AP:97.5000, 97.5000, 97.5000",
        "3d   AP:97.5000, 97.5000, 97.5000",
        "aos  AP:97.50, 97.50, 97.50",
    ]


def test_the_named_numbers_are_the_public_ones_and_ours():
    scores = evaluate(*random_frames(7, 30), RULES)
    found = named(scores)
    box, diver = scores.classes
    for difficulty in ("easy", "moderate", "hard"):
        assert found[f"Car_3d/{difficulty}_R40"] == box.strict.R40.box
        assert found[f"Car_image/{difficulty}_R40"] == box.strict.R40.image
        assert found[f"Pedestrian_bev/{difficulty}_R40"] == diver.strict.R40.bev
        assert found[f"Pedestrian_aos/{difficulty}_R40"] == diver.strict.R40.aos
    assert found["mAP"] == (box.strict.R40.box + diver.strict.R40.box) / 2
    assert found["mAP_lenient"] == (box.lenient.R40.box + diver.lenient.R40.box) / 2
    assert found["recall/rcnn_0.5"] == scores.recall[0.5]
    assert (found["recall/roi_0.5"], found["recall/Diver_0.5"]) == (0.0, diver.recall[0.5])
    assert all(type(value) is float for value in found.values())
    assert len(found) == 2 + 6 + 6 + 24


@pytest.mark.parametrize(
    ("names", "mapping"),
    [
        ([], {}),
        (["Box"], {}),
        (["Box"], {"Box": "Lorry"}),
        (["Box", "Diver"], {"Box": "Car", "Diver": "Car"}),
    ],
)
def test_classes_without_thresholds_of_their_own_are_refused(names, mapping):
    with pytest.raises(ConfigError):
        class_rules(names, mapping)


@pytest.mark.parametrize(
    "faulty",
    [
        lambda: Labels(frame_id="1", names=["Box"], boxes_N7=np.zeros((2, 7))),
        lambda: Labels(frame_id="1", names=["Box"], boxes_N7=np.zeros((1, 8))),
        lambda: Detections(frame_id="1", names=["Box"], boxes_N7=np.zeros((1, 7)), scores_N=np.zeros(2)),
        lambda: Detections(frame_id="1", names=["Box"], boxes_N7=np.zeros((1, 7)), scores_N=np.array([np.nan])),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(faulty):
    with pytest.raises(UsageError, match="frame 1"):
        faulty()
