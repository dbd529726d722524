"""Curves of a run over its twin: they are drawn whatever is missing, and show what they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from unbroken.demo import draw_curves

LOOK: dict[str, Any] = {"scores": ("mAP_lenient", "mAP"), "what": "validation AP (%)", "by_epochs": True}


def pixels_of(path, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    with Image.open(path) as picture:
        shown = np.asarray(picture.convert("RGB")).astype(int)
    return int((np.abs(shown - wanted).max(axis=2) < 12).sum())


def records(first, last, session, *, per_epoch=10):
    for step in range(first, last + 1):
        yield {"step": step, "session": session, "epoch": (step - 1) // per_epoch, "loss": 5 / step, "samples": [1]}
        if step % per_epoch == 0:
            yield {"step": step, "session": session, "evaluation": {"mAP": 2.0 * step, "mAP_lenient": 3.0 * step}}


def test_curves_of_sessions_are_drawn_over_the_twin_and_without_one(tmp_path):
    sessions = [list(records(1, 13, "a")), list(records(11, 25, "b")), [], list(records(26, 40, "c"))]
    draw_curves(sessions, [list(records(1, 40, "t"))], tmp_path / "both.png", **LOOK)
    draw_curves(sessions, [], tmp_path / "alone.png", title="Alone", **LOOK)
    for name, colour in (("both", "#1f77b4"), ("both", "#ff7f0e"), ("both", "#2ca02c"), ("alone", "#2ca02c")):
        assert pixels_of(tmp_path / f"{name}.png", colour) > 100


def test_a_loss_that_was_not_finite_leaves_a_gap(tmp_path):
    broken = [{"step": 1, "epoch": 0, "loss": "nan"}, {"step": 2, "epoch": 0, "loss": 1.0}]
    draw_curves([broken, [{"step": 3, "session": "b"}]], [], tmp_path / "a.png", **LOOK)
    assert (tmp_path / "a.png").stat().st_size > 10_000
