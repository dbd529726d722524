"""Loops that keep something untracked, each in another place: python untracked_loops.py NAME FOLDER [strict]."""

from __future__ import annotations

import itertools
import logging
import queue
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from unbroken.train import TrainingRun, open_run


class Numbers(torch.utils.data.Dataset):  # type: ignore[type-arg]  # as scripts write it
    """Sixteen numbers; one kind draws its noise from a generator of its own."""

    def __init__(self, rng: Any = None) -> None:
        self.rng = rng

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = 0.0 if self.rng is None else float(self.rng.random())
        return torch.tensor([index / 16 + noise])


class Holder:
    """Something of the script's with a thing in an attribute."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Reader:
    """A stream of batches with its place in an attribute."""

    def __init__(self) -> None:
        self.place = 0

    def batch(self) -> torch.Tensor:
        self.place += 1
        return torch.full((2, 1), float(self.place))


def trained(run: TrainingRun, **kept: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run.track(model=model, optimizer=optimizer, **kept)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> torch.Tensor:
    loss = model(batch).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def in_a_function(run: TrainingRun) -> None:
    def epoch() -> None:
        for batch in run.batches(Numbers(), batch_size=2):
            run.end_step(loss=step(model, optimizer, batch))

    model, optimizer = trained(run)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in run.epochs(1):
        epoch()
        schedule.step()


def in_an_attribute(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    trainer = SimpleNamespace(average=AveragedModel(model))
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        loss = step(model, optimizer, batch)
        trainer.average.update_parameters(model)
        run.end_step(loss=loss)


def in_a_list_in_a_dict(run: TrainingRun) -> None:
    model, _ = trained(run)
    things = {"optimizers": [torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)]}
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        run.end_step(loss=step(model, things["optimizers"][0], batch))


def in_a_closure(run: TrainingRun) -> None:
    def made() -> Callable[[torch.Tensor], torch.Tensor]:
        rng = np.random.RandomState(0)
        return lambda batch: batch * float(rng.rand())

    model, optimizer = trained(run)
    mix = made()
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, mix(batch)))


def a_generator(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    rng = np.random.default_rng(0)
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, batch * rng.random()))


def pythons_generator(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    chance = random.Random(0)
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, batch * chance.random()))


def of_the_system(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    for batch in run.batches(Numbers(random.SystemRandom()), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, batch))


def in_the_model(run: TrainingRun) -> None:
    class Noisy(nn.Linear):
        def __init__(self) -> None:
            super().__init__(1, 1)
            self.rng = torch.Generator().manual_seed(0)

    model = Noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run.track(model=model, optimizer=optimizer)
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        noise = torch.rand(1, generator=model.rng)
        run.end_step(loss=step(model, optimizer, batch + noise))


def a_copy_of_the_model(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    target = nn.Linear(1, 1).requires_grad_(False)
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, batch))
        target.load_state_dict(model.state_dict())


def an_endless_generator(run: TrainingRun) -> None:
    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield from torch.utils.data.DataLoader(Numbers(), batch_size=2, shuffle=True)

    model, optimizer = trained(run)
    data = endless()
    for _ in run.steps(3):
        run.end_step(loss=step(model, optimizer, next(data)))


def an_iterator_of_a_loader(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    data = iter(torch.utils.data.DataLoader(Numbers(), batch_size=2, shuffle=True))
    for _ in run.steps(3):
        run.end_step(loss=step(model, optimizer, next(data)))


def nothing_leads_to_it(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    hidden = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.register_step_post_hook(lambda *_, kept=[hidden]: None)
    del hidden
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, batch))


def a_batch_drawn_ahead(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    batch = torch.rand(2, 1)
    for _ in run.steps(3):
        loss = step(model, optimizer, batch)
        batch = torch.rand(2, 1)
        run.end_step(loss=loss)


def a_counter(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    weight = 0
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        weight += 2
        run.end_step(loss=step(model, optimizer, batch * weight))


def a_sum_over_the_epoch(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    for _ in run.epochs(1):
        total = 0.0
        for batch in run.batches(Numbers(), batch_size=2):
            loss = step(model, optimizer, batch)
            total = total + float(loss)
            run.end_step(loss=loss)


def the_last_of_those_that_were_hard(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    hardest = torch.zeros(1)
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        for each in batch[batch > 0.5]:  # there may be none
            hardest = each
        run.end_step(loss=step(model, optimizer, batch + hardest))


def a_sum_within_an_inner_loop(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    seen = 0
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        for _ in range(2):
            seen += len(batch)
        run.end_step(loss=step(model, optimizer, batch * seen))


def a_place_in_an_attribute(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    reader = Reader()
    for _ in run.steps(3):
        run.end_step(loss=step(model, optimizer, reader.batch()))


def a_list_that_grows(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    losses: list[float] = []
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        loss = step(model, optimizer, batch)
        losses.append(float(loss))
        run.end_step(loss=loss)


class Remembering(Numbers):
    """It remembers what was drawn in a list as long as it is, in an array and in a set."""

    def __init__(self) -> None:
        super().__init__(np.random.default_rng())
        self.drawn: list[torch.Tensor | None] = [None] * len(self)
        self.hard, self.seen = np.zeros(len(self)), set[int]()

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen.add(index)
        self.hard[index] += 1
        kept = self.drawn[index] = super().__getitem__(index)
        return kept


def in_place(run: TrainingRun) -> None:
    """A memory of keys that is filled in place, and a data set that remembers."""
    model, optimizer = trained(run)
    memory = torch.zeros(4)
    for batch in run.batches(Remembering(), batch_size=2, steps=4):
        memory[:2] += batch.reshape(-1)[:2]
        run.end_step(loss=step(model, optimizer, batch * memory.mean()))


def losses_of_all_samples(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    hardness = [0.0] * 16
    for number, batch in enumerate(run.batches(Numbers(), batch_size=2, steps=3)):
        loss = step(model, optimizer, batch * (1 + hardness[number]))
        hardness[number + 1] = float(loss)
        run.end_step(loss=loss)


def tensors_in_a_dict(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    means = {"out": torch.zeros(1)}

    def hook(_module: nn.Module, _inputs: Any, out: torch.Tensor) -> None:
        means["out"] = means["out"] * 0.9 + out.detach().mean(0) * 0.1

    model.register_forward_hook(hook)
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, batch + means["out"]))


def slow_weights(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    ahead = Holder([[each.detach().clone() for each in group["params"]] for group in optimizer.param_groups])
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        loss = step(model, optimizer, batch)
        for slow, fast in zip(ahead.value[0], model.parameters()):
            slow.lerp_(fast.detach(), 0.5)
        run.end_step(loss=loss)


def statistics_of_a_teacher(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    teacher = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)).requires_grad_(False)  # no eval()
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, batch + teacher(batch)))


def a_cycle(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    data = itertools.cycle(torch.utils.data.DataLoader(Numbers(), batch_size=2))
    for _ in run.steps(3):
        run.end_step(loss=step(model, optimizer, next(data)))


def a_second_loader_in_a_zip(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    others = torch.utils.data.DataLoader(Numbers(), batch_size=2, shuffle=True)
    for batch, other in zip(run.batches(Numbers(), batch_size=2, steps=3), others):
        run.end_step(loss=step(model, optimizer, batch + other))


class Counting(torch.optim.SGD):
    """An optimizer with a count, a generator and another optimizer, which its state leaves out."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.01)
        self.count, self.rng = 0, torch.Generator().manual_seed(0)
        self.base = torch.optim.SGD(self.param_groups, lr=0.01, momentum=0.9)

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        super().step(closure)
        self.base.step()


