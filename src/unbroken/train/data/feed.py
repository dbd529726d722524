"""The data side of a run where samples have numbers: one data set's micro-batches from the exact position on."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

from torch.utils.data import Subset

from unbroken.errors import DamagedFile, UnbrokenError, UsageError
from unbroken.journal import packed
from unbroken.launch.options import require_enough
from unbroken.train.data.batching import Batching, batching_of
from unbroken.train.data.drawn import EpochIndices
from unbroken.train.data.loader import BadSample, LoadedBatch, OnBad, load, read_again, size_of
from unbroken.train.data.order import LARGE, Key, Order, Permutations, micro_batches, steps_in_epoch, steps_left
from unbroken.train.data.sharing import WHOLE, Sharing
from unbroken.train.data.stream import StreamFeed, is_stream, stream_of
from unbroken.train.data.takeover import Foreign, place_in_data
from unbroken.train.progress import Progress


@dataclass(kw_only=True)
class Feed:
    """Workers run ahead of `position`, which counts only what was handed out; they live as long as the feed.

    Where only what the loop says between two epochs can be true (`in_epoch`), they end with their epoch.
    """

    dataset: Any
    order: Order
    batching: Batching
    on_bad: OnBad = "stop"
    after: Callable[[], int] | None = None  # gives the number from which what follows the next batch will draw
    position: int = 0
    excluded: frozenset[Key] = frozenset()  # left out as if they could not be read; set before the first is read
    _loaded: Iterator[LoadedBatch] | None = field(default=None, repr=False)
    _failed: UnbrokenError | None = field(default=None, repr=False)  # what reading ahead met
    _ahead: LoadedBatch | None = field(default=None, repr=False)
    _read_to: int = field(default=0, repr=False)
    _permutations: Permutations | None = field(default=None, repr=False)
    _coming: Permutations | None = field(default=None, repr=False)  # of positions that the workers have passed
    sharing: Sharing = WHOLE
    together: Callable[[Any], list[Any]] = lambda value: [value]  # the values of all processes, by rank
    _shards: deque[LoadedBatch] = field(default_factory=deque, repr=False)  # of a micro-batch that is being handed out
    _noted: tuple[int, dict[str, Any], Any] = field(default=(-1, {}, None), repr=False)
    _held: str | None = field(default=None, repr=False)  # what is said of an epoch that ends in the order of its file

    @property
    def at_end_of_epoch(self) -> bool:
        """Whether what was handed out last ends an epoch, and batches do."""
        epochs, begun = divmod(self.position, self.order.size)
        return epochs > 0 and not begun and not self.order.of(epochs - 1).straddles

    @property
    def is_in_epoch(self) -> bool:
        """Whether an epoch is begun and not ended."""
        return self.position % self.order.size > 0

    @property
    def batch(self) -> int:
        """Which batch of its epoch was handed out last, from 0."""
        begun = (self.position - 1) % self.order.size + 1 if self.position else 0
        return max(-(-begun // self.batching.batch_size) - 1, 0)

    def end_epoch(self, number: int, progress: Progress) -> str:
        """Go to the beginning of the epoch after this one; says what of it was used where samples are left out."""
        size = self.order.size
        if self.position >= (number + 1) * size:
            return ""
        used = progress.position - number * size
        self.position, self._read_to = (number + 1) * size, 0
        self._loaded = self._ahead = self._failed = None  # ends the workers that read ahead in it
        self._shards.clear()
        self.note(progress)
        return f"{used} of its {size} samples"

    def has_passed(self, epochs: int) -> bool:
        """Whether so many epochs are done."""
        return self.position >= epochs * self.order.size

    def next(self) -> tuple[LoadedBatch, tuple[BadSample, ...]]:
        """The next micro-batch that has samples, and all that was left out on the way past it.

        Batches of which nothing can be read are passed over right after the one before them, so that the position
        is at the end of an epoch once its last readable sample was used.
        """
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        found, self._ahead = self._ahead or self._pull(), None
        bad = list(found.bad)
        while found.batch is None:
            found = self._pull()
            bad += found.bad
            self._require_some_readable(bad)
        self.position = found.position
        skips = self.on_bad == "skip" or bool(self.excluded)
        if skips and not (self.batching.how.in_epoch and self.at_end_of_epoch):
            try:
                self._look_ahead(bad)
            except UnbrokenError as error:
                self._failed = error  # that is the next batch's affair
        return found, tuple(bad)

    def _look_ahead(self, bad: list[BadSample]) -> None:
        """Pass over what cannot be read, as far as this epoch goes."""
        self._ahead = self._pull()
        while self._ahead.batch is None and not self.at_end_of_epoch:
            bad += self._ahead.bad
            self.position = self._ahead.position
            self._ahead = self._pull()

    def _require_some_readable(self, bad: list[BadSample]) -> None:
        if len(bad) >= self.order.size:
            raise DamagedFile("data set", f"not one of its {self.order.size} samples can be read", found=bad[0].reason)

    def _shard(self) -> LoadedBatch:
        """The next shard that this process computes of a micro-batch."""
        if not self._shards:
            self._shards.extend(self._readable([self._pull(as_read=True) for _ in self.sharing.mine]))
        return self._shards.popleft()

    def _readable(self, shards: list[LoadedBatch]) -> list[LoadedBatch]:
        """The shards here of a micro-batch, as it is without what any process could not read."""
        if self.on_bad != "skip" and not self.excluded:
            return shards
        told = self.together([each for shard in shards for each in shard.bad])
        bad = tuple(each for of_rank in told for each in of_rank)
        left_out = {(each.epoch, each.sample) for each in bad}
        keys = [key for key in shards[0].keys if key not in left_out]
        if not keys:
            return [LoadedBatch(keys=[], position=shards[-1].position, batch=None, bad=bad)]
        return [*self._weighed(shards, keys, left_out, bad)]

    def _weighed(
        self, shards: list[LoadedBatch], keys: list[Key], left_out: set[Key], bad: tuple[BadSample, ...]
    ) -> Iterator[LoadedBatch]:
        """The shards with their weights among what could be read; one that has nothing left reads another's sample."""
        whole = shards[0].keys
        for number, shard in zip(self.sharing.mine, shards):
            part = [key for key in self.sharing.part(whole, number) if key not in left_out]
            batch = shard.batch
            if batch is None:
                batch = read_again(self.dataset, self.order, keys[0], collate=self.batching.collate)
            first = shard is shards[0]
            yield shard._replace(
                keys=keys if first else [], batch=batch, bad=bad if first else (), weight=len(part) / len(keys)
            )

    def _pull(self, *, as_read: bool = False) -> LoadedBatch:
        """The next micro-batch; where processes share them, the next shard here of one."""
        if self.sharing is not WHOLE and not as_read:
            return self._shard()
        while True:
            if self._loaded is None:
                self._loaded = self._load()
            found = next(self._loaded, None)
            if found is not None:
                self._read_to = found.position
                return found
            self._loaded = None  # this epoch is read: the next one finds the data set as it is then

    def _load(self) -> Iterator[LoadedBatch]:
        asked = self.batching
        self._permutations = self._permutations or Permutations(self.order)
        return load(
            self.dataset,
            self.order,
            max(self.position, self._read_to),
            batch_size=asked.batch_size,
            workers=asked.workers,
            collate=asked.collate,
            pin_memory=asked.pin_memory,
            on_bad=self.on_bad,
            excluded=self.excluded,
            sharing=self.sharing,
            how=asked.how,
            permutations=self._permutations,
            after=self.after,
        )

    def coming(self, *, count: int) -> list[Key]:
        """The samples of the next `count` micro-batches, as the order has them; none is read for that."""
        self._coming = self._coming or Permutations(self.order)
        size = self.batching.batch_size
        ahead = micro_batches(self.order, self.position, batch_size=size, permutations=self._coming)
        return [key for keys, _ in islice(ahead, count) for key in keys]

    def steps_left(self, epochs: int, *, accumulate: int) -> int:
        """Steps from here to the end of the last epoch."""
        return steps_left(
            self.order, self.position, epochs=epochs, batch_size=self.batching.batch_size, accumulate=accumulate
        )

    def last_step(self, epochs: int | None, done: int, accumulate: int) -> int | None:
        """The step that ends the last epoch; None where the length is no number of epochs."""
        return None if epochs is None else done + self.steps_left(epochs, accumulate=accumulate)

    def micro_batches(self, epochs: int) -> int:
        """How many micro-batches so many epochs have."""
        return epochs * steps_in_epoch(self.order, batch_size=self.batching.batch_size)

    def require_order(self, progress: Progress) -> None:
        """Raise where an epoch that was begun cannot end in the order in which it began, or nothing gives an order."""
        if "stream" in progress.order:
            what = f"the run was trained on a stream ({progress.order['stream']}), which has no numbered samples"
            raise UsageError("run.batches", what, do="Give that stream again, or begin anew with --fresh.")
        if self.order.drawn is not None:
            self.order.drawn(progress.position // self.order.size)
        self._hold(progress)

    def continue_from(self, progress: Progress, *, foreign: Foreign | None, accumulate: int) -> str | None:
        """Take the position of a run over; returns what to say if the data is not what it was.

        A `foreign` file, of another program, counted steps; its samples are counted from these.
        """
        size, before = self.order.size, progress.dataset_size
        fingerprint = _fingerprint(self.dataset)
        said = None
        if foreign is not None:
            progress.position, said = place_in_data(
                foreign, self.order, batch_size=self.batching.batch_size, accumulate=accumulate
            )
        elif before and before != size:
            epochs = -(-progress.position // before)  # the one that was begun counts as done
            said = (
                f"the data set had {before} samples and now has {size}: what was begun is not continued, "
                f"epoch {epochs + 1} begins"
            )
            progress.position = epochs * size
        elif progress.fingerprint and fingerprint and progress.fingerprint != fingerprint:
            said = "the files of the data set are not those the run was trained on: exactness starts anew here"
        else:
            self.order, said = self._hold(progress)
        # In a loop by epochs each may have another part of the data, from its beginning on.
        is_same = not progress.begun_epochs or progress.position % size > 0
        part = part_of(self.dataset)
        if is_same and part and progress.part not in ("", part):
            other = (
                "it is another part of the data than the run was trained on: exactness starts anew here. Was it drawn "
            )
            said = f"{f'{said}; ' if said else ''}warning: {other}without a seed, before open_run(...)?"
        progress.part = part
        progress.dataset_size, progress.fingerprint = size, fingerprint
        self.position = progress.position
        return said

    def follow(self, before: AnyFeed, progress: Progress) -> str | None:
        """Go on where the feed of the epoch before is, with what the loop says of this one; returns what to say."""
        epoch = progress.closed_epochs + 1
        do = "What differs from epoch to epoch may be the samples of a data set, not how many. Or open a second run."
        if not isinstance(before, Feed):
            what = f"epoch {epoch} has numbered samples, and the one before was a stream"
            raise UsageError("run.batches", what, do="Open a second run.")
        for name, expected, found in (
            ("number of samples", before.order.size, self.order.size),
            ("batch_size", before.batching.batch_size, self.batching.batch_size),
        ):
            if expected != found:
                what = f"epoch {epoch} has another {name} than the one before"
                raise UsageError("run.batches", what, expected=str(expected), found=str(found), do=do)
        if self.dataset is not before.dataset:
            progress.fingerprint, progress.part = _fingerprint(self.dataset), part_of(self.dataset)
        self.position, self.excluded = before.position, before.excluded
        if before.order == self.order:
            self.order, self._permutations = before.order, before._permutations
            return None
        self.order, said = self._hold(progress)
        return said

    def note(self, progress: Progress) -> None:
        """Write down where it is, after a finished step."""
        progress.position, progress.batch_size = self.position, self.batching.batch_size
        epoch = max(self.position - 1, 0) // self.order.size
        if self._noted[0] != epoch:
            drawn = self.order.of(epoch).drawn
            kept = drawn.kept(epoch) if isinstance(drawn, EpochIndices) else None
            self._noted = epoch, _described(self.order, epoch), kept
        _, progress.order, kept = self._noted
        progress.drawn = kept if kept is not None and self.is_in_epoch else None

    def _hold(self, progress: Progress) -> tuple[Order, str | None]:
        """The order to go on with: an epoch that was begun in another one ends in that one, if it is known."""
        order, before = self.order, progress.order
        epoch, begun = divmod(progress.position, order.size)
        if not before or progress.dataset_size != order.size or not begun:
            return order, None
        now = _described(order, epoch)
        if now == before:
            return order, self._held
        drawn = order.drawn if now.get("drawn") == before.get("drawn") else None
        if isinstance(drawn, EpochIndices) and drawn.hold(epoch, progress.drawn, crc32=before["crc32"]):
            self._held = (
                f"{before['drawn']} gives another order for epoch {epoch + 1} by now than it did when the epoch "
                "began: it ends in that one, the next is drawn anew"
            )
            return order, self._held
        if "drawn" in now or "drawn" in before:
            raise UsageError(
                "run.batches",
                f"{begun} of the {order.size} places of epoch {epoch + 1} are used, in another order than the one "
                "that is given now: the rest of it would bring some samples twice and others never",
                expected=_in_words(before),
                found=_in_words(now),
                do="Give the sampler as it was (its weights, its seed, its set_epoch), or begin anew with --fresh.",
            )
        old = Order(size=order.size, seed=order.seed, shuffle=before["shuffle"], keyed=before["keyed"])
        said = f"the order of the samples changed ({_in_words(before)} -> {_in_words(now)}): epoch {epoch + 1}, which "
        return order.held(old, since=epoch + 1), f"{said}began in the old one, ends in it; the new one follows"


def _fingerprint(dataset: Any) -> str:
    return dataset.fingerprint() if hasattr(dataset, "fingerprint") else ""


def part_of(dataset: Any) -> str:
    """Which samples a `Subset` (of a `random_split`, say) takes, as a checksum; empty for what is none."""
    if not isinstance(dataset, Subset):
        return ""
    try:
        taken = packed(dataset.indices)
    except TypeError:  # they are keys
        taken = repr([*dataset.indices]).encode()
    return f"{zlib.crc32(taken):08x}{part_of(dataset.dataset)}"


def _described(order: Order, epoch: int) -> dict[str, Any]:
    """What tells the order of an epoch from another one, as a checkpoint keeps it."""
    now = order.of(epoch)
    if isinstance(now.drawn, EpochIndices):
        return {"drawn": type(now.drawn.sampler).__name__, "crc32": now.drawn.digest(epoch)}
    return {"shuffle": now.shuffle, "keyed": now.keyed}


def _in_words(described: Mapping[str, Any]) -> str:
    if "drawn" in described:
        return f"{described['drawn']} (CRC-32 {described['crc32']:08x})"
    return f'shuffle="{described["shuffle"]}"{" keyed" if described["keyed"] else ""}'


AnyFeed = Feed | StreamFeed


@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """What a run says about its data, whatever it is; `within_epoch` where its loop goes by epochs.

    `after` gives the number from which what follows the next batch will draw: nothing is seeded twice then.
    """

    seed: int
    after: Callable[[], int] | None = None
    on_bad: OnBad = "stop"
    within_epoch: bool = False
    say: Callable[[str], None] = lambda _line: None
    sharing: Sharing = WHOLE
    together: Callable[[Any], list[Any]] = lambda value: [value]


def feed_of(source: Any, said: Mapping[str, Any], options: FeedOptions, *, progress: Progress) -> AnyFeed:
    """A feed from what a loop says about its data; raises UsageError for what has no exact position.

    Within an epoch of the loop's the data set hears of it from the loop itself, else from whoever reads a sample.
    """
    seed, within_epoch = options.seed, options.within_epoch
    if is_stream(source):
        if not options.sharing.is_whole:
            what = "a stream cannot be shared by several processes: nothing says which of them reads which of its items"
            do = "Give each item a number (a data set with __len__ and __getitem__), or train with one process."
            raise UsageError("run.batches", what, do=do)
        said = {name: value for name, value in said.items() if (name, value) != ("batch_size", None)}
        return stream_of(source, said, seed=seed, say=options.say)
    dataset, asked = batching_of(source, said)
    asked = _of_the_run(asked, progress, options.say)
    shares: Literal["processes", "shards"] = "shards" if len(options.sharing.mine) > 1 else "processes"
    require_enough(asked.batch_size, options.sharing.shards, of=shares, where="run.batches")
    size = size_of(dataset)
    if asked.sampler is not None:
        drawn = EpochIndices(sampler=asked.sampler, seed=seed)
        order = Order(size=drawn.size, seed=seed, shuffle="none", drop_last=asked.drop_last, drawn=drawn)
    else:
        keyed = asked.shuffle != "none" and _is_keyed(size, progress)
        order = Order(size=size, seed=seed, shuffle=asked.shuffle, drop_last=asked.drop_last, keyed=keyed)
    how = replace(asked.how, in_epoch=within_epoch or order.drawn is not None, tells_epoch=not within_epoch)
    return Feed(
        dataset=dataset,
        order=order,
        batching=replace(asked, how=how),
        on_bad=options.on_bad,
        after=options.after,
        sharing=options.sharing,
        together=options.together,
    )


def _of_the_run(asked: Batching, progress: Progress, say: Callable[[str], None]) -> Batching:
    """The batches of the run, also where a loader says of them only what one of its processes takes."""
    recorded = progress.batch_size
    if not asked.per_process or not recorded or recorded == asked.batch_size:
        return asked
    say(
        f"the run's batches of {recorded} samples are kept: the loader's processes would take {asked.batch_size} "
        "together"
    )
    return replace(asked, batch_size=recorded)


def _is_keyed(size: int, progress: Progress) -> bool:
    """Whether permutations are keyed: those of large data sets, but in runs that began before there were any."""
    if progress.dataset_size == size and progress.order.get("shuffle", "none") != "none":
        return bool(progress.order["keyed"])
    return size >= LARGE and (progress.dataset_size != size or bool(progress.order))
