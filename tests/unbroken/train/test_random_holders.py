"""Generators that a data set holds are found wherever they are, and begin anew for each sample."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from unbroken.train.data.loader import load
from unbroken.train.data.order import Order
from unbroken.train.data.random_holders import random_holders

SIZE = 12
of_the_module: Any = None
space: Any = None


@pytest.fixture(autouse=True)
def generators_of_the_module() -> Iterator[None]:
    """Generators that this module has while it is tested: loops of other tests would be told of them."""
    globals().update(of_the_module=np.random.default_rng(), space=SimpleNamespace(inner={"chance": random.Random()}))
    yield
    globals().update(of_the_module=None, space=None)


class Drawing(Dataset[list[float]]):
    """Each item is what `draw` gives, twice, so that a pair that is half used would be noticed."""

    def __init__(self, draw: Callable[[], float] | None = None) -> None:
        if draw is not None:
            self.draw = draw

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> list[float]:
        return [index, *(float(self.draw()) for _ in range(3))]


def generator() -> Any:
    return Drawing(np.random.default_rng().normal)


def of_another_kind(kind: Any) -> Any:
    rng = np.random.Generator(kind())
    return Drawing(lambda: float(rng.integers(2**31, dtype=np.uint32)))


def random_state() -> Any:
    rng = np.random.RandomState()
    rng.normal()  # half of a pair is left
    return Drawing(lambda: rng.normal())


def random_state_of_another_kind() -> Any:
    rng = np.random.RandomState(np.random.PCG64())  # type: ignore[arg-type]
    rng.normal()
    return Drawing(lambda: rng.normal())


def of_python() -> Any:
    chance = random.Random()
    chance.gauss()
    return Drawing(lambda: chance.gauss())


def of_torch() -> Any:
    made = torch.Generator()
    made.seed()
    return Drawing(lambda: float(torch.randn((), generator=made)))


def bare_bits() -> Any:
    bits = np.random.SFC64()
    return Drawing(lambda: float(bits.random_raw()))


def in_an_attribute() -> Any:
    made = Drawing()
    made.rng = np.random.default_rng()  # type: ignore[attr-defined]
    made.draw = lambda: made.rng.random()  # type: ignore[attr-defined]
    return made


class Noise:
    """A transform with its generator in a slot, as torchvision's are nested."""

    __slots__ = "__rng"

    def __init__(self) -> None:
        self.__rng = np.random.default_rng()

    def __call__(self) -> float:
        return self.__rng.random()


class Louder(Noise):
    """The slot is that of a base."""

    __slots__ = ()


class Compose:
    """Transforms in a list, of which one is chosen."""

    def __init__(self, *transforms: Any) -> None:
        self.transforms = deque(transforms)
        self.chance = random.Random()

    def __call__(self) -> float:
        return sum(each() for each in self.transforms) + self.chance.random()


def in_transforms() -> Any:
    return Drawing(Compose(Louder(), Compose(Noise(), partial(np.random.RandomState().rand)), Noise()))


def in_modules() -> Any:
    class Jitter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rng = np.random.default_rng()

        def forward(self) -> float:
            return self.rng.random()

    return Drawing(torch.nn.Sequential(Jitter())[0])


def of_the_class() -> Any:
    class Own(Drawing):
        rng = np.random.default_rng()

        def draw(self) -> float:
            return self.rng.random()

    return Own()


def in_a_static_method() -> Any:
    class Own(Drawing):
        @staticmethod
        def draw(chance: Any = random.Random()) -> float:  # noqa: B008
            return float(chance.random())

    return Own()


def in_a_property() -> Any:
    class Own(Drawing):
        @property
        def draw(self) -> Any:
            return of_the_module.random

    return Own()


def helper() -> float:
    return of_the_module.random() + float(space.inner["chance"].random())


def of_the_modules_function() -> Any:
    return Drawing(lambda: helper())


def by_the_modules_name() -> Any:
    def draw() -> float:
        from tests.unbroken.train import test_random_holders

        return test_random_holders.of_the_module.random()

    return Drawing(draw)


class Settings:
    rng = np.random.default_rng()


def by_a_classs_name() -> Any:
    return Drawing(lambda: Settings.rng.random())


def of_a_decorated_function() -> Any:
    rng = np.random.default_rng()

    @lru_cache(maxsize=0)
    def draw() -> float:
        return rng.random()

    return Drawing(draw)


def of_a_functions_attribute() -> Any:
    def draw() -> float:
        return float(draw.rng.random())  # type: ignore[attr-defined]

    draw.rng = np.random.default_rng()  # type: ignore[attr-defined]
    return Drawing(draw)


