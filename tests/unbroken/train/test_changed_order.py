"""Another order of the samples in a later session: an epoch that was begun ends as it began, or is refused."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, WeightedRandomSampler, random_split

from tests.unbroken.train.sessions_of_loops import Loop, Net, said, steps, train
from unbroken.report.audit import audit
from unbroken.train import TrainingRun

SIZE, BATCH = 24, 4


def over(**settings: Any) -> Loop:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = Net(run)
        for batch in run.batches(torch.arange(SIZE), batch_size=BATCH, workers=workers, epochs=3, **settings):
            yield net.step(batch)

    return loop


def of_loader(sampler: Any) -> Loop:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net, loader = Net(run), DataLoader(torch.arange(SIZE), batch_size=BATCH, sampler=sampler)  # type: ignore[arg-type]
        for batch in run.batches(loader, epochs=3):
            yield net.step(batch)

    return loop


KINDS: list[Any] = [True, False, "stream"]


@pytest.mark.parametrize(("before", "after"), [(one, other) for one in KINDS for other in KINDS if one is not other])
def test_the_epoch_that_was_begun_ends_in_its_order(tmp_path: Path, before: Any, after: Any) -> None:
    folder = tmp_path / "run"
    train(folder, over(shuffle=before), workers=0, at=10, number=signal.SIGKILL)
    train(folder, over(shuffle=after), workers=0, at=1, number=signal.SIGTERM)  # it saves within the same epoch again
    assert train(folder, over(shuffle=after), workers=0) == 0, said(folder)
    records = steps(folder)
    for epoch in range(3):
        used = Counter(s for step in range(6 * epoch, 6 * epoch + 6) for s in records[step + 1]["samples"])
        assert used == Counter(range(SIZE)), (epoch, used)
    text = said(folder)
    assert "the order of the samples changed" in text and "epoch 2, which began in the old one, ends in it" in text
    assert audit(folder / "t").good


def test_an_order_that_changes_with_an_epoch_is_nothing_to_say(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, over(shuffle=True), workers=0, at=6, number=signal.SIGTERM)
    assert train(folder, over(shuffle=False), workers=0) == 0, said(folder)
    assert "order of the samples changed" not in said(folder)
    assert steps(folder)[7]["samples"] == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", [None, 1])
def test_another_part_of_the_data_is_said(tmp_path: Path, seed: int | None) -> None:
    """A `random_split` that stands before `open_run` and has no seed: each session trains on what another held out."""

    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net, chance = Net(run), torch.Generator()
        chance.seed() if seed is None else chance.manual_seed(seed)
        data, _ = random_split(torch.arange(SIZE), [16, 8], generator=chance)  # type: ignore[arg-type]  # as scripts do
        for batch in run.batches(data, batch_size=BATCH, workers=workers, epochs=2):
            yield net.step(batch)

    assert train(tmp_path / "run", loop, workers=0, at=4, number=signal.SIGTERM) == 75
    assert train(tmp_path / "run", loop, workers=2) == 0
    words = "another part of the data than the run was trained on: exactness starts anew here"
    assert (words in said(tmp_path / "run")) == (seed is None), said(tmp_path / "run")


def test_each_epoch_may_have_another_part_of_the_data(tmp_path: Path) -> None:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = Net(run)
        for epoch in run.epochs(3):
            data = Subset(torch.arange(SIZE), range(4 * epoch, 4 * epoch + 8))  # type: ignore[arg-type]  # as scripts do
            for batch in run.batches(data, batch_size=BATCH, workers=workers):
                yield net.step(batch)

    for at in (3, 2):  # in the middle of an epoch, then at the end of one
        assert train(tmp_path / "run", loop, workers=0, at=at, number=signal.SIGTERM) == 75
    assert train(tmp_path / "run", loop, workers=0) == 0, said(tmp_path / "run")
    assert "another part" not in said(tmp_path / "run")


def weights(of_last: float) -> list[float]:
    return [1.0] * (SIZE - 1) + [of_last]


@pytest.mark.parametrize("damaged", [False, True])
def test_an_epoch_that_a_sampler_drew_ends_as_it_was_drawn(tmp_path: Path, damaged: bool) -> None:
    """Also where the sampler has other weights by now; what has another checksum is not taken for what it drew."""
    folder = tmp_path / "run"
    before = of_loader(WeightedRandomSampler(weights(1), SIZE))
    assert train(folder, before, workers=0) == 0
    drawn = [steps(folder)[step]["batch"] for step in (9, 10, 11, 12)]  # sums over the samples' numbers
    cut, after = tmp_path / "cut", of_loader(WeightedRandomSampler(weights(50), SIZE))
    train(cut, before, workers=0, at=8, number=signal.SIGTERM)
    if damaged:
        path = cut / "t/iter_8.pth"
        held = torch.load(path, weights_only=True)
        held["unbroken"]["drawn"]["indices"][-1] += 1
        torch.save(held, path)
        (cut / "t/unbroken/manifests/iter_8.pth.json").unlink()
    assert train(cut, after, workers=0) == (2 if damaged else 0), said(cut)
    if damaged:
        assert "8 of the 24 places of epoch 2 are used, in another order" in said(cut)
    else:
        assert [steps(cut)[step]["batch"] for step in (9, 10, 11, 12)] == drawn
        assert "WeightedRandomSampler gives another order for epoch 2 by now" in said(cut)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (of_loader(WeightedRandomSampler(weights(1), SIZE)), over(shuffle=True)),
        (over(shuffle=True), of_loader(SubsetRandomSampler(range(SIZE)))),
    ],
    ids=["no sampler any more", "a sampler now"],
)
def test_a_sampler_more_or_less_in_an_epoch_that_was_begun_is_refused(
    tmp_path: Path, before: Loop, after: Loop, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "run"
    train(folder, before, workers=0, at=8, number=signal.SIGTERM)
    journal = (folder / "t/unbroken/journal.jsonl").read_bytes()
    assert train(folder, after, workers=0) == 2
    assert "32 places" not in said(folder) and "8 of the 24 places of epoch 2 are used" in said(folder)
    assert (folder / "t/unbroken/journal.jsonl").read_bytes() == journal
    told = "8 of the 24 places that its sampler drew are used, the other 16 follow, none twice"
    assert (told in said(folder)) == ("sampler now" not in request.node.name)
    assert train(folder, before, workers=0) == 0, said(folder)
