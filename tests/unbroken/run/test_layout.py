from __future__ import annotations

from pathlib import Path

import pytest

from unbroken.run import EPOCHS, ITERATIONS, Layout


@pytest.mark.parametrize(
    ("layout", "name", "written"),
    [
        (ITERATIONS, "iter_8000.pth", True),
        (ITERATIONS, "iter_800.pth", False),
        (ITERATIONS, "best_mIoU_iter_880.pth", True),
        (ITERATIONS, "latest.pth", False),
        (ITERATIONS, "iter_8000.pth.partial", False),
        (ITERATIONS, "iter_x.pth", False),
        (ITERATIONS, "my_iter_8000.pth", False),
        (ITERATIONS, "mit_b2.pth", False),
        (EPOCHS, "checkpoint_epoch_9.pth", True),
        (EPOCHS, "checkpoint_epoch_8.pth", False),
        (EPOCHS, "best_mAP_epoch_10.pth", True),
        (EPOCHS, "latest_model.pth", True),
        (EPOCHS, "best_model_backup.pth", False),
    ],
)
def test_a_layout_knows_which_names_a_session_may_still_write(layout: Layout, name: str, written: bool) -> None:
    assert layout.writes_after(name, step=800, epoch=8) is written


def test_a_metric_of_any_name_makes_a_file_name() -> None:
    assert ITERATIONS.weights("val/mIoU @0.5", step=7, epoch=0) == "best_val_mIoU__0.5_iter_7.pth"
    assert ITERATIONS.log(Path("run"), "s") == Path("run/s/s.log")


def test_the_end_of_an_epoch_has_a_name_of_its_own_and_what_is_between_shares_one() -> None:
    assert EPOCHS.checkpoint(step=400, epoch=4, milestone=True) == "checkpoint_epoch_4.pth"
    assert EPOCHS.checkpoint(step=430, epoch=4, milestone=False) == "latest_model.pth"
    assert ITERATIONS.checkpoint(step=430, epoch=4, milestone=False) == "iter_430.pth"


def test_a_log_is_named_as_its_guide_names_it() -> None:
    assert EPOCHS.log(Path("run"), "20260205_101112") == Path("run/log_train_20260205-101112.txt")


@pytest.mark.parametrize("layout", [ITERATIONS, EPOCHS])
def test_a_layout_survives_its_record(layout: Layout) -> None:
    assert Layout.from_plain(layout.as_plain()) == layout


def test_the_run_of_a_checkpoint_is_found_from_its_path(tmp_path: Path) -> None:
    assert EPOCHS.run_of(tmp_path / "run/ckpt/checkpoint_epoch_1.pth") == (tmp_path / "run").resolve()
    assert ITERATIONS.run_of(tmp_path / "run/iter_5.pth") == (tmp_path / "run").resolve()
