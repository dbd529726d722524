"""The command line: every option of the original is accepted, and mistakes are explained."""

from __future__ import annotations

import argparse
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from focalsst.recipes import WITHOUT_EFFECT, parser, read
from tests.focalsst.nano_job import CONFIG, job, session
from unbroken import Job
from unbroken.cli import main
from unbroken.config import Effect
from unbroken.errors import ConfigError, UnbrokenError, UsageError
from unbroken.launch import Environment

pytestmark = pytest.mark.usefixtures("in_the_application_s_folder")


def option(name: str) -> Any:
    return lambda found: attrgetter(name)(found.options)


def in_config(key: str) -> Any:
    def value(found: Job) -> Any:
        here: Any = found.config
        for part in key.split("."):
            here = here[part]
        return here

    return value


def ignored(name: str) -> Any:
    return lambda found: f"--{name} ({WITHOUT_EFFECT[name]})" in found.ignored


# Every option of the original's train.py, where it lands, and where it is when it is not given.
ORIGINAL: list[tuple[list[object], Any, Any, Any]] = [
    (["--batch_size", 3], in_config("OPTIMIZATION.BATCH_SIZE_PER_GPU"), 3, 2),
    (["--epochs", 7], lambda found: found.epochs, 7, 2),
    (["--workers", 0], option("workers"), 0, 4),
    (["--extra_tag", "baseline"], lambda found: found.tag, "baseline", "default"),
    (["--ckpt", "a.pth"], lambda found: found.start.exact, Path("a.pth"), None),
    (["--pretrained_model", "a.pth"], lambda found: found.start.weights, Path("a.pth"), None),
    (["--launcher", "none"], lambda found: found.recipe, "focalsst", "focalsst"),
    (["--tcp_port", 18888], ignored("tcp_port"), True, False),
    (["--local_rank", 0], ignored("local_rank"), True, False),
    (["--sync_bn"], ignored("sync_bn"), True, False),
    (["--fix_random_seed"], lambda found: (found.seed, found.options.own.deterministic), (666, True), (0, False)),
    (["--ckpt_save_interval", 5], option("save_every_epochs"), 5, 1),
    (["--max_ckpt_save_num", 3], lambda found: found.keep_last, 3, 30),
    (["--merge_all_iters_to_one_epoch"], ignored("merge_all_iters_to_one_epoch"), True, False),
    (["--set", "OPTIMIZATION.LR", "0.25"], in_config("OPTIMIZATION.LR"), 0.25, 0.004),
    (["--max_waiting_mins", 0], ignored("max_waiting_mins"), True, False),
    (["--start_epoch", 0], ignored("start_epoch"), True, False),
    (["--num_epochs_to_eval", 2], option("own.num_epochs_to_eval"), 2, 0),
    (["--save_to_file"], option("own.save_to_file"), True, False),
    (["--use_tqdm_to_record"], ignored("use_tqdm_to_record"), True, False),
    (["--logger_iter_interval", 10], option("log_every"), 10, 50),
    (["--ckpt_save_time_interval", 60], option("save_every_s"), 60, 300),
    (["--wo_gpu_stat"], ignored("wo_gpu_stat"), True, False),
    (["--fp16"], in_config("OPTIMIZATION.FP16"), True, False),
]
OURS: list[tuple[list[object], Any, Any, Any]] = [
    (["--seed", 5], lambda found: found.seed, 5, 0),
    (["--seed", 5, "--fix_random_seed"], lambda found: found.seed, 5, 0),
    (["--deterministic"], option("own.deterministic"), True, False),
    (["--device", "cpu"], option("device"), "cpu", "auto"),
    (["--eval_interval", 0], in_config("OPTIMIZATION.EVAL_INTERVAL"), 0, 1),
    (["--save-every", "10m"], option("save_every_s"), 600.0, 300),
    (["--on-bad-frame", "skip"], option("accidents.on_bad"), "skip", "stop"),
    (["--on-bad-sample", "skip"], option("accidents.on_bad"), "skip", "stop"),
    (["--on-oom", "fail"], option("accidents.on_oom"), "fail", "halve"),
    (["--on-nan", "rollback"], option("accidents.on_nan"), "rollback", "stop"),
    (["--restarts", 5], option("accidents.restarts"), 5, 0),
    (["--backoff", "1m"], option("accidents.backoff_s"), 60.0, 10.0),
    (["--processes", 2], option("processes.count"), 2, 1),
    (["--exact-processes", 4], option("processes.shards"), 4, None),
    (["--pictures", 0], option("pictures"), 0, 3),
    (["--output", "runs"], lambda found: found.directory.parts[0], "runs", "output"),
    (["--tag", "t"], lambda found: found.tag, "t", "default"),
    (["--fresh"], lambda found: found.start.fresh, True, False),
    (["--strict", "--pretrained_model", "a.pth"], lambda found: found.start.strict, True, False),
    (["--search", "a", "--search", "b"], lambda found: found.start.search, (Path("a"), Path("b")), ()),
    (["--backup", "spare"], lambda found: found.backup, Path("spare"), None),
    (["--quota", "20GB"], lambda found: found.quota and found.quota.size_bytes, 20_000_000_000, None),
    (["--session", "1h30m", "--reserve", "10m"], lambda found: found.limit and found.limit.left_s, 5400.0, None),
    (["--session", "1h", "--reserve", "10m"], lambda found: found.limit and found.limit.reserve_s, 600.0, None),
]


