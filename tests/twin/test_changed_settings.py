"""Trainings stopped in the middle of an epoch and gone on with another setting: they do what the plan said they would.

And with nothing changed but what is declared free, all of it at once: they end bit for bit as one that nobody touched.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from focalsst.config import SonarConfig
from focalsst.recipes import read as read_sonar
from mapsage.config import MapSageConfig
from mapsage.recipes import HOW_TO_START
from mapsage.recipes import read as read_aerial
from tests.config_edits import Edit, as_python, dotted, edited, leaves, others, split, words_of
from tests.twin import aerial, sonar
from tests.twin.killing import events, kill_after_steps, python, run_to_end, step_records
from tests.twin.test_extending import lr, watched
from unbroken import Job
from unbroken.config import ConfigError, Effect, Section, effects, read_config, validate
from unbroken.launch import Environment, Finished, Resume, decide, gather
from unbroken.train import Exit, differences, read_checkpoint, run_job
from unbroken.train.data.order import Order, Permutations

FREE, DATA, SCHEDULE = Effect.FREE, Effect.DATA, Effect.SCHEDULE


class Stopping:
    """A console that sends this process a real SIGTERM after a step, and keeps what is said."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.lines = after, list[str]()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: Any, _line: str) -> None:
        if report.step == self.after:
            signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        pass


def trained(job: Job, *, stop_after: int | None = None) -> list[float]:
    """Train, to the end or until it is stopped; returns the rate that the optimizer used in each step."""
    torch.set_num_threads(1)
    ends: AbstractContextManager[Any] = pytest.raises(Exit) if stop_after else nullcontext()
    with watched(lr) as used, ends:
        run_job(job, Stopping(stop_after))
    assert all(len(set(rates)) == 1 for rates in used)
    return [rates[0] for rates in used]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is changed, as it is typed or as another text in the config, and the keys that the plan has to list."""

    name: str
    options: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    changed: dict[str, Effect] = field(default_factory=dict)


def resumed(job: Job, case: Case) -> Resume:
    """The plan: it goes on, and lists the changed keys once each, with their effect, and no others."""
    plan = decide(job, gather(job))
    assert isinstance(plan, Resume), plan.reasons
    assert [(change.key, change.effect) for change in plan.changes] == list(case.changed.items())
    anew = any("bit-exactness starts anew" in reason for reason in plan.reasons)
    assert anew == (DATA in case.changed.values())
    return plan


def in_order(size: int, seed: int, shuffle: Any, number: int) -> list[int]:
    """The first samples of a training that nobody touched."""
    permutations = Permutations(Order(size=size, seed=seed, shuffle=shuffle))
    return list(islice((sample for epoch in range(10_000) for sample in permutations.of(epoch)), number))


def used_samples(run: Path) -> list[int]:
    """The samples of all steps, of all sessions, as they were used."""
    records = step_records(run)
    assert sorted(records) == list(range(1, len(records) + 1))
    return [sample for _, record in sorted(records.items()) for sample in record["samples"]]


# -- the sonar detector: a training by epochs --------------------------------------------------------------------------

FRAMES, EPOCHS, BATCH, STOP = 13, 3, 2, 10  # an epoch has seven steps, the last one of one frame: it stops in mid-epoch
AUGMENTED = """
            - {NAME: random_world_flip, ALONG_AXIS_LIST: ['x']}
            - {NAME: random_world_rotation, WORLD_ROT_ANGLE: [-0.3927, 0.3927]}
