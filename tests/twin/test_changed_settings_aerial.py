"""An aerial training stopped in the middle of a pass goes on with another setting, and does what the plan said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.twin import aerial
from tests.twin.changed_settings import (
    AT,
    DATA,
    FREE,
    SCHEDULE,
    STEPS,
    TILES,
    Case,
    aerial_arguments,
    aerial_job,
    in_order,
    resumed,
    trained,
    used_samples,
    with_options,
)
from tests.twin.killing import kill_after_steps, python, step_records
from unbroken import Job
from unbroken.launch import Resume
from unbroken.train import read_checkpoint

LOADER, WRAPPER = "train_dataloader.batch_size", "optim_wrapper.accumulative_counts"
PIPELINE = "train_dataloader.dataset.pipeline"


AERIAL_CASES = [
    Case(name="nothing"),
    Case(name="smaller batches", options=with_options(f"{LOADER}=1"), changed={LOADER: DATA}),
    Case(name="batches that do not divide", options=with_options(f"{LOADER}=3"), changed={LOADER: DATA}),
    Case(name="no accumulation", options=with_options(f"{WRAPPER}=1"), changed={WRAPPER: SCHEDULE}),
    Case(name="more accumulation", options=with_options(f"{WRAPPER}=3"), changed={WRAPPER: SCHEDULE}),
    Case(
        name="batches and accumulation",
        options=with_options(f"{LOADER}=3", f"{WRAPPER}=3"),
        changed={LOADER: DATA, WRAPPER: SCHEDULE},
    ),
    Case(
        name="rate",
        options=with_options("optim_wrapper.optimizer.lr=0.0005"),
        changed={"optim_wrapper.optimizer.lr": SCHEDULE},
    ),
    Case(name="workers", options=("--workers", "2")),
    Case(
        name="workers of the config",
        options=with_options("train_dataloader.num_workers=1"),
        changed={"train_dataloader.num_workers": FREE},
    ),
    Case(
        name="crop",
        replaced=(('type="RandomCrop", crop_size=_crop, cat_max_ratio=0.75', 'type="RandomCrop", crop_size=(32, 40)'),),
        changed={f"{PIPELINE}.3.cat_max_ratio": DATA, f"{PIPELINE}.3.crop_size": DATA},
    ),
    Case(name="flip", replaced=(("prob=0.5", "prob=0.9"),), changed={f"{PIPELINE}.4.prob": DATA}),
    Case(name="no flip", replaced=(('dict(type="RandomFlip", prob=0.5), ', ""),), changed={PIPELINE: DATA}),
    Case(name="longer", options=with_options("train_cfg.max_iters=25"), changed={"train_cfg.max_iters": SCHEDULE}),
    Case(name="shorter", options=with_options("train_cfg.max_iters=15"), changed={"train_cfg.max_iters": SCHEDULE}),
    Case(
        name="a longer phase",
        replaced=(('dict(type="PolyLR", begin=8, end=18 + 4', 'dict(type="PolyLR", begin=8, end=40'),),
        changed={"param_scheduler.1.end": SCHEDULE},
    ),
    Case(
        name="a phase that ends before the training",
        replaced=(('dict(type="PolyLR", begin=8, end=18 + 4', 'dict(type="PolyLR", begin=8, eta_min=1e-5, end=16'),),
        changed={"param_scheduler.1.end": SCHEDULE, "param_scheduler.1.eta_min": SCHEDULE},
    ),
    Case(
        name="a warm-up in which it stands",
        replaced=(("begin=0, end=8", "begin=0, end=12"), ("begin=8", "begin=12")),
        changed={"param_scheduler.0.end": SCHEDULE, "param_scheduler.1.begin": SCHEDULE},
    ),
    Case(
        name="one phase",
        replaced=(('dict(type="LinearLR", start_factor=1e-3, begin=0, end=8, by_epoch=False),\n', "\n"),),
        changed={"param_scheduler": SCHEDULE},
    ),
    Case(name="validation", options=with_options("train_cfg.val_interval=5"), changed={"train_cfg.val_interval": FREE}),
]  # fmt: skip


@pytest.fixture(scope="module")
def aerial_stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aerial training that was stopped in the middle of its third pass over the tiles."""
    folder = tmp_path_factory.mktemp("aerial") / "app"
    folder.mkdir()
    aerial.write_job(folder, steps=STEPS)
    job = aerial_job(folder, *with_options("train_dataloader.num_workers=0"))
    if job.options.workers != 0:
        pytest.fail("workers are to be 0")
    trained(job, stop_after=AT)
    return folder


@pytest.mark.parametrize("case", AERIAL_CASES, ids=lambda case: case.name)
def test_the_aerial_training_goes_on_as_the_plan_says(aerial_stopped: Path, tmp_path: Path, case: Case) -> None:
    folder = Path(shutil.copytree(aerial_stopped, tmp_path / "app", symlinks=True))
    config = folder / "small.py"
    for old, new in case.replaced:
        assert old in config.read_text("utf-8"), old
        config.write_text(config.read_text("utf-8").replace(old, new), "utf-8")
    job = aerial_job(folder, *case.options)
    plan = resumed(job, case)
    place = plan.position
    assert plan.source.step == AT and place is not None
    assert (place.epochs, place.used, place.left, place.size) == (2, 12, 2, TILES)
    assert (place.before.samples_per_step, place.before.total_steps) == (4, STEPS)

    rates = trained(job)

    assert_aerial_as_planned(job, plan, rates)


def assert_aerial_as_planned(job: Job, plan: Resume, rates: list[float]) -> None:
    place, total = plan.position, job.total_steps
    assert place is not None and total is not None and job.lr_at is not None
    step, per_step = plan.source.step, place.now.samples_per_step
    assert per_step == job.samples_per_step and place.now.total_steps == total
    records = step_records(job.directory)
    new = [record for number, record in sorted(records.items()) if number > step]
    assert len(rates) == len(new) == total - step
    assert max(records) == total
    assert {len(record["samples"]) for record in new} == {per_step}

    used = used_samples(job.directory)
    assert used == in_order(place.size, job.seed, "stream", len(used))
    assert len(used) == place.epochs * place.size + place.used + (total - step) * (per_step or 0)
    for begin in range(0, len(used) - place.size + 1, place.size):
        assert sorted(used[begin : begin + place.size]) == list(range(place.size))

    assert rates == [job.lr_at(number) for number in range(step, total)]
    assert plan.lr_next == rates[0]
    assert [record["lr"] for record in new] == rates
    assert read_checkpoint(job.directory / f"iter_{total}.pth")["unbroken"]["total"] == total


def test_a_killed_aerial_training_with_other_batches_uses_each_tile_once(tmp_path: Path) -> None:
    aerial.write_job(tmp_path, steps=STEPS)
    command = python("-m", "unbroken", "train", "mapsage", *aerial_arguments(tmp_path))
    kill_after_steps(tmp_path / "run", command, steps=AT)
    case = Case(
        name="killed",
        options=with_options(f"{LOADER}=3", f"{WRAPPER}=3"),
        changed={LOADER: DATA, WRAPPER: SCHEDULE},
    )
    job = aerial_job(tmp_path, *case.options)
    plan = resumed(job, case)
    assert_aerial_as_planned(job, plan, trained(job))
