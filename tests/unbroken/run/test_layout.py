from __future__ import annotations

from pathlib import Path

import pytest

from unbroken.run import ITERATIONS


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("iter_8000.pth", 8000),
        ("best_mIoU_iter_80.pth", 80),
        ("latest.pth", None),
        ("iter_8000.pth.partial", None),
        ("iter_x.pth", None),
        ("my_iter_5.pth", None),
        ("mit_b2.pth", None),
    ],
)
def test_a_layout_knows_the_names_it_writes(name: str, step: int | None) -> None:
    assert ITERATIONS.step_named(name) == step


def test_a_metric_of_any_name_makes_a_file_name() -> None:
    assert ITERATIONS.weights("val/mIoU @0.5", 7) == "best_val_mIoU__0.5_iter_7.pth"
    assert ITERATIONS.log(Path("run"), "s") == Path("run/s/s.log")
