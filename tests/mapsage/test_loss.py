"""Losses against hand formulas and a pixel-by-pixel reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mapsage.loss import (
    LossTerm,
    cross_entropy,
    decode_losses,
    dice,
    lovasz,
    pixel_accuracy,
    total_loss,
)
from unbroken.errors import ConfigError

K = 4


def batch(*, ignored: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    logits, label = torch.randn(2, K, 6, 5), torch.randint(0, K, (2, 6, 5))
    return logits, torch.where(torch.rand(2, 6, 5) < ignored, 255, label)


def pixels(logits: torch.Tensor, label: torch.Tensor) -> list[tuple[np.ndarray, int]]:
    rows = logits.double().permute(0, 2, 3, 1).reshape(-1, K).numpy()
    return list(zip(rows, label.flatten().tolist()))


def surprise(row: np.ndarray, label: int) -> float:
    return float(np.log(np.exp(row).sum()) - row[label])


def test_the_default_mean_counts_ignored_pixels():
    logits, label = batch()
    expected = sum(surprise(row, c) for row, c in pixels(logits, label) if c != 255) / label.numel()
    assert cross_entropy(logits, label).item() == pytest.approx(expected, rel=1e-5)


def test_the_other_mean_leaves_them_out():
    logits, label = batch()
    known = [surprise(row, c) for row, c in pixels(logits, label) if c != 255]
    ours = cross_entropy(logits, label, avg_non_ignore=True).item()
    assert ours == pytest.approx(sum(known) / len(known), rel=1e-5)
    assert ours == pytest.approx(F.cross_entropy(logits, label, ignore_index=255).item(), rel=1e-5)


@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_class_weights_weigh_in_sum_and_divisor(avg_non_ignore):
    logits, label = batch()
    weight = [0.5, 1.0, 2.0, 4.0]
    above = sum(weight[c] * surprise(row, c) for row, c in pixels(logits, label) if c != 255)
    below = sum(weight[c] for _, c in pixels(logits, label) if c != 255)
    below += 0 if avg_non_ignore else (label == 255).sum().item()
    ours = cross_entropy(logits, label, avg_non_ignore=avg_non_ignore, class_weight=weight)
    assert ours.item() == pytest.approx(above / below, rel=1e-5)


@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_equal_class_weights_change_nothing(avg_non_ignore):
    logits, label = batch()
    plain = cross_entropy(logits, label, avg_non_ignore=avg_non_ignore)
    weighted = cross_entropy(logits, label, avg_non_ignore=avg_non_ignore, class_weight=[1.0] * K)
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-6)


def test_half_the_labels_ignored_halve_the_gradient_of_the_default_mean():
    logits = torch.zeros(1, K, 2, 2, requires_grad=True)
    full = torch.zeros(1, 2, 2, dtype=torch.long)
    half = torch.tensor([[[0, 255], [0, 255]]])
    (gradient,) = torch.autograd.grad(cross_entropy(logits, full), logits)
    (halved,) = torch.autograd.grad(cross_entropy(logits, half), logits)
    assert torch.equal(halved[..., 0], gradient[..., 0])
    assert (halved[..., 1] == 0).all()


@pytest.mark.parametrize("loss", [cross_entropy, lovasz, lambda a, b: cross_entropy(a, b, avg_non_ignore=True)])
def test_nothing_labelled_means_zero_loss_and_zero_gradient(loss):
    logits = torch.randn(1, K, 3, 3, requires_grad=True)
    value = loss(logits, torch.full((1, 3, 3), 255))
    value.backward()
    assert value.item() == 0.0
    assert (logits.grad == 0).all()


# -- Dice


def dice_by_hand(logits: torch.Tensor, label: torch.Tensor, *, naive: bool, use_sigmoid: bool) -> float:
    per_sample = []
    for rows, truth in zip(logits.double().numpy(), label.numpy()):
        odds = np.exp(rows)
        probability = odds / (1 + odds) if use_sigmoid else odds / odds.sum(0)
        target = np.stack([truth == c for c in range(K)]).astype(float)
        both = (probability * target).sum()
        if naive:
            per_sample.append(1 - (2 * both + 1e-3) / (probability.sum() + target.sum() + 1e-3))
        else:
            below = (probability**2).sum() + (target**2).sum() + 2e-3
            per_sample.append(1 - 2 * both / below)
    return float(np.mean(per_sample))


@pytest.mark.parametrize("naive", [False, True])
@pytest.mark.parametrize("use_sigmoid", [False, True])
def test_dice_is_the_hand_formula_with_ignored_pixels_as_empty_targets(naive, use_sigmoid):
    logits, label = batch()
    expected = dice_by_hand(logits, label, naive=naive, use_sigmoid=use_sigmoid)
    assert dice(logits, label, naive=naive, use_sigmoid=use_sigmoid).item() == pytest.approx(expected, rel=1e-5)


# -- Lovasz


def jaccard_loss(truth: np.ndarray, wrong: np.ndarray) -> float:
    """1 - IoU of a class whose prediction errs exactly on the pixels `wrong`."""
    predicted = truth ^ wrong
    return 1 - (truth & predicted).sum() / (truth | predicted).sum()


def lovasz_by_hand(logits: torch.Tensor, label: torch.Tensor) -> float:
    """The Lovasz extension by its definition: pixels in falling order of error, weighed by gain in loss."""
    known = [(np.exp(row) / np.exp(row).sum(), c) for row, c in pixels(logits, label) if c != 255]
    per_class = []
    for c in sorted({c for _, c in known}):
        truth = np.array([label == c for _, label in known])
        errors = np.abs(truth - np.array([probability[c] for probability, _ in known]))
        wrong, loss, before = np.zeros(len(known), dtype=bool), 0.0, 0.0
        for at in np.argsort(-errors):
            wrong[at] = True
            now = jaccard_loss(truth, wrong)
            loss, before = loss + errors[at] * (now - before), now
        per_class.append(loss)
    return float(np.mean(per_class))


def test_lovasz_is_the_extension_of_the_jaccard_loss_by_its_definition():
    logits, label = batch()
    assert lovasz(logits, label).item() == pytest.approx(lovasz_by_hand(logits, label), rel=1e-4)


def test_lovasz_of_classes_that_do_not_occur_is_left_out():
    logits, label = batch()
    two = torch.where(label == 255, 255, label.clamp(max=1))
    assert lovasz(logits, two).item() == pytest.approx(lovasz_by_hand(logits, two), rel=1e-4)


# -- the whole


def test_terms_are_weighted_named_and_summed():
    logits, label = batch()
    terms = (
        LossTerm(kind="ce", weight=0.6),
        LossTerm(kind="dice", weight=0.3),
        LossTerm(kind="lovasz", weight=0.1),
    )
    losses = decode_losses(logits, label, terms)
    assert list(losses) == ["decode.loss_ce", "decode.loss_dice", "decode.loss_lovasz", "decode.acc_seg"]
    expected = 0.6 * cross_entropy(logits, label) + 0.3 * dice(logits, label) + 0.1 * lovasz(logits, label)
    assert total_loss(losses).item() == pytest.approx(expected.item(), rel=1e-6)


def test_two_terms_of_one_kind_are_added_under_one_name():
    logits, label = batch()
    twice = decode_losses(logits, label, (LossTerm(kind="ce"), LossTerm(kind="ce", weight=0.5)))
    assert twice["decode.loss_ce"].item() == pytest.approx(1.5 * cross_entropy(logits, label).item())


def test_logits_are_resized_to_the_label_first():
    logits, label = torch.randn(2, K, 4, 3), torch.randint(0, K, (2, 16, 11))
    large = F.interpolate(logits, size=(16, 11), mode="bilinear", align_corners=False)
    found = decode_losses(logits, label, (LossTerm(kind="ce"),))
    assert torch.equal(found["decode.loss_ce"], cross_entropy(large, label))
    assert torch.equal(found["decode.acc_seg"], pixel_accuracy(large, label))


def test_accuracy_is_the_percentage_of_labelled_pixels():
    label = torch.tensor([[[0, 1], [2, 255]]])
    logits = F.one_hot(torch.tensor([[[0, 1], [1, 1]]]), K).permute(0, 3, 1, 2).float()
    assert pixel_accuracy(logits, label).item() == pytest.approx(200 / 3)
    assert pixel_accuracy(logits, torch.full_like(label, 255)).item() == 0.0


def test_unknown_options_are_refused():
    with pytest.raises(ConfigError, match="no such option"):
        LossTerm(kind="dice", options={"avg_non_ignore": True})


def test_a_loss_of_no_terms_is_refused():
    with pytest.raises(ConfigError, match="no loss"):
        total_loss({"decode.acc_seg": torch.zeros(())})