@pytest.mark.parametrize(
    ("typed", "look", "given", "otherwise"),
    [pytest.param(*row, id=" ".join(map(str, row[0]))) for row in [*ORIGINAL, *OURS]],
)
def test_where_every_option_lands(typed: list[object], look: Any, given: Any, otherwise: Any) -> None:
    assert look(job(*typed)) == given
    assert look(job()) == otherwise


def test_the_table_has_every_option_of_the_parser() -> None:
    shown = {words[0] for words, *_ in [*ORIGINAL, *OURS]} | {"--search", "--reserve", "--session"}
    known = {name for action in parser()._actions for name in action.option_strings[:1] if name != "-h"}
    assert known - shown <= {"--cfg_file", "--accept-change", "--on-extend", "--until-done", "--weights-key"}


def test_the_config_may_be_a_word_of_its_own_and_has_a_default() -> None:
    assert read([CONFIG], Environment()).directory == job().directory
    assert read([], Environment()).directory == Path("output/sonar_models/focal_sst/default")


def test_the_guide_s_command_is_taken_as_it_is_written() -> None:
    words = "--cfg_file cfgs/sonar_models/focal_sst.yaml --batch_size 2 --workers 4 --epochs 80 --extra_tag baseline"
    found = read([*words.split(), "--fp16", "--logger_iter_interval", "50"], Environment())
    assert found.directory == Path("output/sonar_models/focal_sst/baseline")
    assert (found.epochs, found.steps_per_epoch, found.total_steps) == (80, 5, 400)


# -- --set -------------------------------------------------------------------------------------------------------------


def test_set_takes_several_keys_and_also_those_that_the_file_leaves_out() -> None:
    published = "cfgs/sonar_models/focal_sst.yaml"
    changed = job(
        "--set", "OPTIMIZATION.GRAD_ACCUMULATION_STEPS", 4, "OPTIMIZATION.LR", "1e-3", "CLASS_NAMES", "Box,Diver",
        config=published,
    )  # fmt: skip
    assert in_config("OPTIMIZATION.GRAD_ACCUMULATION_STEPS")(changed) == 4
    assert in_config("OPTIMIZATION.LR")(changed) == 1e-3
    assert changed.total_steps is not None and job(config=published).total_steps is not None
    assert changed.steps_per_epoch == 1 and job(config=published).steps_per_epoch == 3


def test_set_takes_a_fraction_where_the_file_has_a_whole_number() -> None:
    changed = job("--set", "OPTIMIZATION.GRAD_NORM_CLIP", 0.5, "OPTIMIZATION.DIV_FACTOR", 25)
    assert in_config("OPTIMIZATION.GRAD_NORM_CLIP")(changed) == 0.5
    assert in_config("OPTIMIZATION.DIV_FACTOR")(changed) == 25.0
    with pytest.raises(UsageError, match=r"--set OPTIMIZATION\.BATCH_SIZE_PER_GPU: .* Expected an integer like 2"):
        job("--set", "OPTIMIZATION.BATCH_SIZE_PER_GPU", 2.5)


def test_an_option_wins_over_set() -> None:
    assert job("--epochs", 3, "--set", "OPTIMIZATION.NUM_EPOCHS", 9).epochs == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["OPTIMIZATION.LRR", 1], r"there is no key `LRR` in `OPTIMIZATION`. Did you mean `LR`"),
        (["OPTIMIZATION.LR"], "keys and values come in pairs"),
        (["OPTIMIZATION.LR", "fast"], r"Expected a number like 0.004, found 'fast'"),
        (["OPTIMIZATION.LR", -1], r"Expected greater than 0, found -1"),
        (["OPTIMIZATION.LR", 1, "--epochs", 3], r"Found --epochs behind it. Put --set last"),
    ],
)
def test_mistakes_in_set(words: list[object], said: str) -> None:
    with pytest.raises(UsageError, match=said) as mistake:
        job("--set", *words)
    assert mistake.value.exit_code == 2


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batchsize", 2], r"unrecognized arguments: --batchsize. Did you mean --batch_size\?"),
        (["--extra-tag", "a"], r"Did you mean --extra_tag\?"),
        (["--epoch", 2], r"Did you mean --epochs\?"),
        (["--epochs", 0], "--epochs: expected a whole number, 1 or more, found '0'"),
        (["--epochs", "many"], "--epochs: expected .* found 'many'"),
        (["--batch_size", -2], "--batch_size: expected .* found '-2'"),
        (["--workers", "1.5"], "--workers: expected a whole number, 0 or more, found '1.5'"),
        (["--ckpt_save_time_interval", 0], "--ckpt_save_time_interval: expected a whole number, 1 or more, found '0'"),
        (["--ckpt_save_time_interval", "0.2"], "--ckpt_save_time_interval: expected a whole number, 1 .* found '0.2'"),
        (["--session", "soon"], "--session: expected a time like 12h, 90m, 1h30m, 2d or 12:00:00, found 'soon'"),
        (
            ["--session", "20s", "--reserve", "10m"],
            "--session: no time is left to train in. Expected more than the reserve",
        ),
        (["--launcher", "pytorch"], "--launcher pytorch: nothing tells this process which of how many it is"),
        (["--launcher", "slurm"], "say --processes N, or start it by torchrun"),
        (["--processes", "0"], "--processes: expected how many, 1 or more, found '0'"),
        (["--extra_tag", "a/b"], "expected the name of one folder"),
        (["--extra_tag", ".."], "expected the name of one folder"),
        (["--extra_tag", ""], r"expected TAG, found nothing. Is a variable in the command empty\? See "),
        (["--on-bad-frame", "ignore"], "choose from"),
    ],
)
def test_mistakes_are_usage_errors_that_say_what_was_meant(words: list[object], said: str) -> None:
    with pytest.raises(UsageError, match=said) as mistake:
        job(*words)
    assert mistake.value.exit_code == 2