"""
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


def sonar_arguments(folder: Path, *options: str) -> list[str]:
    kept = ["--cfg_file", str(folder / "cfgs/sonar_models/tiny.yaml"), "--output", str(folder / "output")]
    workers = [] if "--workers" in options else ["--workers", "0"]
    quick = ["--eval_interval", "0", "--pictures", "0"]
    return [*kept, "--extra_tag", "run", *quick, "--device", "cpu", *workers, *options]


def sonar_job(folder: Path, *options: str) -> Job:
    return read_sonar(sonar_arguments(folder, *options), Environment())


def write_sonar(folder: Path, *, accumulate: int = 1) -> None:
    config = sonar.write_job(folder, frames=FRAMES, epochs=EPOCHS, accumulate=accumulate, pasting=False)
    config.write_text(config.read_text("utf-8").replace("AUG_CONFIG_LIST: []", f"AUG_CONFIG_LIST:{AUGMENTED}"), "utf-8")


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


# -- the aerial application: a training by iterations ------------------------------------------------------------------

TILES, STEPS, AT = 14, 18, 10  # four tiles to a step: after ten steps twelve of the third pass are used
LOADER, WRAPPER = "train_dataloader.batch_size", "optim_wrapper.accumulative_counts"
PIPELINE = "train_dataloader.dataset.pipeline"


def with_options(*pairs: str) -> tuple[str, ...]:
    return ("--cfg-options", *pairs)


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


def aerial_arguments(folder: Path, *options: str) -> list[str]:
    workers = [] if "--workers" in options else ["--workers", "0"]
    kept = [str(folder / "small.py"), "--work-dir", str(folder / "run"), "--tag", "run", "--device", "cpu"]
    return [*kept, "--pictures", "0", *workers, *options]


def aerial_job(folder: Path, *options: str) -> Job:
    return read_aerial(aerial_arguments(folder, *options), Environment())


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


# -- what is free ------------------------------------------------------------------------------------------------------


def free_edits(
    tree: dict[str, Any], schema: type[Section], by_hand: dict[str, Any], linked: Sequence[Edit] = ()
) -> tuple[list[Edit], set[str]]:
    """Another value for every key that the schema declares free, all of which it accepts together; and the keys that
    can have no other value."""
    config, what = validate(schema, tree).value, effects(schema)
    found, alone = list(linked), set[str]()
    for place, value in leaves({key: part for key, part in tree.items() if key not in HOW_TO_START}):
        key = dotted(place)
        if what.find(key) is not FREE or any(place in edit.places for edit in linked):
            continue
        values = [by_hand[key]] if key in by_hand else others(value, words_of(config, place))
        edits = (Edit(key, ((place, new),)) for new in values)
        chosen = next((edit for edit in edits if accepts(schema, edited(tree, [*found, edit]))), None)
        if chosen is None:
            alone.add(key)
        else:
            found.append(chosen)
    return found, alone


def accepts(schema: type[Section], tree: dict[str, Any]) -> bool:
    try:
        validate(schema, tree)
    except ConfigError:
        return False
    return True


def without_what_follows_from_free_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint but for the config in it, and for what evaluations found, which are judged otherwise now."""
    own = {
        key: value
        for key, value in tree["unbroken"].items()
        if key not in ("config", "best", "metrics", "evaluated_step")
    }
    kept = {key: value for key, value in tree.items() if key not in ("meta", "message_hub")}
    return {**kept, "unbroken": own}


def assert_same_training(run: Path, twin: Path, file: str) -> None:
    one, other = (without_what_follows_from_free_keys(read_checkpoint(folder / file)) for folder in (run, twin))
    assert differences(one, other) == []
    assert step_records(run) == step_records(twin)


def assert_only_free(job: Job, keys: set[str]) -> None:
    plan = decide(job, gather(job))
    assert isinstance(plan, Resume)
    assert {change.effect for change in plan.changes} == {FREE}
    assert {change.key for change in plan.changes} == keys
    assert not any("anew" in reason for reason in plan.reasons)


SONAR_FREE = {
    "DATA_CONFIG.DATA_PATH": "data/elsewhere",
    "DATA_CONFIG.MAP_CLASS_TO_KITTI.Box": "Cyclist",
    "DATA_CONFIG.MAP_CLASS_TO_KITTI.Diver": "Car",
    "OPTIMIZATION.EVAL_INTERVAL": 2,
    "MODEL.DENSE_HEAD.POST_PROCESSING.POST_CENTER_LIMIT_RANGE": [-1.0, -60.0, -30.0, 90.0, 60.0, 30.0],
}
SONAR_OTHERWISE = ["--workers", "2", "--logger_iter_interval", "3", "--ckpt_save_interval", "2", "--save_to_file"]
SONAR_OTHERWISE += ["--ckpt_save_time_interval", "2", "--max_ckpt_save_num", "5", "--on-bad-frame", "skip"]
SONAR_OTHERWISE += ["--num_epochs_to_eval", "1", "--session", "2h", "--reserve", "1m"]


def test_a_killed_sonar_training_with_all_that_is_free_changed_is_its_twin(tmp_path: Path) -> None:
    sonar.write_job(tmp_path, epochs=3, accumulate=2)
    shutil.copytree(tmp_path / "data/sonar", tmp_path / "data/elsewhere")
    config = tmp_path / "cfgs/sonar_models/tiny.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        tree = validate(SonarConfig, read_config(config, environment={})).canonical
    edits, alone = free_edits(tree, SonarConfig, SONAR_FREE)
    print(f"changed: {[repr(edit) for edit in edits]}; without another value: {sorted(alone)}")
    assert alone == set()

    def arguments(place: str, *options: str) -> list[str]:
        kept = ["--cfg_file", str(config), "--output", str(tmp_path / place), "--extra_tag", "run", "--device", "cpu"]
        return [*kept, "--pictures", "0", *(options or ["--workers", "0", "--ckpt_save_time_interval", "1"])]

    def command(place: str, *options: str) -> list[str]:
        return python("-m", "unbroken", "train", "focalsst", *arguments(place, *options))

    run, twin = (read_sonar(arguments(place), Environment()).directory for place in ("cut", "whole"))
    whole = run_to_end(command("whole"))
    assert whole.returncode == 0, whole.output
    kill_after_steps(run, command("cut"), steps=11)  # an epoch has six
    config.write_text(yaml.safe_dump(edited(tree, edits), sort_keys=False), "utf-8")
    otherwise = read_sonar(arguments("cut", *SONAR_OTHERWISE), Environment())
    assert_only_free(otherwise, {dotted(place) for edit in edits for place in edit.places})

    ended = run_to_end(command("cut", *SONAR_OTHERWISE))

    assert ended.returncode == 0, ended.output
    assert "starts anew" not in ended.output
    assert_same_training(run, twin, "ckpt/checkpoint_epoch_3.pth")
    assert [event["verdict"] for event in events(run, "replayed") if "bit-identical" not in event["verdict"]] == []


