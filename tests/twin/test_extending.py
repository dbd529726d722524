"""A finished training made longer: what the optimizer really used, killed or not, once and twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from focalsst.recipes import read as read_sonar
from focalsst.schedule import OneCycle
from mapsage.recipes import read as read_aerial
from mapsage.schedule import phases_of
from tests.mapsage.schedules import learning_rates
from tests.twin import aerial, sonar
from tests.twin.killing import assert_twins, events, kill_after_steps, lines_in, python, run_to_end, step_records
from unbroken import Job
from unbroken.launch import Environment, Resume, decide, gather
from unbroken.launch.extension import POLICIES
from unbroken.train import differences, read_checkpoint, run_job

PER_EPOCH, FRAMES = 10, 20


class Quiet:
    """A console that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, _report: Any, _line: str) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def watched(of_group: Callable[[dict[str, Any]], float]) -> Iterator[list[list[float]]]:
    """What every optimizer step in here uses, for each parameter group."""
    used: list[list[float]] = []
    depth = [0]  # a step that calls that of its parent class is one step, though torch's hooks may see two

    def before(optimizer: Optimizer, *_: object) -> None:
        if depth[0] == 0:
            used.append([of_group(group) for group in optimizer.param_groups])
        depth[0] += 1

    def after(*_: object) -> None:
        depth[0] -= 1

    handles = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    try:
        yield used
    finally:
        for handle in handles:
            handle.remove()


def lr(group: dict[str, Any]) -> float:
    return float(group["lr"])


def trained(job: Job, of_group: Callable[[dict[str, Any]], float] = lr) -> tuple[list[list[float]], Quiet]:
    torch.set_num_threads(1)
    console = Quiet()
    with watched(of_group) as used:
        run_job(job, console)
    return used, console


def extended(job: Job) -> Resume:
    """The plan, which has to be an extension."""
    plan = decide(job, gather(job))
    assert isinstance(plan, Resume) and plan.extension is not None
    return plan


# -- the sonar detector ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sonar_finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sonar training that ended after two epochs."""
    folder = tmp_path_factory.mktemp("sonar")
    sonar.write_job(folder, frames=FRAMES, epochs=2, pasting=False)
    trained(sonar_job(folder, epochs=2))
    return folder


def sonar_arguments(folder: Path, *, epochs: int, tag: str = "run", policy: str = "") -> list[str]:
    return [
        *("--cfg_file", str(folder / "cfgs/sonar_models/tiny.yaml"), "--output", str(folder / "output")),
        *("--epochs", str(epochs), "--workers", "0", "--eval_interval", "0", "--extra_tag", tag),
        *("--pictures", "0"),
        *(["--on-extend", policy] if policy else []),
    ]


def sonar_job(folder: Path, **asked: Any) -> Job:
    return read_sonar(sonar_arguments(folder, **asked), Environment())


def sonar_copy(finished: Path, tag: str) -> Path:
    runs = finished / "output/sonar_models/tiny"
    shutil.copytree(runs / "run", runs / tag)
    return runs / tag


