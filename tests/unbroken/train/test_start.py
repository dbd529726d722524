"""A session begun from a script: what it computes with is what the run says, not what this launch happens to say."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unbroken.journal import read_events, read_steps
from unbroken.storage.lock import read_holder
from unbroken.train import Exit, open_run, preserved


class Numbers:
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index)])


class Quiet:
    """A console that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: Any, line: str) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def streams_and_threads_of_others() -> Any:
    threads = torch.get_num_threads()
    with preserved():
        yield
    torch.set_num_threads(threads)


def train(root: Path, *, stop_after: int | None = None, epochs: int = 3, **options: Any) -> str:
    console = Quiet()
    with open_run(root, tag="tiny", save_every=3, console=console, **options) as run:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(Numbers(), batch_size=4, epochs=epochs):
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.end_step(loss=loss)
            if run.step == stop_after:
                break
    return "\n".join(console.lines)


def used(run: Path) -> list[list[int]]:
    return [record["samples"] for record in read_steps(run / "unbroken" / "metrics.jsonl")]


def test_a_run_keeps_its_seed_and_says_so(tmp_path: Path) -> None:
    train(tmp_path / "whole", seed=5)
    train(tmp_path / "cut", seed=5, stop_after=4)
    assert "this run keeps its seed 5" in train(tmp_path / "cut", seed=0)
    assert used(tmp_path / "cut" / "tiny") == used(tmp_path / "whole" / "tiny")


def test_a_run_that_moves_in_from_elsewhere_keeps_its_seed_too(tmp_path: Path) -> None:
    train(tmp_path / "whole", seed=5)
    train(tmp_path / "input", seed=5, stop_after=4)
    train(tmp_path / "cut", seed=0, search=(tmp_path / "input",))
    assert used(tmp_path / "cut" / "tiny") == used(tmp_path / "whole" / "tiny")


def test_a_tuple_in_the_config_is_not_a_change(tmp_path: Path) -> None:
    options: dict[str, Any] = {"config": {"size": (3, 4)}, "effects": {"size": "shape"}}
    train(tmp_path, stop_after=4, **options)
    assert "changed" not in train(tmp_path, **options)


def test_a_config_that_cannot_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    with pytest.raises(Exit) as caught:
        train(tmp_path, config={"folder": Path("x")})
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_whose_config_asks_for_more_is_extended(tmp_path: Path) -> None:
    train(tmp_path, config={"epochs": 2}, epochs=2)
    words = train(tmp_path, config={"epochs": 3}, epochs=3)
    assert "the run was completed at step 6, and now the config changed since" in words
    assert len(used(tmp_path / "tiny")) == 9
    assert "plan: FINISHED" in train(tmp_path, config={"epochs": 3}, epochs=3)


def test_a_refused_first_launch_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(Exit) as caught:
        train(tmp_path, ckpt=tmp_path / "missing.pth")
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_loop_that_asks_a_completed_run_for_more_is_told_where_to_say_so(tmp_path: Path) -> None:
    def loop(epochs: int, config: dict[str, int] | None = None) -> None:
        with open_run(tmp_path, tag="t", config=config, console=Quiet()) as run:
            run.track(counters={"n": 0})
            for _ in run.batches(list(range(8)), batch_size=4, epochs=epochs):
                run.end_step(loss=1.0)

    loop(2)
    loop(2)
    with pytest.raises(Exit) as refused:
        loop(3)
    assert refused.value.code == 2 and 'config={"epochs": 3' in refused.value.reason
    loop(3, {"epochs": 3})
    with open_run(tmp_path, tag="t", config={"epochs": 3}, console=Quiet()) as run:
        assert run.finished and run.step == 6  # known before anything is tracked
        run.track(counters={"n": 0})
        assert run.step == 6


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        ({"epochs": 3}, {"epochs": 1}, "note: 1 epoch is asked for and 2 are done: nothing is left to train"),
        ({"steps": 9}, {"steps": 2}, "note: 2 steps are asked for and 7 are done: nothing is left to train"),
        ({"epochs": 3}, {"epochs": 3}, ""),
    ],
)
def test_a_loop_that_asks_for_less_than_is_done_is_told_so(
    tmp_path: Path, first: dict[str, int], then: dict[str, int], words: str
) -> None:
    consoles = Quiet(), Quiet()
    for length, console in zip((first, then), consoles):
        with open_run(tmp_path, tag="t", console=console) as run:
            run.track(counters={"n": 0})
            for _ in run.batches(Numbers(), batch_size=4, **length):
                run.end_step()
                if run.step == 7:
                    break
    assert [line for line in consoles[1].lines if "nothing is left" in line] == ([words] if words else [])
    assert run.step == (9 if not words else 7)


