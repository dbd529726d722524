"""How the batches of a source are made: said to `run.batches`, or by a ready `DataLoader`, never by both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, default_collate, default_convert

from unbroken.errors import UsageError
from unbroken.train.data.loader import Collate, HowRead
from unbroken.train.data.order import Shuffle
from unbroken.train.data.random_holders import random_holders

OF_A_LOADER = ("batch_size", "shuffle", "drop_last", "collate", "pin_memory")  # what it says itself
OWN_DATA_SET = "Give the data set itself: run.batches(dataset, batch_size=..., collate=..., workers=...)."


class Unsaid(Enum):
    """What a loop does not say."""

    UNSAID = auto()


UNSAID = Unsaid.UNSAID


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How batches are made. A `sampler` gives the indices of each epoch, or lists of them; None: `shuffle` says it.

    `batch_size` counts the samples that all processes take together; `per_process` where a loader says it by what each
    of its processes takes.
    """

    batch_size: int
    workers: int = 0
    shuffle: Shuffle = "epoch"
    drop_last: bool = False
    collate: Collate = default_collate
    pin_memory: bool = False
    sampler: Any = None
    how: HowRead = field(default_factory=HowRead)
    per_process: bool = False
    generators: tuple[Any, ...] = ()  # of a ready loader and its samplers: what they draw is drawn under a name


def batching_of(source: Any, said: Mapping[str, Any]) -> tuple[Any, Batching]:
    """The data set of a source and how its batches are made; `said` holds what the loop gave to `run.batches`.

    Raises UsageError for what cannot be taken over, by its name.
    """
    if isinstance(source, DataLoader):
        require_unsaid(source, said)
        batching = _of_loader(source)
        return source.dataset, replace(batching, workers=said.get("workers", batching.workers))
    if "batch_size" not in said:
        raise UsageError("run.batches(batch_size)", "how many samples does a batch have?", do="Say batch_size=....")
    shuffle = said.get("shuffle", True)
    kind: Shuffle = ("epoch" if shuffle else "none") if isinstance(shuffle, bool) else shuffle
    collate = said.get("collate") or default_collate
    if said["batch_size"] is None:  # as a DataLoader has it: one sample after the other
        said, collate = {**said, "batch_size": 1}, partial(_of_one, said.get("collate") or default_convert)
    return source, Batching(**{**said, "collate": collate, "shuffle": kind})


def generators_of(loader: DataLoader[Any]) -> tuple[Any, ...]:
    """The random generators that a loader holds itself, or its samplers do."""
    held = [each for sampler in (loader.sampler, loader.batch_sampler) for _, each in random_holders(sampler)]
    own = [loader.generator] if loader.generator is not None else []
    return tuple({id(each): each for each in (*own, *held)}.values())


def require_unsaid(loader: DataLoader[Any], said: Mapping[str, Any]) -> None:
    """Raise where a loop says what its loader says too."""
    doubled = [f"{name}=" for name in OF_A_LOADER if said.get(name) is not None]
    if doubled:
        kind = type(loader).__name__
        raise UsageError("run.batches", f"{', '.join(doubled)} is said by the {kind} already", do="Leave it out here.")


def _of_loader(loader: DataLoader[Any]) -> Batching:
    kind, batches = type(loader), loader.batch_sampler
    own_way = kind.__iter__ is not DataLoader.__iter__ and not kind.__module__.startswith("torchdata.")
    if own_way:
        what = f"{kind.__name__} goes through its data in a way of its own, which cannot be begun in the middle"
        raise UsageError("run.batches", what, expected="a DataLoader of torch", do=OWN_DATA_SET)
    if loader.pin_memory_device:
        what = f"pin_memory_device={loader.pin_memory_device!r} of the {kind.__name__} cannot be taken over"
        raise UsageError("run.batches", what, do="Leave it out: memory is pinned for the current device.")
    common = Batching(
        batch_size=1,
        workers=loader.num_workers,
        collate=loader.collate_fn,
        pin_memory=loader.pin_memory,
        generators=generators_of(loader),
        how=HowRead(
            ahead=loader.prefetch_factor or HowRead().ahead,
            timeout_s=loader.timeout,
            begin_worker=loader.worker_init_fn,
            context=loader.multiprocessing_context,
        ),
    )
    if batches is None:  # no batches: what comes is one sample after the other
        return _ordered(replace(common, collate=partial(_of_one, loader.collate_fn)), loader, loader.sampler)
    if not isinstance(batches, BatchSampler) or not _is_torchs(batches):
        return replace(common, sampler=batches, collate=partial(_of_one, loader.collate_fn))
    plain = replace(common, batch_size=batches.batch_size, drop_last=batches.drop_last)
    return _ordered(plain, loader, batches.sampler)


def _ordered(batching: Batching, loader: DataLoader[Any], sampler: Any) -> Batching:
    """Torch's own orders of a whole data set are those of ours; whatever else gives indices is asked for them."""
    kind = type(sampler).__name__ if _is_torchs(sampler) else ""  # torchdata has classes of the same names
    if kind == "SequentialSampler":
        return replace(batching, shuffle="none")
    if kind == "DistributedSampler":  # each process gets its share here: what counts is the whole that it is of
        together = batching.batch_size * sampler.num_replicas
        order: Shuffle = "epoch" if sampler.shuffle else "none"
        return replace(batching, batch_size=together, shuffle=order, per_process=True)
    if kind == "RandomSampler":
        size = len(loader.dataset)  # type: ignore[arg-type]  # one that can be indexed has a length
        if not sampler.replacement and sampler.num_samples == len(sampler.data_source) == size:
            return replace(batching, shuffle="epoch")
    return replace(batching, sampler=sampler)


def _is_torchs(sampler: Any) -> bool:
    return type(sampler).__module__.startswith(("torch.utils.data.", "torchdata."))


def _of_one(collate: Callable[[Any], Any], items: list[Any]) -> Any:
    return collate(items[0])