def sonar_cycle(epochs: int) -> OneCycle:
    return OneCycle(horizon=epochs * PER_EPOCH, lr=0.004)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_sonar_optimizer_uses_what_the_plan_says(sonar_finished: Path, policy: str) -> None:
    sonar_copy(sonar_finished, policy)
    job = sonar_job(sonar_finished, epochs=4, tag=policy, policy=policy)
    plan = extended(job)
    old, new = sonar_cycle(2), sonar_cycle(4)

    def expected(at: Callable[[OneCycle, int], float]) -> list[float]:
        start = at(old, 20)
        match policy:
            case "stretch":
                return [at(new, step) for step in range(20, 40)]
            case "hold":
                return [start] * 20
            case "rewarm":  # one step of warm-up, half the way
                return [start / 2 + at(new, 21) / 2, *(at(new, step) for step in range(21, 40))]
        return [at(new, step * 39 // 19) for step in range(20)]

    used, console = trained(job, lambda group: complex(group["lr"], group["betas"][0]))  # type: ignore[arg-type,return-value]

    rates, momenta = [[pair[0].real for pair in used], [pair[0].imag for pair in used]]
    assert all(set(pair) == {pair[0]} for pair in used)
    assert rates == pytest.approx(expected(OneCycle.lr_at), rel=1e-12)
    assert momenta == pytest.approx(expected(OneCycle.momentum_at), rel=1e-12)
    assert (plan.lr_next, plan.curves[0].lr_first) == (rates[0], rates[0])
    assert plan.curves[0].lr_peak == max(rates) == rates[plan.curves[0].peak_step - 21]
    assert plan.curves[0].lr_end == rates[-1]
    assert any(f"extended from 20 to 40 steps by {policy}" in line for line in console.lines)


def test_the_sonar_run_is_extended_twice(sonar_finished: Path) -> None:
    sonar_copy(sonar_finished, "twice")
    trained(sonar_job(sonar_finished, epochs=3, tag="twice", policy="hold"))
    again = sonar_job(sonar_finished, epochs=4, tag="twice", policy="rewarm")
    assert extended(again).extension.seam == 30  # type: ignore[union-attr]
    held, new = sonar_cycle(2).lr_at(20), sonar_cycle(4)
    used, _ = trained(again)
    assert [rates[0] for rates in used] == pytest.approx(
        [held / 2 + new.lr_at(31) / 2, *(new.lr_at(step) for step in range(31, 40))], rel=1e-12
    )


def test_a_run_that_is_not_finished_goes_over_to_the_longer_schedule(sonar_finished: Path) -> None:
    run = sonar_copy(sonar_finished, "early")
    job = read_sonar(
        [*sonar_arguments(sonar_finished, epochs=4, tag="early"), "--ckpt", str(run / "ckpt/checkpoint_epoch_1.pth")],
        Environment(),
    )
    plan = decide(job, gather(job))
    assert isinstance(plan, Resume)
    assert (plan.extension, plan.curves) == (None, ())
    used, _ = trained(job)
    assert [rates[0] for rates in used] == [sonar_cycle(4).lr_at(step) for step in range(10, 40)]


def test_a_killed_sonar_extension_ends_as_one_that_nobody_touched(sonar_finished: Path) -> None:
    policy, other = "rewarm", "hold"
    run, twin = (sonar_copy(sonar_finished, f"{policy}_{name}") for name in ("killed", "twin"))

    def command(place: Path, wish: str) -> list[str]:
        arguments = sonar_arguments(sonar_finished, epochs=4, tag=place.name, policy=wish)
        return python("-m", "unbroken", "train", "focalsst", *arguments)

    before = lines_in(run / "unbroken/metrics.jsonl")
    kill_after_steps(run, command(run, policy), steps=before + 5)  # before the first save of the extended run
    assert len(events(run, "finished")) == 1
    kill_after_steps(run, command(run, policy), steps=lines_in(run / "unbroken/metrics.jsonl") + 13)
    assert len(events(run, "finished")) == 1
    last = run_to_end(command(run, other))
    assert last.returncode == 0, last.output
    assert f"--on-extend {other} changes nothing: this run was extended by {policy} at step 20" in last.output
    assert run_to_end(command(twin, policy)).returncode == 0
    assert_twins(run, twin, "ckpt/checkpoint_epoch_4.pth")


# -- the aerial application --------------------------------------------------------------------------------------------

SEAM, TOTAL = 10, 40


@pytest.fixture(scope="module")
def aerial_finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an aerial training of ten steps, whose last rate is 0, with two parameter groups."""
    folder = tmp_path_factory.mktemp("aerial")
    config = aerial.write_job(folder, steps=SEAM)
    text = config.read_text().replace(f"{SEAM} + 4", "_steps").replace(f"max_iters={SEAM}", "max_iters=_steps")
    text = text.replace("end=8", "end=4").replace("begin=8", "begin=4").replace("val_interval=9", "val_interval=1000")
    text = text.replace("accumulative_counts=2", "paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0)))")
    for steps in (SEAM, 20, TOTAL):
        (folder / f"to_{steps}.py").write_text(f"_steps = {steps}\n{text}")
    (folder / "ended.py").write_text(f"_steps = {SEAM}\n{text}".replace("max_iters=_steps", f"max_iters={TOTAL}"))
    trained(aerial_job(folder, f"to_{SEAM}"))
    return folder


def aerial_arguments(folder: Path, config: str, tag: str = "run", policy: str = "") -> list[str]:
    wish = ["--on-extend", policy] if policy else []
    place = ["--tag", "run", "--work-dir", str(folder / "runs" / tag), "--pictures", "0"]
    return [str(folder / f"{config}.py"), *place, *wish]


def aerial_job(folder: Path, config: str, tag: str = "run", policy: str = "") -> Job:
    return read_aerial(aerial_arguments(folder, config, tag, policy), Environment())


def aerial_copy(finished: Path, tag: str) -> Path:
    return Path(shutil.copytree(finished / "runs/run", finished / "runs" / tag))


def scheduled(job: Job) -> list[float]:
    config = job.options.own
    return learning_rates(config.optim_wrapper.optimizer.lr, phases_of(config), TOTAL + 1)


def aerial_expected(policy: str, new: list[float], seam: int, start: float) -> list[float]:
    added = TOTAL - seam
    warmup = round(0.05 * added)
    match policy:
        case "stretch":
            return new[seam:TOTAL]
        case "rewarm":
            target = new[seam + warmup]
            line = [start + (target - start) * (i + 1) / (warmup + 1) for i in range(warmup)]
            return [*line, *new[seam + warmup : TOTAL]]
    return [new[step * (TOTAL - 1) // (added - 1)] for step in range(added)]


@pytest.mark.parametrize("policy", ["rewarm", "stretch", "restart"])
def test_every_group_of_the_aerial_optimizer_uses_what_the_policy_says(aerial_finished: Path, policy: str) -> None:
    aerial_copy(aerial_finished, policy)
    job = aerial_job(aerial_finished, f"to_{TOTAL}", policy, policy)
    plan = extended(job)
    assert plan.extension is not None and plan.extension.lr == 0
    used, _ = trained(job)
    expected = aerial_expected(policy, scheduled(job), SEAM, 0.0)
    assert len(used) == TOTAL - SEAM
    tens = [10.0 if abs(group - 10 * used[0][0]) < 1e-12 else 1.0 for group in used[0]]
    assert set(tens) == {1.0, 10.0}
    for group, times in enumerate(tens):
        assert [rates[group] for rates in used] == pytest.approx([times * rate for rate in expected], rel=1e-9)
    assert plan.curves[0].lr_first == used[0][0]
    assert plan.curves[0].lr_peak == pytest.approx(max(rates[0] for rates in used))
    assert [record["lr"] for record in step_records(job.directory).values()][SEAM:] == [rates[0] for rates in used]


def test_nothing_is_trained_at_a_learning_rate_of_zero(aerial_finished: Path) -> None:
    aerial_copy(aerial_finished, "zero")
    for config, policy, ways in (
        (f"to_{TOTAL}", "hold", ["--on-extend rewarm", "--on-extend stretch", "--on-extend restart"]),
        ("ended", "", ["--on-extend restart"]),
        ("ended", "stretch", ["--on-extend restart"]),
    ):
        job = aerial_job(aerial_finished, config, "zero", policy)
        plan = decide(job, gather(job))
        assert plan.name == "Refuse"
        assert [way.split("  ")[0] for way in plan.ways_out if "on-extend" in way] == ways  # type: ignore[union-attr]


def test_a_restart_of_a_schedule_that_was_not_made_longer_spreads_it_over_all_added_steps(
    aerial_finished: Path,
) -> None:
    aerial_copy(aerial_finished, "ended")
    job = aerial_job(aerial_finished, "ended", "ended", "restart")
    used, _ = trained(job)
    new = scheduled(job)
    assert [rates[0] for rates in used] == [new[step * 9 // 29] for step in range(30)]


def test_the_aerial_run_is_extended_twice(aerial_finished: Path) -> None:
    aerial_copy(aerial_finished, "twice")
    trained(aerial_job(aerial_finished, "to_20", "twice", "restart"))
    job = aerial_job(aerial_finished, f"to_{TOTAL}", "twice")
    plan = extended(job)
    assert plan.extension is not None
    assert (plan.extension.seam, plan.extension.policy) == (20, "rewarm")
    used, _ = trained(job)
    expected = aerial_expected("rewarm", scheduled(job), 20, plan.extension.lr)
    assert [rates[0] for rates in used] == pytest.approx(expected, rel=1e-9)


def test_a_schedule_that_was_longer_all_along_goes_on_as_if_it_had_never_ended(aerial_finished: Path) -> None:
    """`max_iters` raised in two portions, and at once: the same run, bit for bit."""
    evaluated = ["--cfg-options", "train_cfg.val_interval=10"]  # also where a portion ends
    for tag, more in (("pieces", ["train_cfg.max_iters=20"]), ("pieces", []), ("whole", [])):
        job = read_aerial([*aerial_arguments(aerial_finished, f"to_{TOTAL}", tag), *evaluated, *more], Environment())
        if more == [] and tag == "pieces":
            plan = decide(job, gather(job))
            assert isinstance(plan, Resume) and plan.extension is None
        trained(job)
    pieces, whole = aerial_finished / "runs/pieces", aerial_finished / "runs/whole"
    file = f"iter_{TOTAL}.pth"
    assert differences(read_checkpoint(pieces / file), read_checkpoint(whole / file)) == []
    assert step_records(pieces) == step_records(whole)


def test_a_killed_aerial_extension_ends_as_one_that_nobody_touched(aerial_finished: Path) -> None:
    policy = "restart"
    run, twin = (aerial_copy(aerial_finished, f"{policy}_{name}") for name in ("killed", "twin"))

    def command(place: Path) -> list[str]:
        arguments = aerial_arguments(aerial_finished, f"to_{TOTAL}", place.name, policy)
        return python("-m", "unbroken", "train", "mapsage", *arguments)

    for more in (1, 8, 10):
        kill_after_steps(run, command(run), steps=lines_in(run / "unbroken/metrics.jsonl") + more)
        assert len(events(run, "finished")) == 1
    assert run_to_end(command(run)).returncode == 0
    assert run_to_end(command(twin)).returncode == 0
    assert_twins(run, twin, f"iter_{TOTAL}.pth")
