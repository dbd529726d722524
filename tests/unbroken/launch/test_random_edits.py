"""Random edits of the published configs, against a real run: what a launch says of them, and what it then does."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from focalsst.config import SonarConfig
from focalsst.original_states import TABLES as ORIGINAL_TABLES
from focalsst.recipes import read as read_sonar
from focalsst.samples import write_sample_data as write_frames
from mapsage.config import MapSageConfig
from mapsage.recipes import HOW_TO_START
from mapsage.recipes import read as read_aerial
from mapsage.samples import write_sample_data as write_tiles
from tests.config_edits import Edit, as_python, at, declared, differing, dotted, edited, linked, single_edits, split
from unbroken import Job
from unbroken.config import Absent, Change, ConfigError, Effect, Section, changes, read_config, validate
from unbroken.errors import Incompatible, UnbrokenError, UsageError
from unbroken.launch import Environment, FineTune, Finished, Fresh, Refuse, Resume, decide, gather, load_attribute
from unbroken.launch.explain import refusal
from unbroken.launch.options import file_name
from unbroken.train import Exit, decide_by_shapes, differences, launch, read_checkpoint, run_job
from unbroken.train.fit import hand_over
from unbroken.train.shapes import fit_of

APPS = Path(__file__).resolve().parents[3] / "apps"
GATED = (Effect.SHAPE, Effect.MEANING)
EXAMPLES = 100  # of which every LAUNCHED_EACH-th is launched
LAUNCHED_EACH = 4
MOST_AT_ONCE = 4
WALKED = 2  # values of each key, where every key has its turn
TAG = "baseline"

# A fixed sequence of examples: a failure here is a failure everywhere.
RANDOM = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

SONAR_BY_HAND: dict[str, list[Any]] = {
    "DATA_CONFIG.INFO_PATH.train": [["other.npz"]],
    "DATA_CONFIG.INFO_PATH.test": [["other.npz"]],
    "DATA_CONFIG.MAP_CLASS_TO_KITTI": [{"Box": "Car", "Diver": "Pedestrian", "Fish": "Cyclist"}],
    "DATA_CONFIG.DATA_AUGMENTOR.DISABLE_AUG_LIST": [["random_world_flip"], ["random_world_rotation"]],
    "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST": [
        [],
        [{"NAME": "random_world_rotation", "WORLD_ROT_ANGLE": 0.3}],
        [{"NAME": "random_world_scaling", "WORLD_SCALE_RANGE": [0.9, 1.1]}, {"NAME": "random_world_flip"}],
    ],
    "MODEL.VFE.NAME": ["SimpleVFE"],
}
BRANCHES = ("center", "center_z", "dim", "rot")
PROCESSOR, DSVT, HEAD = "DATA_CONFIG__DATA_PROCESSOR__2", "MODEL__BACKBONE_3D__DSVT", "MODEL__DENSE_HEAD"
SONAR_LINKED = [
    linked(
        "a limit of voxels for both parts",
        **{f"{PROCESSOR}__MAX_NUMBER_OF_VOXELS__{part}": 1000 for part in ("train", "test")},
    ),
    linked("voxels of 1.5 m", **{f"{PROCESSOR}__VOXEL_SIZE": [1.5, 1.5, 1.5]}),
    linked(
        "branches of one convolution",
        **{f"{HEAD}__NUM_HM_CONV": 1},
        **{f"{HEAD}__SEPARATE_HEAD_CFG__HEAD_DICT__{name}__num_conv": 1 for name in BRANCHES},
    ),
    linked("twice as wide", **{f"{DSVT}__d_model": [32], f"{DSVT}__nhead": [4]}),
    linked(
        "a third class",
        CLASS_NAMES=[{"name": "Box"}, {"name": "Diver"}, {"name": "Fish"}],
        DATA_CONFIG__MAP_CLASS_TO_KITTI={"Box": "Car", "Diver": "Pedestrian", "Fish": "Cyclist"},
    ),
    linked(
        "a class with another name",
        CLASS_NAMES=[{"name": "Box"}, {"name": "Swimmer"}],
        DATA_CONFIG__MAP_CLASS_TO_KITTI={"Box": "Car", "Swimmer": "Pedestrian"},
    ),
    linked(
        "two stages",
        **{
            f"MODEL__BACKBONE_2D__{name}": value
            for name, value in {
                "LAYER_NUMS": [1, 1],
                "LAYER_STRIDES": [1, 2],
                "NUM_FILTERS": [16, 16],
                "UPSAMPLE_STRIDES": [1, 2],
                "NUM_UPSAMPLE_FILTERS": [16, 16],
            }.items()
        },
    ),
    linked(
        "another stride, taken back", MODEL__BACKBONE_2D__LAYER_STRIDES=[2], MODEL__BACKBONE_2D__UPSAMPLE_STRIDES=[2]
    ),
]
EIGHT = ("background", "building", "road", "water", "barren", "forest", "agricultural", "playground")
AERIAL_BY_HAND: dict[str, list[Any]] = {
    "model.backbone.init_cfg": [{"type": "Pretrained", "checkpoint": "mit.pth", "prefix": None}],
    "train_dataloader.dataset.metainfo": [{"classes": list(EIGHT), "palette": None}],
    "optim_wrapper.paramwise_cfg": [
        {
            "custom_keys": {"head": {"lr_mult": 10.0, "decay_mult": 1.0}},
            "norm_decay_mult": None,
            "bias_lr_mult": None,
            "bias_decay_mult": None,
            "dwconv_decay_mult": None,
        }
    ],
    "optim_wrapper.loss_scale": [1024.0],
    "default_hooks.checkpoint.max_keep_ckpts": [3],
    "model.decode_head.loss_decode.0.class_weight": [[0.5] * 8],
    "model.decode_head.loss_decode": [[{"type": "LovaszLoss"}]],
    "param_scheduler": [[]],
}
BACKBONE, DECODER = "model__backbone", "model__decode_head"
AERIAL_LINKED = [
    linked(
        "twice as wide",
        **{f"{BACKBONE}__embed_dims": 32, f"{DECODER}__in_channels": [32, 64, 128, 256]},
    ),
    linked("other heads", **{f"{BACKBONE}__num_heads": [1, 2, 4, 4], f"{DECODER}__in_channels": [16, 32, 64, 64]}),
    linked(
        "seven classes",
        **{f"{DECODER}__num_classes": 7},
        **{f"{part}_dataloader__dataset__type": "LoveDADataset" for part in ("train", "val")},
    ),
    linked("without validation", val_dataloader=None, val_cfg=None, val_evaluator=None),
    linked(
        "three maps",
        **{f"{DECODER}__in_index": [0, 1, 2], f"{DECODER}__in_channels": [16, 32, 64]},
    ),
    linked("bfloat16", optim_wrapper__type="AmpOptimWrapper", optim_wrapper__dtype="bfloat16"),
]


class Listener:
    """A console that keeps what is said, and sends this process a real SIGTERM after a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.lines = stop_at, list[str]()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: Any, _line: str) -> None:
        if report.step == self.stop_at:
            signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class App:
    """An application with one real run of its smallest published config, stopped in the middle of an epoch."""

    name: str
    folder: Path
    schema: type[Section]
    tree: dict[str, Any]
    read: Callable[[Sequence[str]], Job]
    write: Callable[[dict[str, Any]], None]
    by_hand: dict[str, list[Any]]
    linked: list[Edit]
    tag_option: str

    def job(self, *edits: Edit, options: Sequence[str] = ()) -> Job:
        self.write(edited(self.tree, edits))
        return self.read(options)

    @cached_property
    def run(self) -> Path:
        return self.job().directory

    @cached_property
    def checkpoint(self) -> Path:
        newest = gather(self.job()).survey.newest_good
        assert newest is not None
        return newest.path

    @cached_property
    def recorded(self) -> dict[str, Any]:
        found: dict[str, Any] = read_checkpoint(self.checkpoint)
        return found

    @cached_property
    def weights(self) -> dict[str, Any]:
        state = next(self.recorded[key] for key in ("model_state", "state_dict") if key in self.recorded)
        return {name: value for name, value in state.items() if not name.endswith(ORIGINAL_TABLES)}

    @cached_property
    def old(self) -> dict[str, Any]:
        config: dict[str, Any] = self.recorded["unbroken"]["config"]
        return config

    @cached_property
    def edits(self) -> list[Edit]:
        """All that the schema accepts, one at a time."""
        config = validate(self.schema, self.tree).value
        tree = {key: value for key, value in self.tree.items() if key not in HOW_TO_START}
        return [
            edit
            for edit in (*single_edits(tree, config, self.by_hand), *self.linked)
            if self.accepts(edited(self.tree, [edit]))
        ]

    @cached_property
    def by_key(self) -> dict[str, list[Edit]]:
        """The same, by what is edited: a key with many other values is drawn no more often than one with few."""
        found: dict[str, list[Edit]] = {}
        for edit in self.edits:
            found.setdefault(", ".join(sorted(map(dotted, edit.places))), []).append(edit)
        return found

    @cached_property
    def walk(self) -> list[tuple[Edit, Job]]:
        """Every key once or twice, with the job that it makes."""
        edits = [edit for found in self.by_key.values() for edit in found[:WALKED]]
        return [(edit, self.job(edit)) for edit in edits]

    def accepts(self, tree: dict[str, Any]) -> bool:
        try:
            validate(self.schema, tree)
        except ConfigError:
            return False
        return True


