"""Batches: normalised, padded, and nothing that a checkpoint would have to carry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mapsage.dataset.pipeline import Sample
from mapsage.dataset.preprocess import Preprocessor, collate
from unbroken.errors import ConfigError

MEAN, STD = (73.5, 80.0, 74.6), (41.5, 35.7, 33.8)


def a_sample(height=4, width=6, *, labelled=True, name="tile", seed=0):
    rng = np.random.default_rng(seed)
    label = torch.from_numpy(rng.integers(0, 8, (height, width))) if labelled else None
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return Sample(image=image, label=label, name=name, ori_shape=(height, width))


def a_preprocessor(size=(8, 8)):
    return Preprocessor(size=size, mean=MEAN, std=STD)


def test_pixels_become_rgb_and_are_normalised_channel_by_channel():
    sample = a_sample()
    images, _ = a_preprocessor()([sample], training=False)
    assert images.dtype == torch.float32
    for channel in range(3):
        for y in range(4):
            for x in range(6):
                blue_green_red = np.float32(sample.image[2 - channel, y, x])
                expected = (blue_green_red - np.float32(MEAN[channel])) / np.float32(STD[channel])
                assert images[0, channel, y, x] == expected


def test_training_pads_right_and_below_with_the_mean_colour_and_ignored_labels():
    small, full = a_sample(4, 6), a_sample(8, 8, seed=1)
    images, labels = a_preprocessor()([small, full], training=True)
    assert images.shape == (2, 3, 8, 8)
    assert labels.shape == (2, 8, 8)
    assert labels.dtype == torch.int64
    assert (images[0, :, 4:] == 0).all()
    assert (images[0, :, :, 6:] == 0).all()
    assert (labels[0, 4:] == 255).all()
    assert (labels[0, :, 6:] == 255).all()
    assert torch.equal(labels[0, :4, :6], small.label)
    assert torch.equal(labels[1], full.label)


def test_evaluation_pads_nothing_and_keeps_labels_of_the_size_of_the_file():
    sample = Sample(image=a_sample(4, 6).image, label=a_sample(12, 18).label, name="tile", ori_shape=(12, 18))
    images, labels = a_preprocessor()([sample], training=False)
    assert images.shape == (1, 3, 4, 6)
    assert labels.shape == (1, 12, 18)


def test_prediction_needs_no_labels():
    images, labels = a_preprocessor()([a_sample(labelled=False)], training=False)
    assert images.shape == (1, 3, 4, 6)
    assert labels is None


def test_mean_and_std_are_not_part_of_the_state():
    preprocessor = a_preprocessor()
    assert preprocessor.state_dict() == {}
    assert {name for name, _ in preprocessor.named_buffers()} == {"mean", "std"}


def test_collating_keeps_a_list():
    samples = [a_sample(), a_sample(8, 8)]
    assert collate(samples) is samples


@pytest.mark.parametrize(
    ("samples", "training", "words"),
    [
        ([a_sample(9, 4, name="big")], True, ["big", "larger", "at most 8x8", "found 9x4", "Crop or resize"]),
        ([a_sample(labelled=False)], True, ["no label", "LoadAnnotations"]),
        ([a_sample(4, 6), a_sample(4, 7)], False, ["images", "(4, 6), (4, 7)", "batch size of 1"]),
    ],
)
def test_a_batch_that_cannot_be_made_says_why(samples, training, words):
    with pytest.raises(ConfigError) as raised:
        a_preprocessor()(samples, training=training)
    for word in words:
        assert word in str(raised.value)


def test_a_label_of_another_size_cannot_be_trained_on():
    sample = Sample(image=a_sample(4, 6).image, label=a_sample(8, 8).label, name="t", ori_shape=(8, 8))
    with pytest.raises(ConfigError, match=r"image and label differ in size\. Expected 4x6 px .* found 8x8"):
        a_preprocessor()([sample], training=True)
