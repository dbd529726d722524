"""A step that runs out of memory is done again in smaller parts, without a trace of the failed attempt."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.twin.frail import SIZE, STEPS, build, read
from tests.twin.killing import assert_twins, events, step_records
from tests.unbroken.train.frail_sessions import fitted, losses, samples, session
from unbroken.errors import Refused, UsageError
from unbroken.launch import Environment
from unbroken.train import read_checkpoint
from unbroken.train.dividing import divided, even_slices, samples_in
from unbroken.train.memory import Division, division_at, is_out_of_memory, learned, smaller

ALLOCATORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("could not create a primitive"),  # oneDNN on a CPU, in a convolution
    MemoryError(),
]


@pytest.mark.parametrize("error", ALLOCATORS)
def test_what_allocators_say_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")]
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("size", range(1, 13))
def test_slices_are_even_in_order_and_cover_everything(size: int) -> None:
    for parts in range(1, size + 1):
        lengths = [piece.stop - piece.start for piece in even_slices(size, parts)]
        assert sum(lengths) == size and max(lengths) - min(lengths) <= 1
        assert max(lengths) == -(-size // parts)


def test_a_batch_as_torch_collates_it_is_divided_with_everything_in_it() -> None:
    batch = [torch.arange(5), {"x": torch.arange(10).view(5, 2), "name": ["a", "b", "c", "d", "e"]}, torch.tensor(3.0)]
    assert samples_in(batch) == 5
    one, two = divided(batch, 2)
    assert one[0].tolist() == [0, 1] and two[0].tolist() == [2, 3, 4]
    assert (one[1]["x"].shape, one[1]["name"], two[1]["name"]) == ((2, 2), ["a", "b"], ["c", "d", "e"])
    assert two[2] == 3.0
    with pytest.raises(UsageError, match="Give the Task `count` and `split`"):
        samples_in(["text"])


def test_halving_goes_down_to_one_sample_and_then_to_checkpointing() -> None:
    tried, present, largest = [], None, 5
    while (less := smaller(largest, present, step=7, can_recompute=True)) is not None:
        tried.append((less.micro_batch, less.recompute))
        present, largest = less, less.micro_batch
    assert tried == [(3, False), (2, False), (1, False), (1, True)]
    assert smaller(1, None, step=7, can_recompute=False) is None


def test_what_was_learned_holds_from_its_step_on() -> None:
    told = [{"event": "oom", "step": 9, "after": 1}, {"event": "oom", "step": 2, "after": 3}, {"event": "saved"}]
    known = learned([{"step": 4, "micro_batch": 2, "recompute": False}], told, after=5)
    assert [division_at(known, step) for step in (3, 4)] == [None, Division(step=4, micro_batch=2)]
    assert division_at(known, 9) == Division(step=4, micro_batch=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_steps_equal_those_of_an_accumulation_from_the_start(tmp_path: Path, workers: int) -> None:
    plain = ["--no-norm", "--workers", workers]
    session(tmp_path / "small", *plain, "--batch", 2, "--accumulate", 2)
    code, said = session(tmp_path / "halved", *plain, "--memory", 2)
    assert code == 0 and said.count("out of memory in step 1 with 4 samples at once (CUDA out of memory. Tried") == 1
    assert "step 1 is repeated with at most 2 samples at once: the same samples, the same random state" in said
    small, halved = step_records(tmp_path / "small"), step_records(tmp_path / "halved")
    assert samples(small) == samples(halved) and list(halved) == list(range(1, STEPS + 1))
    torch.testing.assert_close(losses(halved), losses(small), rtol=1e-5, atol=1e-6)
    weights = [read_checkpoint(tmp_path / name / "iter_16.pth")["state_dict"] for name in ("small", "halved")]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


def test_and_those_of_the_undivided_batch_also_in_unequal_parts(tmp_path: Path) -> None:
    plain = ["--no-norm", "--batch", 5, "--accumulate", 2]
    session(tmp_path / "whole", *plain)
    session(tmp_path / "parts", *plain, "--memory", 2, "--memory-from", 4)
    whole, parts = step_records(tmp_path / "whole"), step_records(tmp_path / "parts")
    assert samples(whole) == samples(parts)
    torch.testing.assert_close(losses(parts), losses(whole), rtol=1e-4, atol=1e-6)
    told = [(event["step"], event["before"], event["after"]) for event in events(tmp_path / "parts", "oom")]
    assert told == [(4, 5, 3), (4, 3, 2)]


def test_running_statistics_count_no_failed_attempt(tmp_path: Path) -> None:
    session(tmp_path / "run", "--memory", 2, "--memory-from", 5)
    state = read_checkpoint(tmp_path / "run/iter_16.pth")["state_dict"]
    assert int(state["norm.num_batches_tracked"]) == 4 + 2 * 12


@pytest.mark.parametrize("crash", ["raise@7", "raise@11"])
def test_a_run_cut_off_after_it_ran_out_is_its_twin_whether_or_not_memory_runs_out_again(
    tmp_path: Path, crash: str
) -> None:
    """The checkpoint of step 6 knows nothing of step 7 yet, the journal does; that of step 9 knows by itself."""
    shaky = ["--dropout", 0.3, "--accumulate", 2]
    scarce = ["--memory", 2, "--memory-from", 7 if crash == "raise@11" else 6]
    session(tmp_path / "whole", *shaky, *scarce)
    with pytest.raises(ValueError, match="the training code is wrong"):
        session(tmp_path / "cut", *shaky, *scarce, "--crash", crash)
    code, said = session(tmp_path / "cut", *shaky)
    assert code == 0 and "out of memory in" not in said
    assert_twins(tmp_path / "cut", tmp_path / "whole", "iter_16.pth")


def test_a_run_goes_on_as_it_learned_from_its_checkpoint_alone(tmp_path: Path) -> None:
    shaky = ["--dropout", 0.3]
    session(tmp_path / "whole", *shaky, "--memory", 2, "--memory-from", 4)
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "whole/iter_6.pth", tmp_path / "alone")
    code, said = session(tmp_path / "alone", *shaky)
    assert code == 0
    assert "at most 2 samples at once: learned in step 4, where memory ran out; --on-oom fail takes whole" in said
    after = {step: record for step, record in step_records(tmp_path / "whole").items() if step > 6}
    assert step_records(tmp_path / "alone") == after


def test_fail_ends_with_an_explanation_and_what_was_done_saved(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(
        Refused, match=r"(?s)step 6: memory ran out with 4 samples at once; .*--on-oom fail.*Tried"
    ) as bad:
        session(run, "--memory", 2, "--memory-from", 6, "--on-oom", "fail", "--save-every", 100)
    assert "the state after step 5 is saved" in str(bad.value) and bad.value.exit_code == 10
    session(tmp_path / "whole", "--save-every", 5)
    mine, its = (read_checkpoint(folder / "iter_5.pth") for folder in (run, tmp_path / "whole"))
    torch.testing.assert_close(mine["state_dict"], its["state_dict"], rtol=0, atol=0)
    assert mine["unbroken"]["position"] == its["unbroken"]["position"] == SIZE
    assert session(run, "--memory", 2)[0] == 0


def test_fail_forgets_what_was_learned(tmp_path: Path) -> None:
    session(tmp_path / "run", "--memory", 2, "--steps", 6)
    code, said = session(tmp_path / "run", "--on-oom", "fail", "--steps", 8)
    assert code == 0 and "at once" not in said
    assert [record["size"] for record in step_records(tmp_path / "run").values()] == [2.0] * 6 + [4.0] * 2
    assert read_checkpoint(tmp_path / "run/iter_8.pth")["unbroken"]["divisions"] == []


def test_where_nothing_fits_it_says_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match="memory ran out with 1 sample at once; it cannot be divided further, the network"
    ):
        session(tmp_path / "run", "--no-norm", "--memory", 0, "--memory-from", 3)
    assert [event["after"] for event in events(tmp_path / "run", "oom")] == [2, 1]
    assert (tmp_path / "run/iter_2.pth").exists()


def test_out_of_memory_while_the_optimizer_steps_cannot_be_undone_and_is_not_saved(tmp_path: Path) -> None:
    task = build(read([str(tmp_path / "run")], Environment()), print)

    def fail(*_: Any) -> None:
        if task.schedule.last_epoch == 4:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory")

    task.optimizer.register_step_pre_hook(fail)
    with pytest.raises(Refused, match="step 5: memory ran out while the optimizer changed the weights"):
        fitted(tmp_path / "run", task)
    assert not list((tmp_path / "run").glob("iter_*.pth"))


def test_a_gradient_scaler_is_as_if_the_step_had_been_tried_once(tmp_path: Path) -> None:
    found = {}
    for name, memory in (("whole", 10), ("halved", 2)):
        words = [str(tmp_path / name), "--no-norm", "--memory", str(memory), "--memory-from", "3", "--steps", "8"]
        torch.manual_seed(0)  # it is built before its run is opened, which seeds what is built after
        task = build(read(words, Environment()), print)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
        task = replace(task, gradients=replace(task.gradients, scaler=scaler))
        fitted(tmp_path / name, task, *words[1:])
        assert task.gradients.scaler is not None
        found[name] = (task.gradients.scaler.state_dict(), task.model.state_dict())
    assert found["whole"][0] == found["halved"][0]
    torch.testing.assert_close(found["halved"][1], found["whole"][1], rtol=1e-4, atol=1e-6)


def test_where_the_network_can_recompute_that_is_the_last_resort(tmp_path: Path) -> None:
    task = build(read([str(tmp_path / "run"), "--no-norm"], Environment()), print)
    saves = False
    loss = task.loss

    def switch_on() -> None:
        nonlocal saves
        saves = True

    def hungry(batch: Tensor) -> Any:
        if not saves:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(batch)

    said = fitted(
        tmp_path / "run",
        replace(task, loss=hungry, gradients=replace(task.gradients, recompute=switch_on)),
        "--no-norm",
    )
    assert "step 1 is repeated with at most 1 sample at once, with gradient checkpointing" in said
    told = [(event["after"], event["recompute"]) for event in events(tmp_path / "run", "oom")]
    assert told == [(2, False), (1, False), (1, True)]
