"""Every key that is declared *schedule* or *free*: after a resume with it changed, all is as in a fresh start with it.

For each application one training is stopped, and then, key by key, built with one other value, restored from that
stop and compared with a training of the changed config that has come to the same step: the groups of the optimizer,
the schedule, the scaler, the loader, how often is evaluated and saved.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from focalsst.config import SonarConfig
from focalsst.recipes import read as read_sonar
from mapsage.config import MapSageConfig
from mapsage.recipes import read as read_aerial
from tests.config_edits import Edit, as_python, dotted, edited, leaves, others, split, words_of
from tests.mapsage.nano_job import CONFIG, Listener
from tests.twin import sonar
from unbroken import Job
from unbroken.config import ConfigError, Effect, Section, effects, read_config, validate
from unbroken.config.python_file import read_python_text
from unbroken.launch import Environment, load_attribute
from unbroken.launch.verdicts import schedule_step
from unbroken.run.candidates import list_candidates
from unbroken.run.layout import manifests
from unbroken.train import Exit, Task, read_checkpoint, run_job
from unbroken.train.source import Source

STOP = 3
Tree = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Application:
    """One line of `APPLICATIONS`: its schema, a config with every optional part given, how a job is made of one."""

    name: str
    schema: type[Section]
    tree: Tree
    prepare: Callable[[Path], object]  # data, below a folder that is then the current one
    job: Callable[[Tree], Job]
    by_hand: Mapping[str, Any] = field(default_factory=dict)
    one_value: frozenset[str] = frozenset()  # keys of which only one value is built
    unseen: tuple[str, ...] = ()  # parts of keys that say what is computed in a step, and are in no saved state


# -- the aerial application --------------------------------------------------------------------------------------------


def aerial_tree() -> Tree:
    given = read_python_text(CONFIG.format(data="data", steps=20, end=20, more=""), Path("nano.py"))
    given["optim_wrapper"] |= {
        "type": "AmpOptimWrapper",
        "paramwise_cfg": {
            "custom_keys": {"decode_head": {"lr_mult": 10.0, "decay_mult": 0.5}},
            "norm_decay_mult": 0.1, "bias_lr_mult": 2.0, "bias_decay_mult": 0.3, "dwconv_decay_mult": 0.2,
        },
    }  # fmt: skip
    return validate(MapSageConfig, given).canonical


def prepare_aerial(folder: Path) -> None:
    from mapsage.samples import write_sample_data

    write_sample_data(folder / "data", train=5, val=2, size_px=64, val_size_px=64, seed=1)
    for part in ("Train", "Val"):
        for kind in ("images", "masks"):
            os.symlink(folder / "data" / part / f"{kind}_png", folder / "data" / part / kind)
    os.symlink(folder / "data", folder / "elsewhere")


def aerial_job(tree: Tree) -> Job:
    Path("nano.py").write_text(as_python(tree), "utf-8")
    return read_aerial(["nano.py", "--work-dir", "run", "--device", "cpu"], Environment())


AERIAL = Application(
    name="aerial",
    schema=MapSageConfig,
    tree=aerial_tree(),
    prepare=prepare_aerial,
    job=aerial_job,
    by_hand={
        **{f"{part}_dataloader.dataset.data_root": "elsewhere" for part in ("train", "val")},
        **{
            f"{part.lower()}_dataloader.dataset.data_prefix.{key}_path": f"{part}/{kind}"
            for part in ("Train", "Val")
            for key, kind in (("img", "images"), ("seg_map", "masks"))
        },
        "train_cfg.val_interval": 4,
        "default_hooks.checkpoint.max_keep_ckpts": 3,
        "optim_wrapper.loss_scale": 512.0,
    },
    one_value=frozenset(
        {
            "val_dataloader.sampler.shuffle", "val_cfg.fp16", "train_cfg.type", "default_hooks.checkpoint.type",
            "default_hooks.checkpoint.by_epoch", "default_hooks.checkpoint.save_last", "default_hooks.logger.type",
            "log_processor.type", "optim_wrapper.optimizer.type", "param_scheduler.0.type", "param_scheduler.1.type",
            "param_scheduler.0.by_epoch", "param_scheduler.1.by_epoch",
            # sections that are wholly there or not; the configs of `test_free_settings.py` have them
            "model.backbone.init_cfg", "val_dataloader.dataset.metainfo", "test_dataloader",
            "test_cfg", "test_evaluator",
        }
    ),
)  # fmt: skip


# -- the sonar application ---------------------------------------------------------------------------------------------


def sonar_tree() -> Tree:
    with contextlib.chdir(sonar.CFGS.parent):
        tree = validate(SonarConfig, read_config(sonar.CFGS / "sonar_models/nano.yaml", environment={})).canonical
    plain = tree["DATA_CONFIG"]["DATA_AUGMENTOR"] | {"AUG_CONFIG_LIST": []}
    return {
        **tree,
        "DATA_CONFIG": tree["DATA_CONFIG"] | {"DATA_PATH": "data/sonar", "DATA_AUGMENTOR": plain},
        "OPTIMIZATION": tree["OPTIMIZATION"] | {"BATCH_SIZE_PER_GPU": 2, "NUM_EPOCHS": 4},
    }


def prepare_sonar(folder: Path) -> None:
    from focalsst.samples import write_sample_data

    write_sample_data(folder / "data/sonar", train=9, val=3, points=600, reach_m=24.0, seed=3)
    os.symlink(folder / "data/sonar", folder / "data/elsewhere")


def sonar_job(tree: Tree) -> Job:
    Path("cfgs").mkdir(exist_ok=True)
    Path("cfgs/tiny.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), "utf-8")
    words = ["--cfg_file", "cfgs/tiny.yaml", "--extra_tag", "run", "--workers", "0", "--device", "cpu"]
    return read_sonar([*words, "--ckpt_save_time_interval", "1"], Environment())


SONAR = Application(
    name="sonar",
    schema=SonarConfig,
    tree=sonar_tree(),
    prepare=prepare_sonar,
    job=sonar_job,
    by_hand={"DATA_CONFIG.DATA_PATH": "data/elsewhere"},
    one_value=frozenset({"OPTIMIZATION.OPTIMIZER"}),
    unseen=("LOSS",),  # of a scaler, there is one on GPUs only
)

APPLICATIONS = [AERIAL, SONAR]


# -- the comparison ----------------------------------------------------------------------------------------------------


def cases() -> Iterator[Any]:
    for application in APPLICATIONS:
        declared = effects(application.schema)
        config = validate(application.schema, application.tree).value
        for place, value in leaves(application.tree):
            key = dotted(place)
            effect = declared.find(key)
            if effect not in (Effect.SCHEDULE, Effect.FREE) or key in ("work_dir", "load_from", "resume"):
                continue
            found = [application.by_hand[key]] if key in application.by_hand else others(value, words_of(config, place))
            new = next((new for new in found if new != value and accepts(application, key, new)), None)
            yield pytest.param(application, key, effect, new, id=f"{application.name}-{key}")


def accepts(application: Application, key: str, value: Any) -> bool:
    try:
        validate(application.schema, changed(application, key, value))
    except ConfigError:
        return False
    return True


def changed(application: Application, key: str, value: Any) -> Tree:
    return edited(application.tree, [Edit(key, ((split(key), value),))])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Application], Path]:
    """The folder of a training that was stopped, made once for each application."""
    made: dict[str, Path] = {}

    def folder(application: Application) -> Path:
        if application.name not in made:
            made[application.name] = tmp_path_factory.mktemp(application.name)
            torch.set_num_threads(1)
            with contextlib.chdir(made[application.name]), pytest.raises(Exit):
                application.prepare(made[application.name])
                run_job(application.job(application.tree), Listener(STOP))
        return made[application.name]

    return folder


def built(job: Job) -> Task:
    torch.set_num_threads(1)
    task: Task = load_attribute(job.task)(job, lambda _line: None)
    return task


def resumed(job: Job) -> tuple[Task, int]:
    """Built with the changed config, restored from where the training was stopped; the step its schedule is at."""
    task = built(job)
    (file, *_) = list_candidates(job.layout.checkpoints(job.directory), manifests(job.directory))
    source = Source(file.path, job.layout)
    source.restore(task.parts(), lambda _line: None, optional={"scaler"})
    done = source.progress
    step = schedule_step(job, step=done.step, position=done.position, size=done.dataset_size)
    task.follow_config(step, None)
    return task, step


def fresh(job: Job, step: int) -> Task:
    """Built with the same config, and brought to the same step."""
    task = built(job)
    for _ in range(step):
        task.schedule.step()
    return task


def seen(task: Task, job: Job) -> dict[str, Any]:
    """What a key of these kinds can decide."""
    autocast, groups = task.gradients.autocast, task.optimizer.param_groups
    scaler = task.gradients.scaler.state_dict() if task.gradients.scaler else {}
    return {
        "groups": [{name: value for name, value in group.items() if name != "params"} for group in groups],
        "schedule": task.schedule.state_dict(),
        "scaler": {name: value for name, value in scaler.items() if name != "_growth_tracker"},
        "precision": autocast.keywords if isinstance(autocast, partial) else autocast,
        "loader": (task.batch_size, task.workers, task.batches.shuffle, task.batches.drop_last, task.accumulate),
        "clip": (task.gradients.clip_norm, task.gradients.clip_norm_type),
        "length": (task.steps, task.epochs),
        "evaluation": task.validation and (task.validation.every, task.validation.from_step, task.validation.best),
        "saves": (job.keep_last, {name: value for name, value in vars(job.options).items() if name != "own"}),
    }  # fmt: skip


@pytest.mark.parametrize(("application", "key", "effect", "new"), [*cases()])
def test_a_key_that_may_change_counts_after_a_resume_as_in_a_fresh_start(
    stopped: Callable[[Application], Path],
    monkeypatch: pytest.MonkeyPatch,
    application: Application,
    key: str,
    effect: Effect,
    new: Any,
) -> None:
    if new is None:
        assert key in application.one_value, "no other value of this key was found: name one in `by_hand`"
        return
    monkeypatch.chdir(stopped(application))
    job = application.job(changed(application, key, new))
    after, step = resumed(job)
    expected = seen(fresh(job, step), job)
    assert seen(after, job) == expected
    if effect is Effect.SCHEDULE and not any(part in key for part in application.unseen):
        same = application.job(copy.deepcopy(application.tree))
        assert expected != seen(fresh(same, step), same), "this key decides nothing that is compared here"


@pytest.mark.parametrize(
    ("application", "key"),
    [(AERIAL, "optim_wrapper.optimizer.weight_decay"), (SONAR, "OPTIMIZATION.WEIGHT_DECAY")],
    ids=["aerial", "sonar"],
)
def test_a_weight_decay_that_is_announced_is_what_the_next_steps_use_and_save(
    stopped: Callable[[Application], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    application: Application,
    key: str,
) -> None:
    monkeypatch.chdir(shutil.copytree(stopped(application), tmp_path / "run", symlinks=True))
    job, console = application.job(changed(application, key, 0.125)), Listener(STOP + 2)
    with pytest.raises(Exit):
        run_job(job, console)
    assert f"{key}: 0.01 -> 0.125 (schedule)" in console.text
    assert "weight_decay" in console.text.split("the optimizer is the config's from")[1].splitlines()[0]
    file, *_ = list_candidates(job.layout.checkpoints(job.directory), manifests(job.directory))
    states = read_checkpoint(file.path)
    regrouped = states["unbroken"].get("regrouped", {})  # ours, where the groups are those of another program
    saved = (states.get("optimizer") or regrouped["optimizer"])["param_groups"]
    assert file.step == STOP + 2
    assert [group["weight_decay"] for group in saved] == [g["weight_decay"] for g in built(job).optimizer.param_groups]


def test_there_are_keys_of_both_kinds_in_both_applications() -> None:
    found = {(each.values[0].name, str(each.values[2])) for each in cases()}  # type: ignore[union-attr]
    assert found == {(name, kind) for name in ("aerial", "sonar") for kind in ("schedule", "free")}
