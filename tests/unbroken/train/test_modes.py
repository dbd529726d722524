"""Which modules train and which evaluate is state: a session begins with the modes in which the one before ended."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

from tests.unbroken.train.test_boundaries import Here, Parts, Points, twin_of_peace
from unbroken.train import Exit, TrainingRun, differences, evaluating, open_run, read_checkpoint
from unbroken.train.state.modes import Modes, put_modes


def left_in_evaluation(run: TrainingRun, here: Here) -> None:
    """A validation of the fourth step and of the eleventh leaves everything in evaluation mode."""
    parts = Parts(run)
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        run.log(loss=parts.step(batch))
        if run.step in (4, 11):
            parts.model.eval()
        here("step")


def frozen_from_the_second_epoch_on(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        run.log(loss=parts.step(batch))
        if run.step == 6:
            parts.model[1].eval()
        here("step")


def in_training_from_a_frozen_start(run: TrainingRun, here: Here) -> None:
    """A layer is frozen where the run begins, and thawed in the loop, once."""
    parts = Parts(run)
    if run.step == 0:
        parts.model[1].eval()
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        run.log(loss=parts.step(batch))
        if run.step == 5:
            parts.model.train()
        here("step")


def stopped_inside_a_validation(run: TrainingRun, here: Here) -> None:
    """A stop between `eval()` and `train()` keeps the modes of the boundary, and the loop never says `train()` else."""
    parts = Parts(run)

    def validate() -> None:
        if run.evaluation_due(every=3):
            with evaluating(parts.model):
                here("validation")
                run.poll()
                run.record_evaluation(value=float(parts.model(torch.rand(4, 1)).detach().mean()))

    for batch in run.batches(Points(), batch_size=4, epochs=3, between=validate):
        run.log(loss=parts.step(batch))
        here("step")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    ("loop", "place"),
    [
        (left_in_evaluation, "step"),
        (frozen_from_the_second_epoch_on, "step"),
        (in_training_from_a_frozen_start, "step"),
        (stopped_inside_a_validation, "validation"),
    ],
)
def test_a_mode_survives_a_kill_and_a_stop(tmp_path: Path, loop: Any, place: str, number: int) -> None:
    turns = (2, 2) if place == "validation" else (8, 5)
    twin_of_peace(tmp_path, loop, place, turns, number)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)), nn.Linear(2, 1))


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def in_evaluation(model: nn.Module) -> None:
    model.eval()


def frozen_norm(model: Any) -> None:
    model[1][0].eval()


def all_but_the_last(model: Any) -> None:
    model.eval()
    model[2].train()


def only_the_outer(model: Any) -> None:
    model.training = False


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda model: None, []),
        (in_evaluation, [""]),
        (frozen_norm, ["1.0"]),
        (all_but_the_last, ["", "2"]),
        (only_the_outer, ["", "0", "1", "2"]),
    ],
)
@pytest.mark.parametrize("before", [in_evaluation, frozen_norm, lambda model: None])
def test_the_modes_are_kept_in_few_words_and_put_back_over_any_other(
    change: Callable[[Any], None], kept: list[str], before: Callable[[Any], None]
) -> None:
    saved, fresh = network(), network()
    change(saved)
    before(fresh)
    switches = Modes({"model": saved, "counters": {"a": 1}}).switches()
    assert switches == {"model": kept}
    differ = modes(fresh) != modes(saved)
    said = list(put_modes({"model": fresh, "counters": {}}, switches))
    assert modes(fresh) == modes(saved) and bool(said) is differ, said


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_modes_are_kept_under_names_without_wrappers(wrap: Callable[[Any], Any]) -> None:
    bare, inner = network(), network()
    frozen_norm(bare)
    (said,) = put_modes({"model": wrap(inner)}, Modes({"model": bare}).switches())
    assert said == "model.1.0: in evaluation mode as when it was saved, not as it was built"
    assert modes(inner) == modes(bare)
    assert Modes({"model": wrap(inner)}).switches() == {"model": ["1.0"]}


def test_a_file_without_modes_leaves_them_as_they_were_built_and_a_module_that_is_gone_is_said() -> None:
    model = network()
    frozen_norm(model)
    before = modes(model)
    assert list(put_modes({"model": model}, {})) == [] and modes(model) == before
    thawed, gone = put_modes({"model": model}, {"model": ["5.drop"], "other": [""]})
    assert thawed == "model.1.0: in training mode as when it was saved, not as it was built"
    assert gone.startswith("model.5.drop is not here any more")


def test_what_the_loop_says_after_track_counts(tmp_path: Path) -> None:
    def session(*, thaw: bool) -> list[bool]:
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        try:
            with open_run(tmp_path, tag="t", save_every_s=None) as run:
                run.track(model=model, optimizer=optimizer)
                if thaw:
                    model.train()
                for _ in run.steps(4):
                    model(torch.ones(2, 2)).sum().backward()
                    optimizer.step()
                    if not thaw:
                        model.eval()
                        run.stop("the test")
        except Exit:
            pass
        return modes(model)

    assert not any(session(thaw=False))
    assert all(session(thaw=True))


def test_evaluating_leaves_each_module_in_its_mode_whatever_happens_inside() -> None:
    model = network()
    frozen_norm(model)
    before = modes(model)
    with pytest.raises(KeyError), evaluating(model):
        assert not any(modes(model))
        model.train()
        raise KeyError
    assert modes(model) == before


def put_into_a_list(model: Any, layer: nn.Module) -> None:
    model[1].insert(0, layer)


def set_in_place_of_another(model: Any, layer: nn.Module) -> None:
    model[1][0] = layer


def added_to_a_leaf(model: Any, layer: nn.Module) -> None:
    model[0].register_module("adapter", layer)


def put_where_none_was(model: Any, layer: nn.Module) -> None:
    model[1]._modules["late"] = layer


@pytest.mark.parametrize(
    ("add", "kept"),
    [
        (put_into_a_list, "1.0"),
        (set_in_place_of_another, "1.0"),
        (added_to_a_leaf, "0.adapter"),
        (put_where_none_was, "1.late"),
    ],
)
def test_the_mode_of_a_module_that_comes_in_mid_run_is_kept(
    tmp_path: Path, add: Callable[[Any, nn.Module], None], kept: str
) -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with open_run(tmp_path, tag="t", save_every_s=None) as run:
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(4):
            model(torch.ones(2, 2)).sum().backward()
            optimizer.step()
            if step == 1:
                add(model, nn.Dropout(0.3).eval())
    assert read_checkpoint(tmp_path / "t/iter_4.pth")["unbroken"]["modes"] == {"model": [kept]}


@pytest.mark.filterwarnings("ignore")  # torch announces another home of its quantisation
def test_what_quantisation_aware_training_turns_on_and_off_is_as_it_was(tmp_path: Path) -> None:
    from torch.ao import quantization

    def session(folder: str, *, until: int = 9) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(quantization.QuantStub(), nn.Linear(2, 2), quantization.DeQuantStub())
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
        quantization.prepare_qat(model, inplace=True)
        model(torch.ones(2, 2))
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        turned = {1: quantization.disable_fake_quant, 2: quantization.disable_observer, 6: quantization.enable_observer}
        with suppress(Exit), open_run(tmp_path / folder, tag="t", save_every_s=None) as run:
            run.track(model=model, optimizer=optimizer)
            for step in run.steps(9):
                model.apply(turned.get(step, id))
                model(torch.randn(2, 2)).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                if run.step == until - 1:
                    run.stop("the test")

    for until in (4, 8, 9):
        session("cut", until=until)
    session("peace", until=0)
    one, other = (read_checkpoint(tmp_path / name / "t/iter_9.pth") for name in ("peace", "cut"))
    assert not differences(one["state_dict"], other["state_dict"])
