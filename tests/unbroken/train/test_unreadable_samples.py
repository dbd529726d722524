"""A sample that cannot be read: what was done before it is kept; it can be left out, said, counted and journalled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from unbroken.errors import DamagedFile
from unbroken.journal import read_events
from unbroken.train import Exit, TrainingRun, open_run, read_checkpoint

SIZE = 10


class Numbers:
    """Ten numbers, some of which cannot be read."""

    def __init__(self, *bad: int) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> torch.Tensor:
        if index in self.bad:
            raise DamagedFile(f"frame {index}", "it is truncated")
        return torch.full((1,), float(index))


def opened(folder: Path, on_bad: str = "stop") -> TrainingRun:
    return open_run(folder, tag="t", save_every_s=None, on_bad=on_bad)  # type: ignore[arg-type]


def train(run: TrainingRun, dataset: Numbers, *, batch_size: int = 1, epochs: int = 2, workers: int = 0) -> list[float]:
    """The samples that were used, in order."""
    used: list[float] = []
    with run:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(
            dataset, batch_size=batch_size, epochs=epochs, shuffle=False, workers=workers, accumulate=1
        ):
            loss = model(batch).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            used += batch.flatten().tolist()
            run.end_step(loss=loss)
    return used


def test_what_was_done_before_a_sample_that_cannot_be_read_is_saved(tmp_path: Path) -> None:
    with pytest.raises(Exit) as ending:
        train(opened(tmp_path), Numbers(6))
    assert ending.value.code == 12
    assert read_checkpoint(tmp_path / "t/iter_6.pth")["unbroken"]["position"] == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_it_can_be_left_out_and_is_said_counted_and_journalled(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    used = train(opened(tmp_path, "skip"), Numbers(3, 4, 9), batch_size=2, workers=workers)
    assert used == 2 * [0, 1, 2, 5, 6, 7, 8]
    skipped = [event for event in read_events(tmp_path / "t/unbroken/journal.jsonl") if event["event"] == "skipped"]
    assert [(event["epoch"], event["sample"]) for event in skipped] == [(e, s) for e in (0, 1) for s in (3, 4, 9)]
    said = capsys.readouterr().out
    assert "skipped sample 4 of epoch 1: frame 4: it is truncated" in said
    assert "6 times a sample that cannot be read was left out" in said


@pytest.mark.parametrize("bad", [(9,), (0,), (0, 9), (8, 9), (0, 1)])
def test_an_epoch_ends_with_its_last_readable_sample_wherever_the_others_are(
    tmp_path: Path, bad: tuple[int, ...]
) -> None:
    train(opened(tmp_path, "skip"), Numbers(*bad), epochs=3)
    last = read_checkpoint(max((tmp_path / "t").glob("iter_*.pth"), key=lambda path: int(path.stem[5:])))["unbroken"]
    assert (last["step"], last["position"], last["epoch"], last["skipped"]) == (
        3 * (SIZE - len(bad)),
        30,
        3,
        3 * len(bad),
    )


def test_a_data_set_of_which_nothing_can_be_read_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exit) as ending:
        train(opened(tmp_path, "skip"), Numbers(*range(SIZE)))
    assert ending.value.code == 12
    assert "not one of its 10 samples can be read" in capsys.readouterr().out
