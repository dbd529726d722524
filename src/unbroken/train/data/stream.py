"""The data side of a run where samples have no numbers: by the state of what gives them, or by passing over them again.

Each batch is drawn under a name, (seed, pass, batch): read again from the beginning of its pass it is the same batch.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from inspect import Parameter, signature
from types import GeneratorType
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, default_collate
from torch.utils.data.dataloader import _BaseDataLoaderIter

from unbroken.errors import UnbrokenError, UnreadableSample, UsageError
from unbroken.quantities import counted
from unbroken.train.data.batching import Batching, generators_of, require_unsaid
from unbroken.train.data.loader import BadSample, LoadedBatch, as_in_a_worker, is_indexed, tell_epoch
from unbroken.train.data.order import Key
from unbroken.train.data.random_holders import begin, random_holders
from unbroken.train.data.rng import seed_cpu_streams, seed_for_sample
from unbroken.train.data.takeover import Foreign
from unbroken.train.progress import Progress
from unbroken.train.state.held import reachable
from unbroken.train.state.tree import from_plain, to_plain
from unbroken.train.stop import Exit, interruptible

OF_BATCHES = ("drop_last", "collate", "pin_memory")  # what says how batches are made of samples
MANY = 100  # batches; of more, it is said how far the passing over is
OF_HUGGING_FACE = "datasets."  # its state is of one pass: where the next one begins, its number is enough
FORGETFUL = ("BufferShuffledExamplesIterable",)  # of Hugging Face: its state leaves out what its buffer holds
VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
BEGINNING = -1  # in place of a batch's number


def is_stream(source: Any) -> bool:
    """Whether a source gives samples or batches that have no numbers."""
    if isinstance(source, DataLoader):
        return isinstance(source.dataset, IterableDataset)
    if isinstance(source, type) or not (hasattr(source, "__iter__") or callable(source)):
        return False
    return isinstance(source, IterableDataset) or not is_indexed(source)


@dataclass(kw_only=True)
class StreamFeed:
    """The batches of a stream; `position` counts those of all passes, `used` those of the pass that is in progress."""

    dataset: Any
    batching: Batching
    seed: int
    say: Callable[[str], None]
    batches: Iterable[Any]  # each iteration is a pass
    stateful: Any  # whose state leads to the position; None where only counting does
    position: int = 0
    passes: int = 0
    used: int = 0
    excluded: frozenset[Key] = frozenset()
    at_end_of_epoch: bool = False  # it is not known before the next batch is asked for
    _iterator: Iterator[Any] | None = field(default=None, repr=False)
    _to_load: Any = field(default=None, repr=False)
    _holders: list[tuple[str, Any]] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """What a person calls it."""
        return getattr(self.dataset, "__name__", type(self.dataset).__name__)

    @property
    def is_in_epoch(self) -> bool:
        """Whether a pass is begun and not ended."""
        return self.used > 0

    @property
    def batch(self) -> int:
        """Which batch of its pass was handed out last, from 0."""
        return max(self.used - 1, 0)

    def end_epoch(self, number: int, progress: Progress) -> str:
        """Go to the beginning of the pass after this one; says what of it was used where it is not at its end."""
        if self.passes > number:
            return ""
        used, self.passes, self.used = self.used, number + 1, 0
        self._iterator = self._to_load = None
        self.note(progress)
        return counted(used, "batch", "batches")

    def has_passed(self, epochs: int) -> bool:
        """Whether so many passes are done."""
        return self.passes >= epochs

    def next(self) -> tuple[LoadedBatch, tuple[BadSample, ...]] | None:
        """The next batch; None where a pass ends."""
        if self._iterator is None:
            self._iterator = self._begun()
        try:
            batch = self._drawn(self.used, self._iterator.__next__)
        except StopIteration:
            if not self.used:
                raise self._nothing() from None
            self.passes, self.used, self._iterator = self.passes + 1, 0, None
            return None
        self.used += 1
        self.position += 1
        return LoadedBatch(keys=[], position=self.position, batch=batch), ()

    def _begun(self) -> Iterator[Any]:
        """The pass in progress, at its position."""
        tell_epoch(self.batches, self.passes)
        self._holders = list(random_holders(self.dataset, self.batching.collate))
        self._holders += [(f"loader {at}", each) for at, each in enumerate(self.batching.generators)]
        if self._to_load is not None:
            self.stateful.load_state_dict(from_plain(self._to_load))
            self._to_load = None
            return self._iterated()
        iterator = self._iterated()
        if self.used:
            self._pass_over(iterator)
        return iterator

    def _iterated(self) -> Iterator[Any]:
        iterator: Iterator[Any] = self._drawn(BEGINNING, lambda: iter(self.batches))
        return iterator

    def _pass_over(self, iterator: Iterator[Any]) -> None:
        batches = counted(self.used, "batch", "batches")
        are = "that was used is" if self.used == 1 else "that were used are"
        self.say(f"{self.name} has no state that leads on: {batches} of pass {self.passes + 1} {are} read again")
        for number in range(self.used):
            try:
                self._drawn(number, iterator.__next__)
            except StopIteration:
                raise UsageError(
                    self.name,
                    f"its pass {self.passes + 1} ends after {number} batches, of which {self.used} were used before",
                    do="Give the data that the run was trained on, or begin anew with --fresh.",
                ) from None
            if self.used >= MANY and (number + 1) % -(-self.used // 10) == 0:
                self.say(f"passed over {number + 1} of {batches}")

    def _drawn(self, number: int, draw: Callable[[], Any]) -> Any:
        """What is drawn under a name: all generators are seeded for it."""
        with as_in_a_worker(), interruptible():
            seed_cpu_streams(seed_for_sample(self.seed, self.passes, number))
            for path, holder in self._holders:
                name = f"{self.seed}:{self.passes}:{number}:{path}"
                begin(holder, hashlib.sha256(name.encode()).digest())
            try:
                return draw()
            except (StopIteration, KeyboardInterrupt, Exit, UnbrokenError):
                raise
            except Exception as error:
                where = f"batch {number + 1} of pass {self.passes + 1} of {self.name}"
                found, trace = f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)).rstrip()
                raise UnreadableSample(where, "it cannot be read", found=found, trace=trace) from error

    def _nothing(self) -> UsageError:
        return UsageError(
            self.name,
            f"its pass {self.passes + 1} gives no batch",
            do="It must begin anew each time it is gone through: give a class with __iter__, or the function that "
            "makes its iterator.",
        )

    # -- how far it is -------------------------------------------------------------------------------------------

    def coming(self, *, count: int) -> list[Key]:  # noqa: ARG002 - nobody knows
        """The samples of the next micro-batches: they have no numbers."""
        return []

    def steps_left(self, epochs: int, *, accumulate: int) -> None:
        """Steps to the end: a stream does not say."""

    def last_step(self, epochs: int | None, done: int, accumulate: int) -> None:
        """The step that ends the training: a stream does not say."""

    def micro_batches(self, epochs: int) -> None:
        """How many micro-batches so many passes have: a stream does not say."""

    def require_order(self, progress: Progress) -> None:
        """Raise where what was begun cannot be gone on with."""
        before, now = progress.order, self._described()
        if progress.step and "stream" not in before:
            raise UsageError(
                "run.batches",
                f"{self.name} has no numbered samples, and {counted(progress.step, 'step')} were trained on such",
                do="Give the data set that the run was trained on, or begin anew with --fresh.",
            )
        if not before or not before["used"]:
            return
        fixed = ("by", "workers") if self.stateful is not None else ("by", "workers", "batch_size")
        changed = [f"{name} {before[name]} -> {now[name]}" for name in fixed if before[name] != now[name]]
        if changed:
            raise UsageError(
                "run.batches",
                f"pass {before['passes'] + 1} of {self.name} was begun otherwise: the batches of a stream depend on it",
                found=", ".join(changed),
                do="Set it back until this pass is done, or begin anew with --fresh.",
            )

    def continue_from(self, progress: Progress, *, foreign: Foreign | None, accumulate: int) -> str | None:  # noqa: ARG002
        """Take the position of a run over; returns what to say of it."""
        if foreign is not None:
            what = "a file of another program does not say where a stream stands"
            raise UsageError("run.batches", what, do="Give a data set whose samples have numbers, or fine-tune.")
        before = progress.order
        if before:
            self.position, self.passes, self.used = progress.position, before["passes"], before["used"]
            hugging_face = type(self.stateful).__module__.startswith(OF_HUGGING_FACE)
            if self.stateful is not None and (self.used or not hugging_face):
                self._to_load = progress.stream
        if self.position and self.stateful is not None:
            return f"{self.name}: its own state leads to batch {self.used} of pass {self.passes + 1}"
        return None

    def follow(self, before: Any, progress: Progress) -> str | None:  # noqa: ARG002
        """Go on where the feed of the epoch before is."""
        name = getattr(before, "name", "samples with numbers")
        if not isinstance(before, StreamFeed) or name != self.name:
            what = "this epoch has another stream than the one before"
            raise UsageError("run.batches", what, expected=name, found=self.name, do="Open a second run.")
        self.position, self.passes, self.used = before.position, before.passes, before.used
        if self.dataset is before.dataset and (before._iterator is not None or before._to_load is not None):
            self.batches, self.stateful = before.batches, before.stateful
            self._iterator, self._to_load, self._holders = before._iterator, before._to_load, before._holders
        return None

    def note(self, progress: Progress) -> None:
        """Write down where it is, after a finished step or pass."""
        progress.position, progress.dataset_size, progress.order = self.position, 0, self._described()
        if self.stateful is not None:
            progress.stream = to_plain(deepcopy(self.stateful.state_dict()), self.name, exact=True)

    def _described(self) -> dict[str, Any]:
        return {
            "stream": self.name,
            "by": "state" if self.stateful is not None else "count",
            "passes": self.passes,
            "used": self.used,
            "batch_size": self.batching.batch_size,
            "workers": self.batching.workers,
        }


def stream_of(source: Any, said: Mapping[str, Any], *, seed: int, say: Callable[[str], None]) -> StreamFeed:
    """The feed of a stream, from what a loop says; raises UsageError for what cannot be begun again."""
    _require_repeatable(source)
    if said.get("shuffle", False) is not False:
        what = f"{_name(source)} gives its samples in an order of its own: shuffle= has nothing to shuffle"
        raise UsageError("run.batches", what, do="Leave it out, and shuffle inside the stream.")
    batches: Iterable[Any]
    if isinstance(source, DataLoader):
        require_unsaid(source, said)
        batches, dataset = source, source.dataset
        batching = Batching(
            batch_size=source.batch_size or 0,
            workers=source.num_workers,
            collate=source.collate_fn,
            generators=generators_of(source),
        )
        if (asked := said.get("workers", source.num_workers)) != source.num_workers:
            say(f"note: workers={asked} has no effect: {_name(source)} reads with num_workers={source.num_workers}")
    else:
        asked, alone = said.get("workers", 0), not isinstance(source, IterableDataset) or _has_state(source)
        if alone and asked:
            say(f"note: {_name(source)} is read in this process: each of {counted(asked, 'worker')} would have a copy")
        elif asked and "batch_size" not in said:
            say(f"note: workers={asked} has no effect: without batch_size= {_name(source)} is read in this process")
        alone |= "batch_size" not in said
        if idle := [f"{name}=" for name in OF_BATCHES if said.get(name) and "batch_size" not in said]:
            what = f"{' '.join(idle)} has nothing to act on: {_name(source)} gives whole batches"
            raise UsageError("run.batches", what, do="Leave it out, or say batch_size= where it gives samples.")
        workers, collate = (0 if alone else asked), said.get("collate") or default_collate
        batching = Batching(batch_size=said.get("batch_size", 0), workers=workers, collate=collate)
        passes, dataset = _Passes(source), source
        batches = passes
        if "batch_size" in said:
            inner = source if isinstance(source, IterableDataset) else passes
            extra = {name: said[name] for name in ("drop_last", "pin_memory") if name in said}
            batches = DataLoader(inner, said["batch_size"], num_workers=workers, collate_fn=collate, **extra)
    if batching.workers and _has_state(source):
        say(
            f"warning: the state of {_name(source)} holds nothing of what its workers draw at random: where they do, a "
            "resumed session draws otherwise (with num_workers=0, and with a DataLoader of torch, it is the same)"
        )
    stateful = next((each for each in (source, dataset) if _has_state(each)), None)
    if stateful is dataset and batching.workers:
        stateful = None  # the copies in the workers have the states
    if stateful is not None and any(type(each).__name__ in FORGETFUL for _, each in reachable([("", dataset)])):
        stateful = None
    return StreamFeed(dataset=dataset, batching=batching, seed=seed, say=say, batches=batches, stateful=stateful)


class _Passes(IterableDataset[Any]):
    """What is gone through anew in each pass: an iterable, or what a function makes."""

    def __init__(self, source: Any) -> None:
        self.dataset = source

    def __iter__(self) -> Iterator[Any]:
        return iter(self.dataset if hasattr(self.dataset, "__iter__") else self.dataset())


def _require_repeatable(source: Any) -> None:
    """Raise for an iterator: what it gave is gone, and the next process cannot begin it again."""
    of_a_library = type(source).__module__ in ("builtins", "itertools")
    if _has_state(source) or not (hasattr(source, "__next__") and (of_a_library or _is_iterator(source))):
        return
    made_by = "the DataLoader itself" if isinstance(source, _BaseDataLoaderIter) else "the function that makes it"
    raise UsageError(
        "run.batches",
        f"{_name(source)} ({type(source).__name__}) can be gone through once only: no session could begin it again",
        expected="something that can be gone through again",
        do=f"Give {made_by}, without calling it, or an object with __iter__.",
    )


def _is_iterator(source: Any) -> bool:
    return isinstance(source, GeneratorType | _BaseDataLoaderIter)


def _has_state(source: Any) -> bool:
    """Whether it gives its state to who asks for it; a `state_dict` with arguments is for its own loader alone."""
    give, take = (getattr(source, name, None) for name in ("state_dict", "load_state_dict"))
    if not (callable(give) and callable(take)):
        return False
    return all(each.default is not each.empty or each.kind in VARIABLE for each in signature(give).parameters.values())


def _name(source: Any) -> str:
    return getattr(source, "__name__", type(source).__name__)
