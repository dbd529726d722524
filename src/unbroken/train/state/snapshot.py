"""A copy of a state in memory that is allocated once, laid out as the file that will be written out of it.

Fresh memory costs more than the copy itself: the system has to find and to clear each page. So the memory stays, and is
asked for in large pages. On an accelerator it is pinned, and the copies run on a stream of their own.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch

from unbroken.checkpoint.zip_layout import BLOCK_BYTES, ROOT, ZipEntry, entry_at
from unbroken.quantities import size_text
from unbroken.train.memory import free_bytes
from unbroken.train.state.in_place import same_bits
from unbroken.train.state.tree import leaves, map_leaves

Known = tuple[Any, ...]  # which numbers a tensor looks at, and how
SPARE = 16  # the memory is larger than needed by this part of it, so that a few more numbers still fit


class NoRoom(Exception):
    """There is no memory for a copy; says why."""


class Slot(NamedTuple):
    """A tensor in a file: its place, and how its numbers are looked at."""

    entry: ZipEntry
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def laid_out(tensors: Iterable[torch.Tensor], *, place: int = 0, number: int = 0) -> list[Slot]:
    """Where these lie in a file, one after the other."""
    slots = list[Slot]()
    for tensor in tensors:
        entry = entry_at(place, f"{ROOT}/data/{number}", tensor.numel() * tensor.element_size())
        # A copy has the strides of the tensor, unless that leaves out memory or looks at some of it twice.
        stride = tensor.stride() if tensor.is_contiguous() else torch.empty_like(tensor, device="meta").stride()
        slots.append(Slot(entry, tensor.dtype, tuple(tensor.shape), stride))
        place, number = entry.end, number + 1
    return slots


def distinct(tensors: Sequence[torch.Tensor]) -> tuple[list[int], list[int]]:
    """The places of those that look at numbers of their own, and for each of all which of these has its numbers."""
    own, which, found = list[int](), list[int](), dict[Any, int]()
    for place, tensor in enumerate(tensors):
        at = found.setdefault(known_by(tensor) if tensor.numel() else place, len(own))
        if at == len(own):
            own.append(place)
        which.append(at)
    return own, which


def known_by(tensor: torch.Tensor) -> Known:
    """Which numbers a tensor looks at, and how."""
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj()


def views_of(slots: Iterable[Slot], memory: torch.Tensor, *, first: int = 0) -> list[torch.Tensor]:
    """The tensors of these slots, in memory that is that of the file from the place `first` on."""
    return [
        memory[slot.entry.start - first : slot.entry.end - first].view(slot.dtype).as_strided(slot.shape, slot.stride)
        for slot in slots
    ]


def groups_of(slots: Sequence[Slot]) -> Iterator[range]:
    """The slots in groups that are about as large as what is written at once; what is larger is alone."""
    begun = 0
    for at, slot in enumerate(slots):
        if at > begun and slot.entry.end - slots[begun].entry.header > BLOCK_BYTES:
            yield range(begun, at)
            begun = at
    if slots:
        yield range(begun, len(slots))


class Snapshot:
    """The numbers of a state at one moment, where they will lie in its file; by default those of nothing."""

    def __init__(self, slots: Sequence[Slot] = (), memory: torch.Tensor | None = None) -> None:
        self.slots = slots
        self.memory = torch.empty(0, dtype=torch.uint8) if memory is None else memory
        self.views = views_of(slots, self.memory)
        self.copied: dict[torch.device, torch.cuda.Event] = {}  # the moments at which accelerators have copied theirs

    @property
    def end(self) -> int:
        """Where in a file comes what follows."""
        return self.slots[-1].entry.end if self.slots else 0

    def wait(self) -> None:
        """Return when the numbers are here."""
        for event in self.copied.values():
            event.synchronize()


class Snapshots:
    """Takes one snapshot after the other, each in the place of the one before: that is written by then."""

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None
        self._snapshot = Snapshot()
        self._known: list[Known] = []  # of all tensors of the snapshot
        self._own, self._which = list[int](), list[int]()  # as `distinct` has them
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def take(self, tree: Any, *, later: Iterable[torch.Tensor] = ()) -> tuple[Any, Snapshot]:
        """The same tree, of tensors in memory that nobody else changes.

        Those to be copied `later` change only after a call of `fence`: an accelerator computes on while it copies them.

        Raises:
            NoRoom: There is no memory for it.
        """
        tensors = [*leaves(tree, torch.Tensor)]
        if (known := [*map(known_by, tensors)]) != self._known:
            self._lay_out(tensors, known)
        sources = [tensors[at] for at in self._own]
        with torch.no_grad():
            if any(source.is_cuda for source in sources):
                self._copy_beside(sources, {known_by(tensor) for tensor in later})
            else:
                for view, source in zip(self._snapshot.views, sources):
                    view.copy_(source)
        return self._as_copied(tree, self._which), self._snapshot

    def again(self, tree: Any) -> Any:
        """The tree as it was copied last, where that is as it is now, to the bit; else None, and nothing is copied."""
        known = {self._known[place]: number for number, place in enumerate(self._own)}
        tensors = [*leaves(tree, torch.Tensor)]
        which = [known.get(known_by(tensor), -1) for tensor in tensors]
        views = self._snapshot.views
        same = (at >= 0 and not own.is_cuda and same_bits(views[at], own) for at, own in zip(which, tensors))
        return self._as_copied(tree, which) if tensors and all(same) else None

    def fence(self) -> None:
        """What an accelerator computes from here on waits until all is copied."""
        for device, event in self._snapshot.copied.items():
            torch.cuda.current_stream(device).wait_event(event)

    def _as_copied(self, tree: Any, which: Iterable[int]) -> Any:
        views = iter([self._snapshot.views[at] for at in which])
        return map_leaves(tree, torch.Tensor, lambda _: next(views))

    def _lay_out(self, tensors: Sequence[torch.Tensor], known: list[Known]) -> None:
        own, which = distinct(tensors)
        slots = laid_out(tensors[at] for at in own)
        needed = slots[-1].entry.end if slots else 0
        if self._memory is None or len(self._memory) < needed:
            self._known, self._snapshot, self._memory = [], Snapshot(), None  # what there was is given back first
            self._memory = _host_memory(needed + needed // SPARE, pinned=any(tensor.is_cuda for tensor in tensors))
        self._snapshot = Snapshot(slots, self._memory)
        self._known, self._own, self._which = known, own, which

    def _copy_beside(self, sources: Sequence[torch.Tensor], later: set[Known]) -> None:
        """Copy on streams of their own, last what only an optimizer's step changes: for the rest the training waits.

        A copy into pinned memory returns before it is done, so who reads it waits for its event; and the allocator is
        told which stream reads a tensor, or it would give its memory away meanwhile.
        """
        streams = {source.device: self._stream(source.device) for source in sources if source.is_cuda}
        for device, stream in streams.items():
            stream.wait_stream(torch.cuda.current_stream(device))  # what came before is computed when a copy begins
        is_later = [known_by(source) in later for source in sources]
        for turn in (False, True):
            for view, source, when in zip(self._snapshot.views, sources, is_later):
                if when is turn and source.is_cuda:
                    with torch.cuda.stream(streams[source.device]):
                        view.copy_(source, non_blocking=True)
                    source.record_stream(streams[source.device])
                elif when is turn:
                    view.copy_(source)
            self._snapshot.copied = {device: stream.record_event() for device, stream in streams.items()}
            if turn is False:
                self.fence()

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no type for it
        return self._streams[device]


def _host_memory(size_bytes: int, *, pinned: bool) -> torch.Tensor:
    """Memory of this process alone: no child that is forked gets it, which would make each page be copied once more."""
    free = free_bytes()
    if free is not None and size_bytes > free:
        raise NoRoom(f"a copy of the state takes {size_text(size_bytes)} of memory, and {size_text(free)} are free")
    if pinned:
        with suppress(RuntimeError):  # so much cannot be locked: it is copied more slowly, and all the same
            return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)
    if not size_bytes or not hasattr(mmap, "MAP_ANONYMOUS"):
        return torch.empty(size_bytes, dtype=torch.uint8)
    try:
        memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise NoRoom(f"a copy of the state takes {size_text(size_bytes)} of memory: {error.strerror}") from error
    for advice in ("MADV_HUGEPAGE", "MADV_DONTFORK"):
        with suppress(AttributeError, OSError):  # not every system has them
            memory.madvise(getattr(mmap, advice))
    return torch.frombuffer(memory, dtype=torch.uint8)