COLOURS = [[number, 20, 30] for number in range(8)]
ONE_VALUE = {  # their kind, and what only one way of it is built
    "val_dataloader.sampler.shuffle",
    "val_cfg.fp16",
    "model.backbone.init_cfg.type",
    "default_hooks.checkpoint.type",
    "default_hooks.checkpoint.by_epoch",
    "default_hooks.checkpoint.save_last",
    "default_hooks.logger.type",
    "log_processor.type",
}


def test_a_killed_aerial_training_with_all_that_is_free_changed_is_its_twin(tmp_path: Path) -> None:
    config = aerial.write_job(tmp_path, steps=5)
    first = run_to_end(python("-m", "unbroken", "train", "mapsage", config, "--work-dir", tmp_path / "first"))
    assert first.returncode == 0, first.output
    for name in ("mit.pth", "other.pth"):
        shutil.copy(tmp_path / "first/iter_5.pth", tmp_path / name)
    config.unlink()
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    for part in ("Train", "Val"):
        for folder in ("images", "masks"):
            (tmp_path / "elsewhere" / part / f"{folder}_png").rename(tmp_path / "elsewhere" / part / folder)
    shutil.rmtree(tmp_path / "first")
    aerial_text = aerial.CONFIG.format(data=str(tmp_path / "data"), wrapper="OptimWrapper", steps=STEPS)
    config.write_text(aerial_text, "utf-8")
    tree = validate(MapSageConfig, read_config(config, environment={})).canonical
    names = ["background", "building", "road", "water", "barren", "forest", "agricultural", "playground"]
    for part in ("train", "val"):
        tree[f"{part}_dataloader"]["dataset"]["metainfo"] = {"classes": names, "palette": None}
    tree["model"]["backbone"]["init_cfg"] = {
        "type": "Pretrained", "checkpoint": str(tmp_path / "mit.pth"), "prefix": None,
    }  # fmt: skip
    by_hand: dict[str, Any] = {
        "model.backbone.init_cfg.checkpoint": str(tmp_path / "other.pth"),
        "model.backbone.init_cfg.prefix": "backbone.",
        "train_cfg.val_interval": 5,
    }
    for part, folder in (("train", "Train"), ("val", "Val")):
        dataset = f"{part}_dataloader.dataset"
        by_hand[f"{dataset}.data_root"] = str(tmp_path / "elsewhere")
        by_hand[f"{dataset}.data_prefix.img_path"] = f"{folder}/images"
        by_hand[f"{dataset}.data_prefix.seg_map_path"] = f"{folder}/masks"
        by_hand[f"{dataset}.metainfo.palette"] = COLOURS
    tests = {f"test_{name}": tree[f"val_{name}"] for name in ("dataloader", "cfg", "evaluator")}
    together = Edit("a test set", tuple((split(key), value) for key, value in tests.items()))
    edits, alone = free_edits(tree, MapSageConfig, by_hand, [together])
    print(f"changed: {[repr(edit) for edit in edits]}; without another value: {sorted(alone)}")
    assert alone == ONE_VALUE

    def arguments(place: str, *options: str) -> list[str]:
        return [str(config), "--work-dir", str(tmp_path / place), "--tag", "run", "--device", "cpu", *options]

    def command(place: str, *options: str) -> list[str]:
        return python("-m", "unbroken", "train", "mapsage", *arguments(place, *options))

    config.write_text(as_python(tree), "utf-8")
    whole = run_to_end(command("whole"))
    assert whole.returncode == 0, whole.output
    kill_after_steps(tmp_path / "cut", command("cut"), steps=11)
    config.write_text(as_python(edited(tree, edits)), "utf-8")
    otherwise = read_aerial(arguments("cut"), Environment())
    assert_only_free(otherwise, {dotted(place) for edit in edits for place in edit.places})

    ended = run_to_end(command("cut", "--session", "2h"))

    assert ended.returncode == 0, ended.output
    assert "starts anew" not in ended.output
    assert_same_training(tmp_path / "cut", tmp_path / "whole", f"iter_{STEPS}.pth")
    assert [
        event["verdict"] for event in events(tmp_path / "cut", "replayed") if "identical" not in event["verdict"]
    ] == []