@pytest.mark.parametrize("rates", [[0.0, 0.1, 0.1, 0.0, 0.0, 0.1, 0.0, 0.1, 0.1], [0.1] * 9])
def test_a_step_of_an_own_loop_at_learning_rate_zero_is_said_before_it_is_done(
    tmp_path: Path, rates: list[float]
) -> None:
    """Once for each span; in the first step, where a warm-up may begin at 0, it is no warning."""
    console = Quiet()
    with open_run(tmp_path, console=console) as run:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: ([*rates, 1.0])[step])
        run.track(model=model, optimizer=optimizer, schedule=schedule)
        for batch in run.batches(Numbers(), batch_size=4, epochs=3):
            said = [line for line in console.lines if "learning rate 0" in line]
            begun = [step for step in range(run.step + 1) if rates[step] == 0 and (step == 0 or rates[step - 1] > 0)]
            kinds = ["note" if step == 0 else "warning" for step in begun]
            assert said == [
                f"{kind}: step {step + 1} trains at learning rate 0 (nothing changes)"
                for kind, step in zip(kinds, begun)
            ]
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            run.end_step(loss=loss)
    assert run.step == len(rates)


def test_an_own_loop_looks_for_copies_where_the_host_has_them_unless_it_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNBROKEN_SEARCH_PATH", raising=False)
    train(tmp_path / "last_night", stop_after=3)
    monkeypatch.setenv("UNBROKEN_SEARCH_PATH", str(tmp_path / "last_night"))
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    begun = train(Path("output"), search=(), stop_after=1)
    assert "plan: FRESH" in begun
    assert "is a run of this name with this config, at step 3; to go on with it: open_run(" in begun
    assert "last_night/tiny holds this run at step 3" in train(Path("again"), stop_after=4)


def test_a_session_has_a_name_that_no_session_of_the_history_it_brings_has(tmp_path: Path) -> None:
    """A machine that was lost and its successor may begin within one second."""
    train(tmp_path / "lost", stop_after=4)
    configs = tmp_path / "lost/tiny/unbroken/configs"
    (config,) = configs.iterdir()
    taken = {f"{datetime.now().astimezone() + timedelta(seconds=second):%Y%m%d_%H%M%S}" for second in range(120)}
    for name in taken - {config.stem}:
        shutil.copyfile(config, configs / f"{name}.json")
    train(tmp_path / "new", search=[tmp_path / "lost"])
    sessions = [
        e["session"] for e in read_events(tmp_path / "new/tiny/unbroken/journal.jsonl") if e["event"] == "session"
    ]
    assert sessions[-1].removesuffix("_2") in taken and sessions[-1].endswith("_2")
    assert read_holder(tmp_path / "new/tiny/unbroken").session == sessions[-1]  # type: ignore[union-attr]


def test_an_own_loop_hears_from_the_host_when_its_session_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNBROKEN_SESSION_END", "2026-01-01T00:00:00+00:00")
    with pytest.raises(Exit) as refused:
        train(tmp_path)
    assert refused.value.code == 75
    assert "FRESH" in train(tmp_path, session_s=float("inf"))
    monkeypatch.setenv("UNBROKEN_SESSION_END", (datetime.now(UTC) + timedelta(seconds=2)).isoformat())
    with pytest.raises(Exit) as stopped:
        train(tmp_path / "until_then", epochs=1_000_000)
    assert stopped.value.code == 75
