"""Two twins are equal only where every record and every tensor is: each kind of difference alone is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unbroken.prove.comparison import compare
from unbroken.prove.twin import RunSeen, Twin

Change = Callable[[dict[int, Any], dict[int, Any], dict[str, Any]], object]


def twin(folder: Path, change: Change = lambda *_: None) -> Twin:
    """Four steps, of which two were evaluated, and the state after the last one."""
    steps: dict[int, Any] = {
        number: {"step": number, "samples": [number], "loss": (number - 1) / 4, "weights_crc32": number}
        for number in range(1, 5)
    }
    evaluations: dict[int, Any] = {number: {"evaluation": {"mIoU": 10.0 * number}} for number in (2, 4)}
    state: dict[str, Any] = {"model": {"weight": torch.ones(2), "bias": torch.zeros(1)}}
    change(steps, evaluations, state)
    folder.mkdir()
    torch.save(state, folder / "iter_4.pth")
    run = RunSeen(
        name="run",
        steps=steps,
        evaluations=evaluations,
        reached=4,
        resumed=(1,),
        checkpoint=folder / "iter_4.pth",
        keys={"model": "model"},
    )
    return Twin(runs=(run,), kills=(), sessions=(), is_over=True)


CHANGES: dict[str, tuple[Change, str]] = {
    "the samples of a step": (lambda steps, *_: steps[3].update(samples=[9]), "step 3 (step 2 after a resume): other"),
    "a value of a step": (lambda steps, *_: steps[3].update(loss=0.25), "loss 0.25 instead of 0.5"),
    "the sign of nothing": (lambda steps, *_: steps[1].update(loss=-0.0), "step 1: loss -0.0 instead of 0.0"),
    "a value that only one logged": (lambda steps, *_: steps[2].update(lr=0.1), "lr is logged in one of them only"),
    "the probe of the weights": (lambda steps, *_: steps[4].update(weights_crc32=9), "step 4 (step 3 after a resume)"),
    "a step": (lambda steps, *_: steps.pop(4), "only the first has it"),
    "what an evaluation found": (
        lambda _, found, *__: found[4]["evaluation"].update(mIoU=41.0),
        "evaluation, mIoU 41.0",
    ),
    "an evaluation": (lambda _, found, *__: found.pop(2), "evaluation, mIoU 'not done' instead of 20.0"),
    "an evaluation more": (lambda _, found, *__: found.update({3: found[2]}), "evaluation, mIoU 20.0 instead of"),
    "a tensor of the last state": (lambda *facts: facts[2]["model"]["bias"].add_(1e-9), "model.bias"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_twins_that_differ_in_one_thing_are_not_equal(tmp_path: Path, change: Any, words: str) -> None:
    found = compare(twin(tmp_path / "one"), twin(tmp_path / "other", lambda *facts: change(*facts)))
    assert not found.equal
    assert words in "\n".join([str(found.first or ""), *found.state])


def test_twins_that_differ_in_nothing_are_equal_and_all_of_them_is_counted(tmp_path: Path) -> None:
    found = compare(twin(tmp_path / "one"), twin(tmp_path / "other"))
    assert found.equal and (found.steps, found.tensors, found.values, found.values_differ) == (4, 2, 6, 0)
