"""A file that cannot begin a run, or not strictly: it is said why, and neither the model nor the run has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unbroken.train.weight_files import (
    KNOWN,
    RUN,
    Classifier,
    contents,
    mmengine,
    new_classifier,
    same,
    saved,
    session,
    tune,
    weights,
    write_safetensors,
)
from unbroken.errors import UsageError
from unbroken.train import open_run, preserved


@pytest.fixture(autouse=True)
def _streams_threads_and_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    with preserved():
        yield
    torch.set_num_threads(threads)


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


def flipped(path: Path) -> Path:
    """Damaged in the numbers of its first tensor, whole in everything else."""
    data = bytearray(path.read_bytes())
    data[data.index(weights()["body.0.weight"].numpy().tobytes()) + 5] ^= 0x10
    path.write_bytes(data)
    return path


def twice(path: Path) -> Path:
    """A header with two entries of one name, which readers of JSON take for one."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    text = raw[8:end].replace(b'"head.bias"', b'"body.0.bias"')
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[end:])
    return path


REFUSED: dict[str, tuple[Callable[[], Path], int, str]] = {
    "nothing fits": (lambda: saved({"conv.weight": torch.ones(2)}), 10, "not one tensor of this file fits the model"),
    "another width": (lambda: saved(weights(width=6) | {"head.bias": torch.ones(1)}), 13, "do not fit the model"),
    "two entries": (
        lambda: saved(weights() | {"module.head.bias": torch.ones(4)}),
        12,
        "two entries of the weights mean this one tensor",
    ),
    "two entries, safetensors": (lambda: twice(write_safetensors(Path("a.safetensors"), weights())), 12, "twice"),
    "numbers damaged": (lambda: flipped(saved(weights())), 12, "file.pth"),
    "cut off": (lambda: cut(saved(weights())), 12, "file.pth"),
    "cut off, safetensors": (lambda: cut(write_safetensors(Path("a.safetensors"), weights())), 12, "cut off"),
    "a list": (lambda: saved([torch.ones(2)]), 2, "the file holds no weights by name"),
    "a whole model": (lambda: saved(Classifier(4)), 2, "Save model.state_dict(), not the model itself"),
    "no tensors": (lambda: saved({"model": {"note": "none"}}), 2, "the file holds no weights by name"),
    "no file": (lambda: Path("nowhere.pth"), 2, "there is no such file"),
}
STRICTLY: dict[str, Callable[[], dict[str, Any]]] = {
    "one missing": lambda: {name: tensor for name, tensor in weights().items() if name != "head.bias"},
    "one misfit": lambda: weights() | {"head.bias": torch.ones(5)},
    "one unused": lambda: weights() | {"more": torch.ones(1)},
    "a class that is new": lambda: mmengine(weights(), ("water", "road", "forest", "barren")),
}


@pytest.fixture
def history() -> dict[str, str]:
    """A run with checkpoints, which `--fresh` would move aside."""
    assert tune(saved(weights(seed=1), "first.pth"), steps=4, save_every=2)[0] == 0
    return contents(RUN)


@pytest.mark.parametrize(("make", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_a_refused_file_changes_neither_the_model_nor_the_run(
    history: dict[str, str], make: Callable[[], Path], code: int, words: str
) -> None:
    found, said, left = tune(make(), fresh=True)
    assert (found, words in said) == (code, True), said
    assert not left or same(left, new_classifier(4))
    assert contents(RUN) == history


@pytest.mark.parametrize("make", STRICTLY.values(), ids=STRICTLY)
def test_strict_refuses_what_would_be_left_over_with_the_table(
    history: dict[str, str], make: Callable[[], dict[str, Any]]
) -> None:
    code, said, left = tune(saved(make()), fresh=True, strict=True)
    assert code == 13
    assert "nothing was loaded:" in said and "group" in said and "fine-tune without strict" in said
    assert same(left, new_classifier(4))
    assert contents(RUN) == history
    assert tune(saved(make()), fresh=True)[0] == 0, "without it, what fits is taken"


def test_strict_passes_where_only_the_order_of_the_classes_differs() -> None:
    assert tune(saved(mmengine(weights())), names=KNOWN[::-1], strict=True)[0] == 0


def test_strict_without_a_file_asks_only_that_everything_is_tracked() -> None:
    code, said, _ = session(Path("runs"), None, strict=True)  # type: ignore[arg-type]
    assert code == 0 and "finished" in said, said


def test_a_refusal_leaves_no_record_of_a_run_that_never_was() -> None:
    assert tune(saved({"conv.weight": torch.ones(2)}))[0] == 10
    assert contents(RUN) == {}


def test_a_loop_that_tracks_no_model_is_told_so_before_its_run_opens() -> None:
    net = Classifier(4)
    with pytest.raises(SystemExit) as ending, open_run("runs", tag="tuned", pretrained_model=saved(weights())) as run:
        run.track(net=net)
        next(run.batches([1, 2], batch_size=1, steps=1))
    assert ending.value.code == UsageError.exit_code
    assert contents(RUN) == {}
