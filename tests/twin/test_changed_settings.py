"""A sonar training stopped in the middle of an epoch goes on with another setting, and does what the plan said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.twin.changed_settings import (
    AUGMENTED,
    BATCH,
    DATA,
    EPOCHS,
    FRAMES,
    SCHEDULE,
    STOP,
    Case,
    in_order,
    resumed,
    sonar_arguments,
    sonar_job,
    trained,
    used_samples,
    write_sonar,
)
from tests.twin.killing import kill_after_steps, python, step_records
from unbroken import Job
from unbroken.launch import Finished, Resume, decide, gather
from unbroken.train import differences, read_checkpoint

PER, GROUPED = "OPTIMIZATION.BATCH_SIZE_PER_GPU", "OPTIMIZATION.GRAD_ACCUMULATION_STEPS"
ENTRIES = "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST"

SONAR_CASES = [
    Case(name="nothing"),
    Case(name="smaller batches", options=("--batch_size", "1"), changed={PER: SCHEDULE}),
    Case(name="batches that do not divide", options=("--batch_size", "5"), changed={PER: SCHEDULE}),
    Case(name="batches larger than what is left", options=("--batch_size", "9"), changed={PER: SCHEDULE}),
    Case(name="accumulation", options=("--set", GROUPED, "3"), changed={GROUPED: SCHEDULE}),
    Case(
        name="batches and accumulation",
        options=("--batch_size", "1", "--set", GROUPED, "4"),
        changed={PER: SCHEDULE, GROUPED: SCHEDULE},
    ),
    Case(name="rate", options=("--set", "OPTIMIZATION.LR", "0.001"), changed={"OPTIMIZATION.LR": SCHEDULE}),
    Case(name="workers", options=("--workers", "2")),
    Case(name="augmentation", replaced=(("-0.3927, 0.3927", "-0.1, 0.2"),),
         changed={f"{ENTRIES}.1.WORLD_ROT_ANGLE": DATA}),
    Case(name="no augmentation", replaced=((AUGMENTED, " []\n"),), changed={ENTRIES: DATA}),
    Case(name="longer", options=("--epochs", "5"), changed={"OPTIMIZATION.NUM_EPOCHS": SCHEDULE}),
    Case(name="shorter", options=("--epochs", "2"), changed={"OPTIMIZATION.NUM_EPOCHS": SCHEDULE}),
    Case(
        name="longer, larger and augmented otherwise",
        options=("--epochs", "4", "--batch_size", "4"),
        replaced=(("-0.3927, 0.3927", "-0.1, 0.2"),),
        changed={f"{ENTRIES}.1.WORLD_ROT_ANGLE": DATA, PER: SCHEDULE, "OPTIMIZATION.NUM_EPOCHS": SCHEDULE},
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def sonar_stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sonar training that was stopped in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("sonar") / "app"
    folder.mkdir()
    write_sonar(folder)
    trained(sonar_job(folder), stop_after=STOP)
    return folder


def steps_for(samples: int, per_step: int) -> int:
    return -(-samples // per_step)


def assert_sonar_as_planned(job: Job, plan: Resume, rates: list[float], *, frames: int = FRAMES) -> None:
    """Rates, samples and numbers of steps of a training that has ended, by the plan that it went on with."""
    place, epochs = plan.position, job.epochs
    assert place is not None and job.lr_at is not None and epochs is not None
    per_step, per_epoch = place.now.samples_per_step, place.now.steps_per_epoch
    assert per_step and per_epoch
    records = step_records(job.directory)
    new = {step: record for step, record in records.items() if step > plan.source.step}

    # every sample once in every epoch, in the order of the run
    used = used_samples(job.directory)
    assert used == in_order(frames, job.seed, "epoch", epochs * frames)
    for epoch in range(epochs):
        assert sorted(used[epoch * frames : (epoch + 1) * frames]) == list(range(frames))

    # the numbers of steps: of the rest of this epoch, of the others, in all
    by_epoch = [sum(record["epoch"] == epoch for record in new.values()) for epoch in range(epochs)]
    rest = steps_for(place.left, per_step) if place.used else 0
    begun = place.epochs + bool(place.used)
    assert by_epoch[:begun] == [0] * place.epochs + [rest] * bool(place.used)
    assert by_epoch[begun:] == [per_epoch] * (epochs - begun)
    assert len(records) == plan.source.step + len(rates) == max(records)
    assert next(len(record["samples"]) for record in new.values()) == min(per_step, place.left)
    inside = read_checkpoint(job.directory / f"ckpt/checkpoint_epoch_{epochs}.pth")
    assert inside["it"] == inside["unbroken"]["total"] == len(records)

    # the rates: of every step, by the number that this place in the data has under this config
    first = (job.total_steps or 0) - len(rates)
    assert first == place.schedule_step
    assert rates == [job.lr_at(first + number) for number in range(len(rates))]
    assert plan.lr_next == rates[0]
    assert [record["lr"] for record in new.values()] == rates
    assert plan.source.step + len(rates) == place.now.total_steps


@pytest.mark.parametrize("case", SONAR_CASES, ids=lambda case: case.name)
def test_the_sonar_training_goes_on_as_the_plan_says(sonar_stopped: Path, tmp_path: Path, case: Case) -> None:
    folder = Path(shutil.copytree(sonar_stopped, tmp_path / "app"))
    config = folder / "cfgs/sonar_models/tiny.yaml"
    for old, new in case.replaced:
        assert old in config.read_text("utf-8")
        config.write_text(config.read_text("utf-8").replace(old, new), "utf-8")
    job = sonar_job(folder, *case.options)
    plan = resumed(job, case)
    assert plan.source.step == STOP and plan.position is not None
    place = plan.position
    assert (place.epochs, place.used, place.left, place.size) == (1, 6, 7, FRAMES)
    assert (place.before.samples_per_step, place.before.steps_per_epoch, place.before.total_steps) == (2, 7, 21)
    assert place.now.steps_per_epoch == steps_for(FRAMES, place.now.samples_per_step or 1)

    rates = trained(job)

    assert_sonar_as_planned(job, plan, rates)


def test_the_sonar_training_goes_on_from_accumulated_steps(tmp_path: Path) -> None:
    """Three batches of two to a step before, single ones of three afterwards."""
    write_sonar(tmp_path, accumulate=3)
    trained(sonar_job(tmp_path), stop_after=4)  # an epoch: 6 + 6 + 1
    case = Case(
        name="no accumulation",
        options=("--batch_size", "3", "--set", GROUPED, "1"),
        changed={PER: SCHEDULE, GROUPED: SCHEDULE},
    )
    job = sonar_job(tmp_path, *case.options)
    plan = resumed(job, case)
    assert plan.position is not None and (plan.position.epochs, plan.position.used) == (1, 6)
    assert_sonar_as_planned(job, plan, trained(job))


def test_a_sonar_training_made_shorter_than_it_is_has_nothing_left_to_do(sonar_stopped: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sonar_stopped, tmp_path / "app"))
    job = sonar_job(folder, "--epochs", "1")
    plan = decide(job, gather(job))
    assert isinstance(plan, Finished)
    assert trained(job) == []
    assert len(step_records(job.directory)) == STOP


def test_a_finished_sonar_training_goes_on_longer_and_with_other_batches_as_planned(tmp_path: Path) -> None:
    write_sonar(tmp_path)
    trained(sonar_job(tmp_path))
    options = ("--epochs", "6", "--batch_size", "5")
    case = Case(name="both", options=options, changed={PER: SCHEDULE, "OPTIMIZATION.NUM_EPOCHS": SCHEDULE})
    job = sonar_job(tmp_path, *options)
    plan = resumed(job, case)
    extension, scheduled = plan.extension, job.lr_at
    assert extension is not None and scheduled is not None
    assert (extension.seam, extension.total) == (9, 18)
    rates = trained(job, stop_after=21 + 4)
    then = decide(job, gather(job))
    assert isinstance(then, Resume) and then.extension == extension
    rest = trained(job)
    expected = [extension.value_at(step, start=extension.lr, scheduled=scheduled) for step in range(9, 18)]
    assert rates + rest == pytest.approx(expected, rel=1e-12)
    assert (plan.lr_next, then.lr_next) == (rates[0], rest[0])
    assert used_samples(job.directory) == in_order(FRAMES, job.seed, "epoch", 6 * FRAMES)


@pytest.mark.parametrize("batch", ["3", "5"])
def test_a_sonar_training_changed_and_stopped_again_goes_on_as_its_next_plan_says(
    sonar_stopped: Path, tmp_path: Path, batch: str
) -> None:
    """The seam left a step that was not whole; the next plan, with nothing changed, is as true as the first."""
    folder, whole = (Path(shutil.copytree(sonar_stopped, tmp_path / name)) for name in ("app", "whole"))
    options = ("--batch_size", batch, "--epochs", "4")
    through = trained(sonar_job(whole, *options))
    done = trained(sonar_job(folder, *options), stop_after=STOP + 6)
    job = sonar_job(folder, *options)
    plan = decide(job, gather(job))
    assert isinstance(plan, Resume) and plan.changes == ()
    rates = trained(job)
    assert done + rates == through
    assert plan.lr_next == rates[0]
    name = "ckpt/checkpoint_epoch_4.pth"
    one, other = (read_checkpoint(sonar_job(where).directory / name) for where in (folder, whole))
    assert differences(one, other) == []


def test_a_killed_sonar_training_with_other_batches_uses_each_frame_once(tmp_path: Path) -> None:
    write_sonar(tmp_path)
    run = sonar_job(tmp_path).directory
    command = python("-m", "unbroken", "train", "focalsst", *sonar_arguments(tmp_path))
    kill_after_steps(run, command, steps=STOP)
    case = Case(name="killed", options=("--batch_size", "4"), changed={PER: SCHEDULE})
    job = sonar_job(tmp_path, *case.options)
    plan = resumed(job, case)
    assert plan.source.step < len(step_records(run)) <= EPOCHS * 7, "steps beyond the last save are lost with the kill"
    assert_sonar_as_planned(job, plan, trained(job))


def test_a_sonar_training_with_fewer_frames_begins_the_next_epoch_as_planned(
    sonar_stopped: Path, tmp_path: Path
) -> None:
    """Another length of the epoch: what is left of this one cannot be told apart any more."""
    folder = Path(shutil.copytree(sonar_stopped, tmp_path / "app"))
    listed = folder / "data/sonar/ImageSets/train.txt"
    listed.write_text("\n".join(listed.read_text("utf-8").split()[:-4]) + "\n", "utf-8")
    infos_of_fewer(folder / "data/sonar", FRAMES - 4)
    job = sonar_job(folder)
    plan = decide(job, gather(job))
    assert isinstance(plan, Resume) and plan.position is not None and job.lr_at is not None
    rates = trained(job)
    new = [record for step, record in sorted(step_records(job.directory).items()) if step > STOP]
    assert {record["epoch"] for record in new} == {2}
    assert sorted(sample for record in new for sample in record["samples"]) == list(range(FRAMES - 4))
    per_epoch = steps_for(FRAMES - 4, BATCH)
    assert len(rates) == per_epoch
    assert rates == [job.lr_at(2 * per_epoch + number) for number in range(per_epoch)]
    assert plan.lr_next == rates[0], "the plan says another rate than is used"
    assert plan.position.size == FRAMES - 4 or plan.position.left == 0, "the plan says that the others follow"


def infos_of_fewer(data: Path, number: int) -> None:
    """The infos of the first frames: they have to be those of the list."""
    path = data / "sonar_infos_train.npz"
    with np.load(path) as found:
        kept = {name: found[name] for name in found.files}
    kept["frame_id"] = kept["frame_id"][:number]
    its = kept["box_frame"] < number
    np.savez(path, **{name: value[its] if name.startswith("box") else value for name, value in kept.items()})
