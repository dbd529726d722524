"""Batches in the run's order, from any number of workers, each sample with random streams of its own."""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.data import Dataset, default_collate, get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory as pinned

from unbroken.errors import DamagedFile, UnbrokenError, UnreadableSample, UsageError
from unbroken.quantities import counted, some_of
from unbroken.train.data.order import Key, Order, Permutations, micro_batches
from unbroken.train.data.random_holders import Holders
from unbroken.train.data.rng import generator_for_sample, seed_cpu_streams, seed_for_sample
from unbroken.train.data.sharing import WHOLE, Sharing
from unbroken.train.data.workers import AHEAD, Workers
from unbroken.train.stop import Exit, interruptible

Collate = Callable[[list[Any]], Any]
OnBad = Literal["stop", "skip", "list"]  # what a failure does; "skip" leaves out what is a sample's fault, "list" all
EXCLUDED = "a step with it had a loss that is not finite, and was rolled back"
MOST_NAMED = 8  # samples of a batch, in an error
MAY_BE_EMPTY = (list, tuple, dict, Mapping)
LONGEST_PATH = 4096


class Request(NamedTuple):
    """A micro-batch that is asked for: its samples, the position after it, and what a sampler drew for them."""

    keys: list[Key]
    position: int
    drawn: list[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class HowRead:
    """How workers are kept busy, and what a data set is told.

    `ahead` is how many batches each has been asked for, `timeout_s` how long one may be waited for (0: for ever),
    `begin_worker` is called with a worker's number in it, `context` is that of multiprocessing. With `in_epoch` nothing
    is read beyond the epoch in progress; with `tells_epoch` a data set is told the epoch of the samples that are read.
    """

    ahead: int = AHEAD
    timeout_s: float = 0.0
    begin_worker: Callable[[int], None] | None = None
    context: Any = None
    in_epoch: bool = False
    tells_epoch: bool = True


@dataclass(frozen=True, kw_only=True)
class BadSample:
    """A sample that is left out, because it could not be read or its step went wrong.

    Args:
        epoch: Pass over the data in which it was met, from 0.
        sample: Its number in the data set.
        reason: Why, in words.
    """

    epoch: int
    sample: int
    reason: str


class LoadedBatch(NamedTuple):
    """A micro-batch: its samples, none if none could be read, the position after them, what was made of them.

    Where processes share it, `batch` is of a shard, which has `weight` of the samples; `keys` are those of the whole
    micro-batch, with its first shard here, and none with the others.
    """

    keys: list[Key]
    position: int
    batch: Any
    bad: tuple[BadSample, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Makes the micro-batch of a request; each item is a function of (seed, epoch, sample).

    A data set that is read by `sample(index, rng)` gets a numpy generator; the global streams, and the generators that
    the data set holds, are seeded for each item, so that ordinary augmentation code is exact as well. What goes wrong
    is returned, not raised: it must travel.
    """

    dataset: Any
    seed: int
    join: Collate
    holders: Holders
    on_bad: OnBad = "stop"
    excluded: frozenset[Key] = frozenset()
    tells_epoch: bool = True
    _told: list[int] = field(default_factory=list, repr=False)  # the epoch that the data set was told last

    @cached_property
    def _by_sample(self) -> bool:
        return is_read_by_sample(self.dataset)

    def __call__(self, request: Request, after: int | None = None) -> LoadedBatch | UnbrokenError:
        """The micro-batch, or why there is none; `after` is the number from which what follows it draws, if known.

        To seed the global streams takes most of the time, so those that nothing draws from are left alone. Where one is
        drawn from after all, in items or in their collation, the batch is read again, and it is seeded from then on.
        """
        threads = _one_thread()
        try:
            epoch = request.keys[0][0]
            while (undrawn := self.holders.undrawn(epoch)) and request.keys[-1][0] == epoch:
                for stream in undrawn:  # what follows finds them where it wants them to begin
                    stream.watch(self.seed if after is None else after)
                answer = self._made(request, self._read if self.holders.drawn else None)
                if not (drawn := [stream for stream in undrawn if stream.is_drawn()]):
                    return answer
                self.holders.note_drawn(drawn)
            return self._made(request, self._read_on_its_own)
        finally:
            if threads:
                _put_back(threads)

    def _made(self, request: Request, read: Callable[[int, int, Any], Any] | None) -> LoadedBatch | UnbrokenError:
        """The micro-batch of items that `read` gives of an epoch, a name and an index; None: no stream is begun."""
        keys, position, drawn = request
        plain = self.dataset if read is None and not self._by_sample else None
        read, excluded, told = read or self._item, self.excluded, self._told if self.tells_epoch else None
        items: dict[Key, Any] = {}
        bad: list[BadSample] = []
        places = zip(keys, drawn if drawn is not None else [sample for _, sample in keys])
        while True:
            try:
                for key, index in places:  # where one is bad, it goes on with the next
                    epoch, name = key
                    if excluded and key in excluded:
                        bad.append(BadSample(epoch=epoch, sample=name, reason=EXCLUDED))
                        continue
                    if told is not None and told != [epoch]:
                        told[:] = [epoch]
                        tell_epoch(self.dataset, epoch)
                    if isinstance(index, list):  # a sampler drew batches: this is one
                        items[key] = [read(epoch, (name << 32) + place, each) for place, each in enumerate(index)]
                    else:
                        items[key] = read(epoch, name, index) if plain is None else plain[index]
                break
            except (KeyboardInterrupt, Exit):
                raise
            except BaseException as error:  # noqa: BLE001 - a user's data set may raise anything, and end the process
                one = Request([key], position, None if drawn is None else [index])
                if self.on_bad == "stop" or not (self.on_bad == "list" or _is_of_the_sample(error)):
                    return self._unreadable(one, error)
                bad.append(BadSample(epoch=epoch, sample=name, reason=str(self._unreadable(one, error))))
        return self._joined(items, request, tuple(bad))

    def _read_on_its_own(self, epoch: int, name: int, index: Any) -> Any:
        """One sample under its name in the epoch, whatever it is drawn from."""

        def read() -> Any:
            seed_cpu_streams(seed_for_sample(self.seed, epoch, name))
            return self.holders.watched(lambda: self._item(epoch, name, index))

        return self.holders.read(read, seed=self.seed, epoch=epoch, sample=name, row=index)

    def _read(self, epoch: int, name: int, index: Any) -> Any:
        """The same where it is known which global streams it is drawn from, and that there is nothing else."""
        number = seed_for_sample(self.seed, epoch, name)
        for stream in self.holders.drawn:
            stream.seed(number)
        return self._item(epoch, name, index)

    def words(self, request: Request) -> str:
        """`samples 3, 17 of epoch 0 of Tiles`."""
        keys = request.keys
        numbers = request.drawn if request.drawn is not None else [sample for _, sample in keys]
        named = some_of(numbers, MOST_NAMED)
        epochs = sorted({epoch for epoch, _ in keys})
        epochs_named = f"epoch{'s' if len(epochs) > 1 else ''} {' and '.join(map(str, epochs))}"
        which = "sample" if len(keys) == 1 else "samples"
        return f"{which} {named} of {epochs_named} of {type(self.dataset).__name__}"

    def size(self, request: Request) -> int:
        """How many samples it asks for."""
        return len(request.keys)

    def _item(self, epoch: int, name: int, index: Any) -> Any:
        if self._by_sample:
            return self.dataset.sample(index, generator_for_sample(self.seed, epoch, name))
        return self.dataset[index]

    def _joined(
        self, read: Mapping[Key, Any], request: Request, bad: tuple[BadSample, ...]
    ) -> LoadedBatch | UnbrokenError:
        if not read:
            return LoadedBatch(keys=[], position=request.position, batch=None, bad=bad)
        try:
            batch = self.join(list(read.values()))
        except (KeyboardInterrupt, Exit):
            raise
        except UnbrokenError as error:
            return error
        except BaseException as error:  # noqa: BLE001 - as above
            found = f"{type(error).__name__}: {error}"
            where, do = self._words_of_read(read, request)
            return UnreadableSample(
                where, "the collate function failed on them", found=found, do=do, trace=_trace_of(error)
            )
        if batch is None or (isinstance(batch, MAY_BE_EMPTY) and not batch):
            found = "None" if batch is None else f"an empty {type(batch).__name__}"
            where, do = self._words_of_read(read, request)
            what = f"the collate function returned {found}"
            return UsageError(where, what, expected=f"a batch of {counted(len(read), 'sample')}", do=do)
        return LoadedBatch(keys=list(read), position=request.position, batch=batch, bad=bad)

    def _words_of_read(self, read: Mapping[Key, Any], request: Request) -> tuple[str, str]:
        """Which samples could not be joined, and what may help."""
        keys, position, drawn = request
        left = None if drawn is None else [each for key, each in zip(keys, drawn) if key in read]
        nothing = next((sample for (_, sample), item in read.items() if item is None), None)
        gave = f"Of sample {nothing} the data set gave None: give what the collate function takes."
        return self.words(Request(list(read), position, left)), gave if nothing is not None else ""

    def _unreadable(self, one: Request, error: BaseException) -> UnbrokenError:
        """What is raised in the trainer: it names the sample, and its file where that can be known."""
        if isinstance(error, UnreadableSample) or (
            isinstance(error, UnbrokenError) and not isinstance(error, DamagedFile)
        ):
            return error
        if isinstance(error, DamagedFile):
            return UnreadableSample(error.where, error.what, expected=error.expected, found=error.found, do=error.do)
        sample = self.words(one)
        file = _file_of(error)
        hint = ""
        if isinstance(error, IndexError | KeyError) and (now := len(self.dataset)) <= one.keys[0][1]:
            hint = f"The data set has {counted(now, 'sample')} now; its length must not change in a training."
        return UnreadableSample(
            file or sample,
            f"{sample} cannot be read" if file else "it cannot be read",
            found=f"{type(error).__name__}: {error}",
            do=hint,
            trace=_trace_of(error),
        )


def _is_of_the_sample(error: BaseException) -> bool:
    """Whether leaving the sample out helps: not where memory ran out, nor where a config is wrong."""
    if isinstance(error, UnbrokenError):
        return isinstance(error, DamagedFile)
    return isinstance(error, Exception) and not isinstance(error, MemoryError)


def _trace_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _file_of(error: BaseException) -> str:
    """The file that a data set was reading: the system names it, or the innermost variable that is one does."""
    if isinstance(error, OSError) and isinstance(error.filename, str | os.PathLike):
        return str(error.filename)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames[1:]):
        for value in frame.f_locals.values():
            if isinstance(value, str | Path) and 0 < len(str(value)) < LONGEST_PATH and _is_data(str(value)):
                return str(value)
    return ""


def _is_data(name: str) -> bool:
    try:
        return not name.endswith(".py") and Path(name).is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """Make loading in the training process compute what a worker would: with one thread."""
    threads = _one_thread()
    try:
        yield
    finally:
        if threads:
            _put_back(threads)


def _one_thread() -> int:
    """Compute with one thread, as workers do; returns how many there were, and 0 in a worker."""
    if get_worker_info() is not None:
        return 0
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    return threads


def _put_back(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def load(
    dataset: Any,
    order: Order,
    position: int,
    *,
    batch_size: int,
    workers: int,
    collate: Collate | None = None,
    pin_memory: bool = False,
    on_bad: OnBad = "stop",
    excluded: frozenset[Key] = frozenset(),
    sharing: Sharing = WHOLE,
    how: HowRead = HowRead(),
    permutations: Permutations | None = None,
    after: Callable[[], int] | None = None,
) -> Generator[LoadedBatch, None, None]:
    """Batches from `position` on, endless but for `how`; workers run ahead, but only what is yielded counts as used.

    The samples of `excluded` are left out as if they could not be read. What a user can act on (an unreadable picture,
    say) comes out of a worker as it was raised there. `after` gives the number from which what follows the next batch
    draws. Of shared batches come this process's shards, one after the other; one that is empty is read as the first
    sample of its micro-batch, of weight 0.
    """
    places = micro_batches(order, position, batch_size=batch_size, permutations=permutations)
    wholes = deque[tuple[list[Key], float]]()  # of the shards that were asked for and have not come
    requests = _asked(order, places if sharing.is_whole else _shards(places, sharing, wholes, position))
    if how.in_epoch:
        requests = _until(requests, (position // order.size + 1) * order.size)
    reading = Reading(
        dataset=dataset,
        seed=order.seed,
        join=collate or default_collate,
        holders=Holders(dataset, collate),
        on_bad=on_bad,
        excluded=excluded,
        tells_epoch=how.tells_epoch,
    )
    pins = pin_memory and torch.cuda.is_available()
    ahead = Workers(reading, requests, workers=workers, dataset=dataset, how=how) if workers else None
    is_whole = sharing.is_whole
    try:
        for item in ahead if ahead is not None else _here(reading, requests, after):
            if isinstance(item, UnbrokenError):
                raise item
            if not is_whole:
                keys, weight = wholes.popleft()
                item = item._replace(keys=keys, weight=weight)
            yield item._replace(batch=pinned(item.batch)) if pins else item  # type: ignore[no-untyped-call]  # torch has no type for it
    finally:
        if ahead is not None:
            ahead.close()


def _asked(order: Order, places: Iterable[tuple[list[Key], int]]) -> Iterator[Request]:
    """The requests of micro-batches; where a sampler draws, keys hold places in what it drew."""
    for keys, after in places:
        drawn = order.of(keys[0][0]).drawn
        yield Request(keys, after, [drawn(epoch)[place] for epoch, place in keys] if drawn is not None else None)


def _until(requests: Iterable[Request], end: int) -> Iterator[Request]:
    """Those before a position; what follows is not looked at: its sampler may go by what is trained until there."""
    for request in requests:
        yield request
        if request.position >= end:
            return


def _shards(
    places: Iterable[tuple[list[Key], int]], sharing: Sharing, wholes: deque[tuple[list[Key], float]], position: int
) -> Iterator[tuple[list[Key], int]]:
    """This process's shards of micro-batches; the position moves on with the last one of each."""
    for keys, after in places:
        for shard in sharing.mine:
            part = sharing.part(keys, shard)
            wholes.append((keys if shard == sharing.mine[0] else [], len(part) / len(keys)))
            position = after if shard == sharing.mine[-1] else position
            yield list(part or keys[:1]), position


def _here(
    reading: Reading, requests: Iterator[Request], after: Callable[[], int] | None
) -> Iterator[LoadedBatch | UnbrokenError]:
    """In this process."""
    for request in requests:
        with interruptible():
            item = reading(request, after() if after is not None else None)
        yield item


def read_again(dataset: Any, order: Order, key: Key, *, collate: Collate | None) -> Any:
    """A batch of one sample, read in this process; raises what keeps it from being read."""
    join = collate or default_collate
    reading = Reading(dataset=dataset, seed=order.seed, join=join, holders=Holders(dataset, collate))
    item = reading(next(_asked(order, [([key], 0)])))
    if isinstance(item, UnbrokenError):
        raise item
    return item.batch


def tell_epoch(dataset: Any, epoch: int) -> None:
    """Tell a data set, and those that it is made of, which epoch it is, where they have a `set_epoch(epoch)`."""
    while dataset is not None:
        if callable(set_epoch := getattr(dataset, "set_epoch", None)) and signature(set_epoch).parameters:
            set_epoch(epoch)
        dataset = getattr(dataset, "dataset", None)


def is_read_by_sample(dataset: Any) -> bool:
    """Whether items come from `sample(index, rng)`: where a data set cannot be indexed.

    One that can is read as everywhere, and what it calls `sample` is its own.
    """
    indexes = getattr(type(dataset), "__getitem__", Dataset.__getitem__) is not Dataset.__getitem__
    return not indexes and callable(getattr(dataset, "sample", None))


def is_indexed(dataset: Any) -> bool:
    """Whether a data set's samples have numbers."""
    return hasattr(dataset, "__len__") and (is_read_by_sample(dataset) or hasattr(dataset, "__getitem__"))


def size_of(dataset: Any) -> int:
    """How many samples a data set has; an error for one that cannot be indexed."""
    name = type(dataset).__name__
    if not is_indexed(dataset):
        raise UsageError(
            name,
            "an exact position needs a data set that can be indexed",
            expected="__len__ and __getitem__(index), or sample(index, rng)",
            found="an iterable data set" if hasattr(dataset, "__iter__") else "neither",
            do="Give each sample a number, for example by listing the files first.",
        )
    try:
        size = len(dataset)
    except Exception as error:
        raise UsageError(name, "its length cannot be asked", found=f"{type(error).__name__}: {error}") from error
    if size == 0:
        raise UsageError(name, "the data set is empty", expected="at least one sample")
    return size