def test_a_config_given_twice_and_one_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match=r"the config is given twice. Found cfgs/a.yaml and cfgs/sonar_models/tiny"):
        read(["cfgs/a.yaml", "--cfg_file", CONFIG], Environment())
    with pytest.raises(ConfigError, match=r"there is no such config file. Did you mean cfgs/sonar_models/tiny.yaml\?"):
        job(config="cfgs/sonar_models/tiney.yaml")
    with pytest.raises(ConfigError, match=r"There is no folder cfg/sonar_models"):
        job(config="cfg/sonar_models/tiny.yaml")


def test_a_range_that_is_no_multiple_of_the_voxels_says_which_end_would_fit() -> None:
    with pytest.raises(ConfigError, match=r"nano.yaml:\d+: .*22\.3333 cells between -8\.25 and 8\.5.* 9\.0 would fit"):
        job("--set", "DATA_CONFIG.POINT_CLOUD_RANGE", "[0, -8.25, -6, 24, 8.5, 3]")


def test_every_key_has_an_effect_of_its_own() -> None:
    effects = job().effects
    for key, effect in {
        "OPTIMIZATION.LR": Effect.SCHEDULE,
        "OPTIMIZATION.EVAL_INTERVAL": Effect.FREE,
        "DATA_CONFIG.POINT_CLOUD_RANGE": Effect.MEANING,
    }.items():
        assert effects.of(key) is effect


# -- data that is not there --------------------------------------------------------------------------------------------


def test_without_data_why_and_train_say_how_to_get_some(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "DATA_CONFIG.DATA_PATH", "nowhere/sonar"]
    asked = job("--extra_tag", "absent", *words)
    assert (asked.total_steps, asked.steps_per_epoch, asked.epochs) == (None, None, 2)
    assert main(["why", "focalsst", "--cfg_file", CONFIG, "--extra_tag", "absent", *words]) == 2
    said = capsys.readouterr().err
    with pytest.raises(UnbrokenError) as missing:
        session(asked)
    assert missing.value.exit_code == 2 and str(missing.value) == said.strip()
    assert str(missing.value).startswith("nowhere/sonar: the folder of the data does not exist")
    assert "unbroken data sonar nowhere/sonar" in str(missing.value)
    assert not list(asked.directory.rglob("*.pth"))


def test_a_data_root_that_is_there_and_lacks_its_lists_is_not_told_to_make_data_up(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file of infos") as missing:
        session(job("--set", "DATA_CONFIG.DATA_PATH", str(tmp_path)))
    assert "unbroken data sonar" not in str(missing.value)


def test_the_help_has_all_options_of_the_original_that_do_something() -> None:
    text = parser().format_help()
    for words, *_ in ORIGINAL:
        name = str(words[0])
        shown = argparse.Namespace(hidden=name[2:] in WITHOUT_EFFECT)
        assert (name in text) != shown.hidden, name


def test_a_key_without_effect_can_be_set_and_is_said_to_have_none() -> None:
    found = job("--set", "OPTIMIZATION.WARMUP_EPOCH", "5", "MODEL.BACKBONE_3D.DSVT.conv_out_channel", "64")
    assert "OPTIMIZATION.WARMUP_EPOCH (set OPTIMIZATION.PCT_START)" in found.ignored
    assert "MODEL.BACKBONE_3D.DSVT.conv_out_channel" in found.ignored


@pytest.mark.parametrize("typed", ["13", "-1", "x", "1.5"])
def test_a_number_of_pictures_that_makes_no_sense_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="expected how many, 0 to 12"):
        job(f"--pictures={typed}")