@pytest.fixture(scope="module")
def sonar(tmp_path_factory: pytest.TempPathFactory) -> App:
    folder = tmp_path_factory.mktemp("sonar")
    shutil.copytree(APPS / "focal_sst/cfgs", folder / "cfgs")
    write_frames(folder / "data/sonar", train=7, val=1, points=200, reach_m=20.0, seed=3)
    # it is read from the folder of the application, where its base is found
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        file = read_config(Path("cfgs/sonar_models/nano.yaml"), environment={})
    tree = validate(SonarConfig, file).canonical
    tree["OPTIMIZATION"] |= {"BATCH_SIZE_PER_GPU": 2, "EVAL_INTERVAL": 0}
    config = folder / "cfgs/sonar_models/edited.yaml"
    fixed = ["--cfg_file", str(config), "--output", str(folder / "output"), "--workers", "0", "--device", "cpu"]

    def read(options: Sequence[str]) -> Job:
        given = [] if "--extra_tag" in options else ["--extra_tag", TAG]
        return read_sonar([*fixed, *given, *options], Environment(command="python train.py"))

    app = App(
        name="sonar",
        folder=folder,
        schema=SonarConfig,
        tree=tree,
        read=read,
        write=lambda found: config.write_text(yaml.safe_dump(found, sort_keys=False), "utf-8"),
        by_hand=SONAR_BY_HAND,
        linked=SONAR_LINKED,
        tag_option="--extra_tag",
    )
    train_a_little(app, steps=6)  # four steps of an epoch: the second one holds two of them
    return app


