"""Steps of thousands of samples: the record says where they stand in the order, and the audit proves it still."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unbroken.train.sessions_of_loops import Loop, Net, difference, said, steps, train
from unbroken.journal import as_recorded, compare_steps
from unbroken.report.audit import audit
from unbroken.train import TrainingRun

SIZE = 3000


def over(**settings: Any) -> Loop:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = Net(run)
        for batch in run.batches(torch.arange(SIZE), epochs=3, **{"batch_size": 700, **settings}):
            yield net.step(batch)

    return loop


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 15 steps, killed once beyond its last save."""
    folder = tmp_path_factory.mktemp("large") / "run"
    assert train(folder, over(), workers=0, at=9, number=signal.SIGKILL) == -signal.SIGKILL
    assert train(folder, over(), workers=0) == 0, said(folder)
    return folder


def test_a_step_takes_no_more_room_for_more_samples(made: Path) -> None:
    assert "steps 7-8 replayed: bit-identical" in said(made)
    found = {step: record["samples"] for step, record in steps(made).items()}
    assert [found[step]["first"] for step in (1, 2, 4, 6)] == [0, 700, 2100, SIZE]
    assert all(len(json.dumps(samples)) < 80 for samples in found.values() if isinstance(samples, dict))
    assert isinstance(found[5], list) and len(found[5]) == 200  # few are listed


def test_the_audit_proves_each_epoch(made: Path) -> None:
    found = audit(made / "t")
    assert found.good and "3 epochs, each sample once" in found.verdict, found.findings
    assert (found.samples, found.size, found.repeats.identical) == (3 * SIZE, SIZE, 2)


@pytest.mark.parametrize(
    ("settings", "again", "words"),
    [
        ({"shuffle": "stream"}, {}, "each sample once"),
        ({"drop_last": True}, {}, ""),
        ({}, {"batch_size": 100}, "each sample once"),
        ({"batch_size": 100}, {"batch_size": 700}, "each sample once"),
    ],
    ids=["stream", "drop_last", "smaller batches", "larger batches"],
)
def test_orders_and_batch_sizes_may_change(tmp_path: Path, settings: Any, again: Any, words: str) -> None:
    folder = tmp_path / "run"
    train(folder, over(**settings), workers=0, at=8, number=signal.SIGTERM)
    assert train(folder, over(**(settings | again)), workers=0) == 0, said(folder)
    found = audit(folder / "t")
    assert found.good and words in found.verdict, (found.findings, found.notes)


@pytest.mark.parametrize(
    ("step", "change", "words"),
    [
        (3, {"first": 700}, "step 3 begins after 700 samples of epoch 1, but 1400 were used"),
        (3, {"count": 600}, "step 4 begins after 2100 samples of epoch 1, but 2000 were used"),
        (8, {"crc32": 5}, "differs from line"),
        (3, {"first": -1}, "recorded without its epoch or samples"),
        (9, None, "step 9 has no record"),
    ],
)
def test_a_planted_fault_is_found(made: Path, tmp_path: Path, step: int, change: Any, words: str) -> None:
    folder = Path(shutil.copytree(made / "t", tmp_path / "t", symlinks=True))
    path = folder / "unbroken/metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    last = max(at for at, record in enumerate(lines) if record.get("step") == step)
    if change is None:
        del lines[last]
    else:
        lines[last]["samples"] |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert any(words in str(finding) for finding in audit(folder).findings), audit(folder).findings


def test_other_samples_are_other_samples_in_whatever_form_they_are_recorded() -> None:
    ids, others = list(range(1000)), [*range(999), 7]
    placed = as_recorded(ids, first=0)
    assert isinstance(placed, dict) and as_recorded(ids, first=None) == ids
    assert not compare_steps({"samples": placed}, {"samples": ids}).samples_differ
    assert not compare_steps({"samples": ids}, {"samples": placed}).samples_differ
    for other in (others, as_recorded(others, first=0), ids[:999]):
        assert compare_steps({"samples": placed}, {"samples": other}).samples_differ


def test_workers_make_no_difference(made: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run", over(workers=2), workers=2) == 0, said(tmp_path / "run")
    assert not difference(made, tmp_path / "run")
