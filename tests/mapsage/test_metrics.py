"""Scores from exact counts, against a naive count, and the table of the real log."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from mmengine_files import log_text, needs_files

from mapsage.metrics import PixelCounts, Scores, count_pixels, scores, table

NAMES = ("background", "building", "road", "water", "barren", "forest", "agriculture", "playground")


def naive(prediction: np.ndarray, label: np.ndarray, classes: int) -> tuple[list[float], list[float]]:
    known = label != 255
    iou, acc = [], []
    for c in range(classes):
        predicted, truth = (prediction == c) & known, label == c
        both, either = (predicted & truth).sum(), (predicted | truth).sum()
        iou.append(both / either if either else math.nan)
        acc.append(both / truth.sum() if truth.any() else math.nan)
    return iou, acc


def test_scores_over_several_pictures_are_those_of_all_their_pixels_together():
    random = np.random.default_rng(0)
    predictions, labels = random.integers(0, 6, (5, 30, 20)), random.integers(0, 5, (5, 30, 20))
    labels[random.random(labels.shape) < 0.2] = 255
    counts = PixelCounts.none(8)
    for prediction, label in zip(predictions, labels):
        counts += count_pixels(torch.from_numpy(prediction), torch.from_numpy(label), num_classes=8)
    found = scores(counts, NAMES)
    iou, acc = naive(predictions, labels, 8)
    np.testing.assert_array_equal(found.IoU, np.round(np.array(iou) * 100, 2))
    np.testing.assert_array_equal(found.Acc, np.round(np.array(acc) * 100, 2))
    assert found.mIoU == round(100 * float(np.nanmean(iou)), 2)
    assert found.mAcc == round(100 * float(np.nanmean(acc)), 2)
    right = (predictions == labels) & (labels != 255)
    assert found.aAcc == round(100 * right.sum() / (labels != 255).sum(), 2)


def test_a_class_absent_from_both_leaves_the_mean_and_one_only_predicted_counts_zero():
    prediction, label = torch.tensor([[0, 0, 2, 0]]), torch.tensor([[0, 0, 0, 255]])
    found = scores(count_pixels(prediction, label, num_classes=3), ("a", "b", "c"))
    assert found.IoU[0] == 66.67
    assert math.isnan(found.IoU[1])
    assert found.IoU[2] == 0.0
    assert math.isnan(found.Acc[2])
    assert found.mIoU == 33.33  # of two classes: the mean is taken before anything is rounded
    assert (found.aAcc, found.mAcc) == (66.67, 66.67)


def test_counts_stay_exact_where_single_precision_would_not():
    large = PixelCounts(intersect=(2**24,), predicted=(2**24,), labelled=(2**24,))
    one = PixelCounts(intersect=(1,), predicted=(1,), labelled=(1,))
    assert (large + one).intersect == (2**24 + 1,)


def test_values_outside_the_classes_are_dropped_like_bins_of_a_histogram():
    counts = count_pixels(torch.tensor([[9, 1]]), torch.tensor([[1, 7]]), num_classes=2)
    assert counts == PixelCounts(intersect=(0, 0), predicted=(0, 1), labelled=(0, 1))


def test_the_accuracy_of_all_pixels_is_that_of_the_labelled_ones():
    counts = PixelCounts(intersect=(2, 1), predicted=(3, 5), labelled=(3, 1))  # four were predicted where no class is
    assert scores(counts, ("a", "b")).aAcc == 75.0


def test_counts_of_different_classes_do_not_add():
    with pytest.raises(ValueError, match="argument 2"):
        PixelCounts.none(3) + PixelCounts.none(4)


def test_nothing_counted_has_no_score_and_says_so_in_json():
    found = scores(PixelCounts.none(2), ("a", "b"))
    assert json.loads(json.dumps(found.as_data(), allow_nan=False)) == {
        "aAcc": None,
        "mIoU": None,
        "mAcc": None,
        "classes": {"a": {"IoU": None, "Acc": None}, "b": {"IoU": None, "Acc": None}},
    }
    assert "nan" in table(found)


@needs_files
def test_the_table_is_drawn_as_in_the_real_log():
    found = Scores(
        aAcc=53.62,
        mIoU=6.79,
        mAcc=12.55,
        class_names=NAMES,
        IoU=(53.68, 0.0, 0.63, 0.0, 0.0, 0.0, 0.0, 0.0),
        Acc=(99.79, 0.0, 0.64, 0.0, 0.0, 0.0, 0.0, 0.0),
    )
    title, blank, *drawn = table(found).splitlines()
    assert (title, blank) == ("per class results:", "")
    assert "\n".join(drawn) in log_text()