@pytest.fixture(scope="module")
def aerial(tmp_path_factory: pytest.TempPathFactory) -> App:
    folder = tmp_path_factory.mktemp("aerial")
    write_tiles(folder / "data", train=10, val=2, size_px=64, val_size_px=64, seed=3)
    tree = validate(MapSageConfig, read_config(APPS / "mapsage/configs/aerial_tiny.py", environment={})).canonical
    for part in ("train_dataloader", "val_dataloader"):
        tree[part]["dataset"]["data_root"] = str(folder / "data")
    tree["train_dataloader"]["batch_size"] = 4
    config = folder / "edited.py"
    fixed = [str(config), "--workers", "0", "--device", "cpu"]

    def read(options: Sequence[str]) -> Job:
        tag = options[options.index("--tag") + 1] if "--tag" in options else TAG
        given = ["--tag", tag, "--work-dir", str(folder / "work_dirs" / tag)]
        return read_aerial([*fixed, *given, *options], Environment(command="python scripts/train.py"))

    app = App(
        name="aerial",
        folder=folder,
        schema=MapSageConfig,
        tree=tree,
        read=read,
        write=lambda found: config.write_text(as_python(found), "utf-8"),
        by_hand=AERIAL_BY_HAND,
        linked=AERIAL_LINKED,
        tag_option="--tag",
    )
    train_a_little(app, steps=4)
    return app