def what_an_optimizer_adds(run: TrainingRun) -> None:
    model = nn.Linear(1, 1)
    optimizer = Counting(model.parameters())
    run.track(model=model, optimizer=optimizer)
    for batch in run.batches(Numbers(), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, batch))


def a_generator_of_an_optimizer(run: TrainingRun) -> None:
    what_an_optimizer_adds(run)


def an_optimizer_in_an_optimizer(run: TrainingRun) -> None:
    what_an_optimizer_adds(run)


def an_average_that_begins_late(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    for batch in run.batches(Numbers(), batch_size=2, steps=6):
        run.end_step(loss=step(model, optimizer, batch))
        if run.step == 4:
            average = AveragedModel(model)
            average.update_parameters(model)
        run.save()


def another_optimizer_from_here_on(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    for batch in run.batches(Numbers(), batch_size=1, epochs=1):
        if run.step == 3:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        run.log(loss=step(model, optimizer, batch))


class MixesTheLast(Numbers):
    """It mixes each item with the one before, which it keeps in a list that is made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.last: list[torch.Tensor] = []

    def __getitem__(self, index: int) -> torch.Tensor:
        item = super().__getitem__(index)
        mixed = (item + self.last[0]) / 2 if self.last else item
        self.last = [item]
        return mixed


def the_last_item(run: TrainingRun) -> None:
    model, optimizer = trained(run)
    for batch in run.batches(MixesTheLast(), batch_size=2, steps=3):
        run.end_step(loss=step(model, optimizer, batch))


class Average:
    """It gives its state under names of its own."""

    def __init__(self, model: nn.Module) -> None:
        self._shadow = [each.detach().clone() for each in model.parameters()]
        self.updates, self.decay = 0, 0.9

    def update(self, model: nn.Module) -> None:
        self.updates += 1
        for mean, weight in zip(self._shadow, model.parameters()):
            mean.lerp_(weight.detach(), 0.1)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": [each.clone() for each in self._shadow], "n": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._shadow, self.updates = state["weights"], state["n"]


def quiet(run: TrainingRun) -> None:
    """Everything is tracked; a frozen network, the data set's generator, a clock, what logs are no state.

    Nor is what an inner loop over a range sets: such a loop has a turn.
    """
    counters, extra = {"seen": 0, "memory": np.zeros(2)}, nn.Linear(1, 1).requires_grad_(False)
    memory, own = counters["memory"], Holder(counters["memory"])
    teacher = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1)).requires_grad_(False)
    average = AveragedModel(nn.Linear(1, 1))
    logger, curves, waiting = logging.getLogger("quiet"), SummaryWriter(str(run.directory)), queue.Queue[float]()
    own_average = Average(extra)
    model, optimizer = trained(run, counters=counters, average=average, extra=extra, own=own_average)
    numbers, table, weights = map(int, "12"), {"names": ["a", "b"]}, [[*model.parameters()], *average.parameters()]
    assert [*numbers] == [1, 2] and len(weights) == 3
    for number, (batch,) in enumerate(zip(run.batches(Numbers(np.random.default_rng()), batch_size=2, steps=4))):
        logger.log(number, "batch %d", number)
        logging.getLogger(f"quiet.{number}").debug("batch %d", number)
        curves.add_scalar("number", number, number)
        waiting.put(float(number))
        with torch.no_grad():
            goal = teacher(batch)
        for turn in range(1, 3):
            loss = step(model, optimizer, batch + turn * goal)
        average.update_parameters(model)
        own_average.update(model)
        pair, seen, words = iter((batch, goal)), {"mean": batch.mean()}, [f"{number}", *table["names"], "c", "d"]
        counters["seen"] += len(batch) + len([next(pair)]) + len(seen) + len(words)
        memory += own.value
        memory += 1
        shown = float(loss) + number
        run.end_step(loss=loss, shown=shown)


LIVES = "lives in this process and is not tracked: its state would be lost"
PLACE = "holds a place in its data and is not tracked: a resumed session begins it anew"
SYSTEM = "draws from the system, which gives nothing twice: no session can be repeated"
CHANGES = (
    "changes from step to step and is not tracked: a resumed session begins with what stands there before the loop"
)
SAID = {
    in_a_function: f"warning: `schedule` (StepLR) {LIVES}",
    in_an_attribute: f"warning: `trainer.average` (AveragedModel) {LIVES}",
    in_a_list_in_a_dict: f"warning: `things['optimizers'][0]` (SGD) {LIVES}",
    in_a_closure: f"warning: `mix.rng` (RandomState) {LIVES}",
    a_generator: f"warning: `rng` (Generator) {LIVES}",
    pythons_generator: f"warning: `chance` (Random) {LIVES}",
    of_the_system: f"warning: `dataset.rng` (SystemRandom) {SYSTEM}",
    in_the_model: f"warning: `model.rng` (Generator) {LIVES}",
    a_copy_of_the_model: f"warning: `target` (Linear) {LIVES}",
    an_endless_generator: f"warning: `data` (generator) {PLACE}",
    an_iterator_of_a_loader: f"warning: `data` (_SingleProcessDataLoaderIter) {PLACE}",
    nothing_leads_to_it: f"warning: a StepLR to which no variable of the script leads {LIVES}",
    a_batch_drawn_ahead: f"note: `batch` {CHANGES}",
    a_counter: f"note: `weight` {CHANGES}",
    a_sum_over_the_epoch: f"note: `total` {CHANGES}",
    the_last_of_those_that_were_hard: f"note: `hardest` {CHANGES}",
    a_sum_within_an_inner_loop: f"note: `seen` {CHANGES}",
    a_place_in_an_attribute: f"note: `reader.place` {CHANGES}",
    in_place: "note: `dataset.drawn[...]`, `dataset.hard[...]`, `dataset.seen[...]`, `memory` change from step to step",
    a_list_that_grows: f"note: `losses` {CHANGES}",
    losses_of_all_samples: f"note: `hardness[...]` {CHANGES}",
    tensors_in_a_dict: f"note: `means[...]` {CHANGES}",
    slow_weights: f"note: `ahead.value[...]` {CHANGES}",
    statistics_of_a_teacher: f"note: `teacher.1.num_batches_tracked` {CHANGES}",
    a_cycle: f"warning: `data` (cycle) {PLACE}",
    a_second_loader_in_a_zip: f"warning: `zip(...)` (_SingleProcessDataLoaderIter) {PLACE}",
    what_an_optimizer_adds: f"note: `optimizer.count` {CHANGES}",
    a_generator_of_an_optimizer: f"warning: `optimizer.rng` (Generator) {LIVES}",
    an_optimizer_in_an_optimizer: f"warning: `optimizer.base` (SGD) {LIVES}",
    an_average_that_begins_late: f"warning: `average` (AveragedModel) {LIVES}",
    another_optimizer_from_here_on: f"warning: `optimizer` (SGD) {LIVES}",
    the_last_item: f"note: `dataset.last[...]` {CHANGES}",
}


if __name__ == "__main__":
    with open_run(Path(sys.argv[2]), tag="t", strict=sys.argv[3:] == ["strict"]) as opened:
        globals()[sys.argv[1]](opened)