def below_other_data_sets() -> Any:
    return ConcatDataset([Subset(generator(), range(SIZE // 2)), Subset(in_transforms(), range(SIZE // 2))])


def in_a_set() -> Any:
    rngs = {np.random.default_rng()}
    return Drawing(lambda: next(iter(rngs)).random())


class OneEach(Drawing):
    """A generator for each sample."""

    def __init__(self, kind: type) -> None:
        many = [np.random.default_rng() for _ in range(1000)]
        self.rngs = dict(enumerate(many)) if kind is dict else kind(many)

    def __getitem__(self, index: int) -> list[float]:
        return [index, self.rngs[index].random()]


class MadeByTheFirst(Drawing):
    """Where it is read, as data sets do that are read in loader workers."""

    rng: Any = None

    def draw(self) -> float:
        if self.rng is None:
            self.rng = np.random.default_rng()
        return float(self.rng.random())


class MadeByTheThread(Drawing):
    """The same, under the thread's own names."""

    def __init__(self) -> None:
        self.made = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def draw(self) -> float:
        if not hasattr(self.made, "rng"):
            self.made.rng = np.random.default_rng()
        return float(self.made.rng.random())


class MadeForEachEpoch(Drawing):
    """What the loop tells of an epoch replaces the generator."""

    def __init__(self) -> None:
        self.set_epoch()

    def set_epoch(self) -> None:
        self.rng = np.random.default_rng()

    def draw(self) -> float:
        return self.rng.random()


class ByNumber(Drawing):
    """Read by `sample`, with a generator of its own besides."""

    __getitem__ = Dataset.__getitem__

    def __init__(self) -> None:
        self.own = np.random.default_rng()

    def sample(self, index: int, rng: np.random.Generator) -> list[float]:
        return [index, rng.random(), self.own.random()]


MADE: dict[str, Callable[[], Any]] = {
    made.__name__: made
    for made in (
        *(generator, random_state, random_state_of_another_kind, of_python, of_torch, bare_bits, in_an_attribute),
        *(in_transforms, in_modules, of_the_class, in_a_static_method, in_a_property, of_the_modules_function),
        *(by_the_modules_name, by_a_classs_name, of_a_decorated_function, of_a_functions_attribute),
        *(below_other_data_sets, in_a_set, MadeByTheFirst, MadeByTheThread, MadeForEachEpoch, ByNumber),
    )
}
MADE |= {each.__name__: partial(of_another_kind, each) for each in (np.random.MT19937, np.random.Philox)}
MADE |= {f"of each sample, {kind.__name__}": partial(OneEach, kind) for kind in (list, tuple, dict)}


class Remembers(Drawing):
    """What was drawn for a sample first is given in each epoch, and drawn anew by each session."""

    @lru_cache(maxsize=None)  # noqa: B019, UP033 - as scripts do
    def __getitem__(self, index: int) -> list[float]:
        return [index, self.draw()]

    def draw(self) -> float:
        return random.random()


@cache
def remembered(index: int) -> float:
    return float(np.random.rand()) + index


class RemembersElsewhere(Remembers):
    """A function of the module remembers."""

    def __getitem__(self, index: int) -> list[float]:
        return [index, remembered(index) + random.random()]


MADE |= {each.__name__: each for each in (Remembers, RemembersElsewhere)}


def test_what_is_remembered_stays_so_where_nothing_is_drawn_for_it() -> None:
    loaded: list[int] = []

    class Loads(Drawing):
        @lru_cache(maxsize=None)  # noqa: B019, UP033 - as scripts do
        def load(self, index: int) -> float:
            loaded.append(index)
            return float(index)

        def __getitem__(self, index: int) -> list[float]:
            return [self.load(index), random.random()]

    assert items(Loads(), 0, count=9)
    assert sorted(loaded) == sorted([*range(SIZE), loaded[0]]) or sorted(loaded) == list(range(SIZE))


def items(dataset: Any, workers: int, *, position: int = 0, count: int = 9, **how: Any) -> list[Any]:
    order = Order(size=SIZE, seed=8)
    loaded = load(dataset, order, position, batch_size=4, workers=workers, collate=how.get("collate", list))
    return [(keys, batch) for keys, _, batch, *_ in islice(loaded, count)]


@pytest.mark.parametrize("name", MADE)
def test_items_depend_on_nothing_but_seed_epoch_and_sample(name: str) -> None:
    whole = items(MADE[name](), 0)
    assert items(MADE[name](), 0) == whole, "begun from another state"
    assert items(MADE[name](), 0, position=20, count=4) == whole[5:], "begun in the middle"
    of_samples = {batch[0][0]: [each[0][1] for _, each in whole if each[0][0] == batch[0][0]] for _, batch in whole}
    assert len({item[1] for _, batch in whole for item in batch}) == 9 * 4, f"the same is drawn again: {of_samples}"


@pytest.mark.parametrize("name", ["generator", "in_transforms", "of_torch", "MadeByTheFirst", "MadeByTheThread"])
def test_items_are_the_same_from_any_number_of_workers(name: str) -> None:
    assert items(MADE[name](), 2) == items(MADE[name](), 0)


def test_a_generator_of_the_function_that_joins_samples_is_seeded_too() -> None:
    def joining() -> Callable[[list[Any]], Any]:
        rng = np.random.default_rng()
        return lambda rows: [rng.permutation(len(rows)).tolist(), rows]

    whole = items(generator(), 0, collate=joining())
    assert items(generator(), 2, collate=joining()) == whole
    assert items(generator(), 0, position=20, count=4, collate=joining()) == whole[5:]


def test_a_generator_that_is_replaced_between_epochs_is_found_again() -> None:
    dataset, order = MadeForEachEpoch(), Order(size=SIZE, seed=8)
    drawn = []
    for loaded in islice(load(dataset, order, 0, batch_size=4, workers=0, collate=list), 6):
        drawn.append((loaded.keys, loaded.batch))
        if loaded.position % SIZE == 0:
            dataset.set_epoch()
    assert drawn == items(MadeForEachEpoch(), 0, count=6)


def test_what_several_attributes_share_is_one_generator_and_the_global_ones_are_nobodys() -> None:
    shared = np.random.default_rng()
    dataset = SimpleNamespace(
        first=shared,
        second=[shared],
        of_numpy=np.random.mtrand._rand,
        of_python=random._inst,
        of_system=random.SystemRandom(),
    )
    assert [(path, value is shared) for path, value in random_holders(dataset)] == [("dataset.first", True)]