def train_a_little(app: App, *, steps: int) -> None:
    torch.set_num_threads(1)
    with pytest.raises(Exit) as stopped:
        run_job(app.job(), Listener(stop_at=steps))
    assert stopped.value.code == 75
    inside = app.recorded["unbroken"]
    assert inside["step"] == steps
    assert inside["position"] % inside["dataset_size"] > 0, "the run stands in the middle of an epoch"
    assert app.job().config == app.old


@pytest.fixture(params=["sonar", "aerial"])
def app(request: pytest.FixtureRequest) -> App:
    found: App = request.getfixturevalue(request.param)
    return found


# -- what is compared --------------------------------------------------------------------------------------------------


def digest(folder: Path) -> dict[str, str]:
    """Every file of a run, but for who holds or held it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("lock", "holder.json")
    }


def assert_reports_each_change_once(
    found: Sequence[Change], old: Any, new: Any, config: Section, before: Section
) -> None:
    """Every key that differs is in exactly one change, with its effect and both values; no other key is."""
    keys = [change.key for change in found]
    assert len(keys) == len(set(keys))
    really = differing(old, new)
    covered = {place: [key for key in keys if place[: len(split(key))] == split(key)] for place in really}
    assert all(len(by) == 1 for by in covered.values()), covered
    assert set(keys) == {by[0] for by in covered.values()}, "a key is reported that did not change"
    for change in found:
        sides = (at(old, split(change.key), Absent.ABSENT), at(new, split(change.key), Absent.ABSENT))
        assert (change.old, change.new) == sides
        said = [effect for where in (config, before) if (effect := declared(where, change.key))]
        assert change.effect in said, (change, said)


def tag_of(way: str, app: App) -> str:
    found = re.search(rf"{app.tag_option} (\S+)", way)
    assert found, way
    return found[1]


def typed(way: str) -> list[str]:
    """The options that a way out names behind its colon."""
    return shlex.split(way.partition(": ")[2])


def drawn(data: st.DataObject, app: App) -> list[Edit]:
    """Some edits at once, which the schema accepts together."""
    chosen: list[Edit] = []
    for key in data.draw(st.lists(st.sampled_from(sorted(app.by_key)), min_size=1, max_size=MOST_AT_ONCE, unique=True)):
        edit = data.draw(st.sampled_from(app.by_key[key]))
        if not any(edit.clashes(other) for other in chosen):
            chosen.append(edit)
    if not app.accepts(edited(app.tree, chosen)):
        event("refused by the schema")
        assume(False)
    return chosen


# -- the properties ----------------------------------------------------------------------------------------------------


def test_what_a_launch_says_and_does_about_random_edits(app: App) -> None:
    began, seen = time.monotonic(), dict[str, int]()
    whole = digest(app.run)
    inside = app.recorded["unbroken"]
    place = divmod(inside["position"], inside["dataset_size"])
    before = validate(app.schema, app.tree).value
    count = [0]

    @RANDOM
    @given(st.data())
    def property_of_edits(data: st.DataObject) -> None:
        edits = drawn(data, app)
        job = app.job(*edits)
        plan = decide(job, gather(job))
        count[0] += 1
        seen[plan.name] = seen.get(plan.name, 0) + 1

        assert not isinstance(plan, Fresh | FineTune), "a run with a history began anew"
        found = changes(app.old, job.config, job.effects)
        assert_reports_each_change_once(
            found, app.old, job.config, getattr(job.options.own, "config", job.options.own), before
        )
        gated = tuple(change for change in found if change.effect in GATED)
        match plan:
            case Refuse():
                assert gated and plan.changes == found
                assert_refused(app, job, plan)
            case Resume():
                assert not gated and plan.changes == found
                assert plan.source.path == app.checkpoint
                assert plan.position is not None
                assert (plan.position.epochs, plan.position.used) == place
                anew = any("bit-exactness starts anew" in reason for reason in plan.reasons)
                assert anew == any(change.effect is Effect.DATA for change in found)
            case Finished():
                assert not gated and job.total_steps is not None
                shorter = {"OPTIMIZATION.NUM_EPOCHS", "train_cfg.max_iters", "OPTIMIZATION.BATCH_SIZE_PER_GPU"}
                assert shorter & {change.key for change in found}
        if count[0] % LAUNCHED_EACH == 0:
            assert_launched_whole_or_not_at_all(app, job, gated)
        assert digest(app.run) == whole

    property_of_edits()
    print(f"{app.name}: {count[0]} examples in {time.monotonic() - began:.1f} s, {seen}")
    assert min(seen.get("Refuse", 0), seen.get("Resume", 0)) >= EXAMPLES // 10, seen


def assert_refused(app: App, job: Job, plan: Refuse) -> None:
    """Exit code 13, and ways out that lead out."""
    assert plan.exit_code == Incompatible.exit_code == 13
    assert refusal(job, plan).exit_code == 13
    another, tuned, undone = (
        next(way for way in plan.ways_out if way.startswith(words))
        for words in ("keep both", "start a new run from these weights", "undo the change")
    )
    tag = tag_of(another, app)
    assert file_name(tag) == tag != job.tag
    assert not (job.directory.parent / tag).exists()
    named = "model.backbone.init_cfg" in {change.key for change in plan.changes}  # a file that is not there
    for way, verdict in () if named else ((another, Fresh), (tuned, FineTune)):
        elsewhere = app.read(typed(way))
        assert isinstance(decide(elsewhere, gather(elsewhere)), verdict), way
    for change in [change for change in plan.changes if change.effect in GATED][:3]:
        assert change.key in undone


def assert_launched_whole_or_not_at_all(app: App, job: Job, gated: Sequence[Change]) -> None:
    """A real launch: every tensor is the checkpoint's right after `track`, or it raises and has touched nothing.

    A change that is refused is launched a second time, accepted: then only the tensors themselves can refuse.
    """
    with torch.device("cpu"):
        torch.manual_seed(5)
        model = load_attribute(job.blueprint)(job).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if gated:
        whole = digest(app.run)
        with pytest.raises(Incompatible):
            launch(job, console=Listener())
        assert differences(dict(model.state_dict()), before) == []
        assert digest(app.run) == whole
        job = replace(job, start=replace(job.start, accepted=frozenset(change.key for change in gated)))
    whole = digest(app.run)
    fits = fit_of(job, app.checkpoint).complete
    keys = {change.key for change in changes(app.old, job.config, job.effects)}
    try:
        run = launch(job, console=Listener())
    except Incompatible:
        event("refused by the tensors, at once")
        assert not fits
        assert digest(app.run) == whole
        return
    except UnbrokenError:
        event("the data is not as the config says")
        assert digest(app.run) == whole
        return
    with run:
        try:
            task = load_attribute(job.task)(job, run.session_log.say)
        except UnbrokenError:
            event("the data is not as the config says")
            return  # nothing was loaded yet
        fresh = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
        optimizer = repr(task.optimizer.state_dict())
        try:
            hand_over(task, run)
        except Incompatible:
            event("refused by the tensors")
            assert differences(dict(task.model.state_dict()), fresh) == [], "some of the weights were loaded"
            assert repr(task.optimizer.state_dict()) == optimizer
            assert not fits or keys & UNLAUNCHABLE, f"planned, and cannot be done: {keys}"
        else:
            event("restored")
            assert fits
            assert differences(dict(task.model.state_dict()), app.weights) == []
    assert digest(app.run) == whole


# -- every key, one at a time ------------------------------------------------------------------------------------------


# All tensors fit, but the groups of the optimizer do not: it is refused, and accepting it does not help.
UNLAUNCHABLE = {"optim_wrapper.paramwise_cfg"}


def test_every_plan_to_go_on_can_be_carried_out(app: App) -> None:
    wrong, tried = [], 0
    for edit, job in app.walk:
        plan = decide(job, gather(job))
        if not isinstance(plan, Resume) or plan.changes[0].effect is Effect.FREE:
            continue
        tried += 1
        try:
            opened = launch(job, console=Listener())
        except UsageError:
            continue  # data that is not there
        with opened as run:
            task = load_attribute(job.task)(job, run.session_log.say)
            try:
                hand_over(task, run)
            except UnbrokenError as error:
                wrong.append(f"{edit}\n    {str(error)[:300]}")
    assert tried > 20
    assert not wrong, "\n".join([f"{len(wrong)} of {tried} plans cannot be carried out:", *wrong])


def test_only_keys_of_shape_change_a_tensor(app: App) -> None:
    shaped: dict[str, set[bool]] = {}
    silent = set()
    for edit, job in app.walk:
        found = changes(app.old, job.config, job.effects)
        fit = fit_of(job, app.checkpoint)
        if not any(change.effect is Effect.SHAPE for change in found):
            silent |= set() if fit.complete else {change.key for change in found}
            continue
        for change in found:
            shaped.setdefault(change.key, set()).add(not fit.complete)
        plan = decide_by_shapes(job, gather(job))
        assert isinstance(plan, Refuse) and plan.exit_code == 13 and plan.fit == fit
        said = "the weights would mean something else" if fit.complete else "the weights no longer fit"
        assert said in plan.reasons[0], (edit, plan.reasons)
        assert ("--accept-change" in " ".join(plan.ways_out)) == fit.complete
    never = sorted(key for key, found in shaped.items() if found == {False})
    sometimes = sorted(key for key, found in shaped.items() if found == {False, True})
    print(f"{app.name}: declared shape, and never changes a tensor: {never}; only sometimes: {sometimes}")
    assert not silent, "these change a tensor, and the schema does not say so"


def test_every_undo_that_a_refusal_names_undoes_it(app: App) -> None:
    wrong, tried = [], 0
    for edit, job in app.walk:
        plan = decide(job, gather(job))
        undone = next((way for way in getattr(plan, "ways_out", ()) if way.startswith("undo")), "")
        others = [change for change in getattr(plan, "changes", ()) if change.effect not in GATED]
        if ", or: " not in undone or others:
            continue
        tried += 1
        app.write(edited(app.tree, [edit]))
        try:
            again = app.read(shlex.split(undone.partition(", or: ")[2]))
            plan = decide(again, gather(again))
            ended = "" if isinstance(plan, Resume) else "; ".join(plan.reasons)
        except UnbrokenError as error:
            ended = str(error)
        if ended:
            wrong.append(f"{edit}\n    {undone}\n    {ended[:300]}")
    assert tried > 20
    assert not wrong, "\n".join([f"{len(wrong)} of {tried} undos are none:", *wrong])


def refused_tag(app: App, edit: Edit, *options: str) -> tuple[Job, str]:
    """The job of a changed config, and the tag that its refusal suggests."""
    job = app.job(edit, options=options)
    plan = decide(job, gather(job))
    assert isinstance(plan, Refuse)
    return job, tag_of(plan.ways_out[0], app)


def of_meaning(app: App) -> Edit:
    keys = ("MODEL.BACKBONE_3D.DSVT.nhead", "model.data_preprocessor.mean")
    return next(app.by_key[key][0] for key in keys if key in app.by_key)


@pytest.mark.parametrize("length", [59, 60, 61, 100])
def test_the_suggested_tag_is_another_one_however_long_the_present_one_is(app: App, length: int) -> None:
    tag = ("baseline_with_a_name_" * 9)[: length - 1] + "x"
    shutil.copytree(app.run, app.run.parent / tag)
    job, suggested = refused_tag(app, of_meaning(app), app.tag_option, tag)
    assert job.tag == tag
    assert file_name(suggested) != tag
    assert not (job.directory.parent / suggested).exists()


def test_the_suggested_tag_is_not_that_of_another_experiment(app: App) -> None:
    """The experiment of that name was begun once, and has gone another way since."""
    _, suggested = refused_tag(app, of_meaning(app))
    shutil.copytree(app.run, app.run.parent / suggested)
    try:
        _, again = refused_tag(app, of_meaning(app))
        assert not (app.run.parent / again).exists(), f"{again} is another experiment, and is refused as well"
    finally:
        shutil.move(app.run.parent / suggested, app.folder / "moved")
